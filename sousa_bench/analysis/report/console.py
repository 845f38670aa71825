"""The ranked table as printed: for the eye, or as Markdown, CSV or JSON for a script."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sousa_bench.analysis.study import Study

FORMATS = ("table", "markdown", "csv", "json")


def ranking(study: Study, top: int | None = None) -> pd.DataFrame:
    """The ranked combinations with the columns people ask for first.

    Args:
        study: From ``compare``.
        top: Number of combinations; None for all.
    """
    frame = study.combinations if top is None else study.combinations.head(top)
    keys = [key for key in ("combination", "cohort", "runs", "seeds", "folds", "clips", "players") if key in frame]
    if (frame["folds"] > 0).any():
        keys += ["of_folds", "missing", "pooled_acc"]
    spreads = ("acc_low", "acc_high", "acc_std", "seed_std")
    numbers = dict.fromkeys((study.metric, "test_acc", *spreads, "test_f1_macro"))
    rest = ("trainable_params", "training_time_seconds", "peak_memory_bytes", "p_best", "best_set", "note")
    columns = [*keys, *(key for key in numbers if key in frame), *(key for key in rest if key in frame)]
    out = frame[columns].copy()
    out.insert(0, "rank", range(1, len(out) + 1))
    return out


def combination_rows(study: Study) -> pd.DataFrame:
    """A row a combination as ``combinations.csv`` holds it: plain values, with the ids of its runs."""
    frame = study.combinations.drop(columns=["rows", "ground"])
    names = study.table["experiment_id"]
    frame["experiment_ids"] = [" ".join(str(names[row]) for row in rows) for rows in study.combinations["rows"]]
    frame["augmentation"] = frame["augmentation"].astype("boolean")
    return frame


def render(study: Study, form: str = "table", top: int | None = None) -> str:
    """The ranking as text.

    Args:
        study: From ``compare``.
        form: One of ``FORMATS``.
        top: Number of combinations; None for all.
    """
    frame = ranking(study, top)
    if form == "json":
        rows = [{key: _json(value) for key, value in row.items()} for row in frame.to_dict("records")]
        return json.dumps({"metric": study.metric, "notes": study.notes, "ranking": rows}, indent=2)
    if form == "csv":
        return frame.to_csv(index=False).rstrip("\n")
    return _lines(study, frame, markdown=form == "markdown")


def _json(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(study: Study, frame: pd.DataFrame, markdown: bool) -> str:
    rows = [_cells(study, row, markdown) for row in frame.to_dict("records")]
    if not rows:
        return "No run has completed yet, so there is nothing to rank."
    head = list(rows[0])
    widths = [max(len(key), *(len(row[key]) for row in rows)) for key in head]
    left = {"combination", "can be the best"}

    def line(values: list[str]) -> str:
        cells = [v.ljust(w) if k in left else v.rjust(w) for k, v, w in zip(head, values, widths, strict=True)]
        return "| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip()

    rule = (
        "|" + "|".join("-" * (width + 2) for width in widths) + "|" if markdown else "  ".join("-" * w for w in widths)
    )
    return "\n".join([line(head), rule, *(line([row[key] for key in head]) for row in rows)])


def _cells(study: Study, row: Mapping[Any, Any], markdown: bool) -> dict[str, str]:
    name = escape(row["combination"]) if markdown else " ".join(str(row["combination"]).split())
    cells = {"#": str(row["rank"]), "combination": name}
    if study.cohorts:
        cells["cohort"] = str(row["cohort"])
    if study.metric not in ("test_acc", "test_f1_macro"):
        cells[study.metric] = f"{row[study.metric]:.4g}"
    cells["test acc"] = f"{row['test_acc']:.4f}"
    low, high = row["acc_low"], row["acc_high"]
    cells["95 % interval"] = f"{low:.3f} to {high:.3f}" if low == low else "-"
    if (study.combinations["folds"] > 0).any():
        cells["± folds (n)"] = fold_spread(row)
    if study.combinations["seed_std"].notna().any():
        cells["± seeds (n)"] = seed_spread(row)
    cells["macro F1"] = f"{row['test_f1_macro']:.4f}"
    cells["trainable"] = (
        f"{row['trainable_params']:,.0f}" if row["trainable_params"] == row["trainable_params"] else "-"
    )
    cells["minutes"] = minutes(row["training_time_seconds"])
    cells["clips/players"] = f"{row['clips']:,}/{row['players']}" if row["clips"] else "-"
    best = row["best_set"]
    cells["can be the best"] = "yes" if best else "no" if row["p_best"] == row["p_best"] else "not tested"
    return cells


def fold_spread(row: Mapping[Any, Any] | pd.Series) -> str:
    """Standard deviation over folds, with their number, and that of all folds where some are missing."""
    if not row["folds"]:
        return "-"
    count = f"{row['folds']}" if row["folds"] == row["of_folds"] else f"{row['folds']} of {row['of_folds']}"
    return f"{row['acc_std']:.4f} ({count})" if row["acc_std"] == row["acc_std"] else f"- ({count})"


def seed_spread(row: Mapping[Any, Any] | pd.Series) -> str:
    """Standard deviation over seeds (pooled within folds), with their number, or that of runs where no seed differs."""
    count = row["seeds"] if row["folds"] else row["runs"]
    return f"{row['seed_std']:.4f} ({count})" if row["seed_std"] == row["seed_std"] else f"- ({count})"


def minutes(seconds: float) -> str:
    """Seconds as minutes: ``45.3m``."""
    return f"{seconds / 60:.1f}m" if seconds == seconds else "-"


def p_value(value: float) -> str:
    """A p value to four places: ``0.0123``, ``<0.0001``, ``–`` where there is none."""
    if value != value:
        return "–"
    return f"{value:.4f}" if value >= 0.00005 else "<0.0001"


def escape(value: Any) -> str:
    """A text that Markdown shows as it stands: no HTML, no link, no emphasis, no new cell, one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for char in "\\`*[]|":
        text = text.replace(char, f"\\{char}")
    return text
