"""``report.html``: one file that holds everything, the plots' library among it, and asks no network for anything.

Whatever comes from a result file reaches the page as escaped text or as JSON that no script tag can end; a content
security policy by hash keeps any other script from running.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.columns import lower_is_better
from sousa_bench.analysis.factors import BASE_FACTORS
from sousa_bench.analysis.origins import origin_words
from sousa_bench.analysis.plots import Plot
from sousa_bench.analysis.plots.details import confusion_traces, detail_runs, f1_traces
from sousa_bench.analysis.plots.style import template
from sousa_bench.analysis.report.sections import (
    answer_section,
    failures_section,
    methods_section,
    origins_section,
    steps_section,
)
from sousa_bench.analysis.stats.folds import FOLD, fold_order
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import EVALUATED

MAX_ROWS = 2000
MAX_LEVELS = 24
FOLD_COLUMN = {"key": FOLD, "title": "Fold", "kind": "factor"}
GROUPS = ("Accuracy", "Cost", "Effects", "Training", "Predictions")
VARIANTS = {"confusion_matrix": confusion_traces, "per_class_f1": f1_traces}


def page(
    study: Study, plots: Sequence[Plot], top: int = 5, title: str = "sousa_bench report", refresh: float = 0
) -> str:
    """The whole report as HTML.

    Args:
        study: From ``compare``.
        plots: From ``all_plots(study, page=True)``.
        top: Length of the best lists.
        title: Title of the page.
        refresh: Seconds after which the page loads itself again; 0 for never.
    """
    rows = _rows(study)
    data = {
        "metric": study.metric,
        "ascending": lower_is_better(study.metric, study.table),
        "columns": _columns(study),
        "filters": _filters(study),
        "runs": rows,
        "plots": [_plot(study, plot) for plot in plots if plot.figure is not None],
        "labels": {str(row): label for row, label in study.run_labels.items()},
        "templates": {theme: template(theme) for theme in ("light", "dark")},
    }
    scripts = {"PLOTLY": _plotly(), "SCRIPT": _asset("page.js")}
    hidden = len(study.table) - len(rows)
    parts = {
        **scripts,
        "TITLE": html.escape(title),
        "POLICY": _policy(list(scripts.values())),
        "REFRESH": f'<meta http-equiv="refresh" content="{refresh:g}">' if refresh else "",
        "STYLE": _asset("page.css"),
        "MADE": f"{datetime.now():%Y-%m-%d %H:%M}",
        "HIDDEN": f"<p class=note>The table holds the best {len(rows)} runs; {hidden} more are in "
        "comparison_table.csv.</p>"
        if hidden > 0
        else "",
        "ANSWER": answer_section(study, top),
        "PLOTS": "".join(_group(group, [plot for plot in plots if plot.group == group]) for group in GROUPS),
        "ORIGINS": origins_section(study),
        "FAILURES": failures_section(study),
        "STEPS": steps_section(study, top),
        "METHODS": methods_section(study),
        "DATA": script_json(data),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match.group(1)], _asset("page.html"))


def script_json(content: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or a line of JavaScript."""
    text = json.dumps(_plain(content), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    """Only what JSON has: numpy arrays as lists, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)


@cache
def _asset(name: str) -> str:
    return resources.files("sousa_bench.analysis.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    code: str = get_plotlyjs()
    return code.replace("</script", "<\\/script")


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy under which only these inline scripts run, and nothing is fetched."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _columns(study: Study) -> list[dict[str, Any]]:
    """The columns of the page's table: key, heading, kind (text, number), digits or unit."""
    varied = [key for key in study.factors if key not in BASE_FACTORS]
    columns: list[dict[str, Any]] = [
        {"key": "model", "title": "Model", "kind": "text"},
        {"key": "strategy", "title": "PEFT", "kind": "text"},
        {"key": "augmentation", "title": "Aug.", "kind": "flag"},
        *({"key": key, "title": key, "kind": "factor"} for key in varied),
    ]
    if "seed" in study.table and study.table["seed"].nunique() > 1:
        columns.append({"key": "seed", "title": "Seed", "kind": "factor"})
    if FOLD in study.table:
        columns.insert(-1 if columns[-1]["key"] == "seed" else len(columns), FOLD_COLUMN)
    if any(origin_words(row) for row in _lineage(study)):
        columns.append({"key": "origin", "title": "Comes from", "kind": "origin"})
    if study.cohorts:
        columns.append({"key": "cohort", "title": "Cohort", "kind": "text"})
    columns.append({"key": "status", "title": "Status", "kind": "status"})
    if study.metric not in ("test_acc", "test_f1_macro", "val_acc"):
        columns.append({"key": study.metric, "title": study.metric, "kind": "number", "digits": 4})
    columns += [
        {"key": "test_acc", "title": "Test acc.", "kind": "number", "digits": 4},
        {"key": "interval", "title": "95 % interval", "kind": "interval"},
        {"key": "test_f1_macro", "title": "Macro F1", "kind": "number", "digits": 4},
        {"key": "val_acc", "title": "Val. acc.", "kind": "number", "digits": 4},
        {"key": "trainable_params", "title": "Trainable", "kind": "count"},
        {"key": "training_time_seconds", "title": "Minutes", "kind": "minutes"},
    ]
    if "peak_memory_bytes" in study.table and study.table["peak_memory_bytes"].notna().any():
        columns.append({"key": "peak_memory_bytes", "title": "GiB", "kind": "gib"})
    columns.append({"key": "clips", "title": "Clips / players", "kind": "clips"})
    return columns


def _rows(study: Study) -> list[dict[str, Any]]:
    """What the table shows of each run; the best ones where there are more than ``MAX_ROWS``."""
    keys = [column["key"] for column in _columns(study) if column["key"] in study.table]
    other = study.table.index.difference(study.done.index)
    chosen = [*study.done.index, *other][:MAX_ROWS]
    best = {row for rows in study.combinations.loc[study.combinations["best_set"], "rows"] for row in rows}
    frame = study.table.loc[chosen]
    origins = dict(zip(study.table.index, map(origin_words, _lineage(study)), strict=True))
    progress = frame["progress.epoch"] if "progress.epoch" in frame else pd.Series(np.nan, frame.index)
    made = []
    for row, item in zip(chosen, frame.to_dict("records"), strict=True):
        cell = {key: _short(item[key]) for key in dict.fromkeys((*keys, "test_acc"))}
        cell |= {
            "id": int(row),
            "experiment": _short(item["experiment_id"]),
            "low": _short(item["test_acc_low"]),
            "high": _short(item["test_acc_high"]),
            "why": item["interval_note"],
            "clips": int(item["test_clips"]),
            "players": int(item["test_players"]),
            "best": row in best,
        }
        if words := origins[row]:
            cell["origin"] = words[:400]
        if item["status"] == "running" and progress.loc[row] == progress.loc[row]:
            cell["epoch"] = f"epoch {_short(progress.loc[row])} of {_short(item['max_epochs'])}"
        made.append(cell)
    return made


def _lineage(study: Study) -> list[dict[Any, Any]]:
    keys = [key for key in (EVALUATED, "lineage.from", "lineage.warm", "lineage.command") if key in study.table]
    return study.table[keys].to_dict("records") if keys else [{}] * len(study.table)


def _short(value: Any) -> Any:
    """A value as the page carries it: six significant digits, short texts."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else float(f"{value:.6g}")
    return value[:200] if isinstance(value, str) else value


def _filters(study: Study) -> list[dict[str, Any]]:
    """The columns that the page filters by: those with two levels or more, and not too many."""
    keys = [*study.factors, "cohort", "status", *(key for key in (FOLD, "seed") if key in study.table)]
    titles = {"strategy": "PEFT strategy", FOLD: "Fold"}
    made = []
    for key in keys:
        values = sorted({_short(value) for value in study.table[key]}, key=lambda value: (value is None, str(value)))
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            values.sort()
        elif key == FOLD:
            values.sort(key=fold_order)
        if 2 <= len(values) <= MAX_LEVELS:
            made.append(
                {"key": key, "title": titles.get(key, key.capitalize() if "." not in key else key), "values": values}
            )
    return made


def _plot(study: Study, plot: Plot) -> dict[str, Any]:
    assert plot.figure is not None
    made = plot.figure.to_plotly_json()
    layout = {key: value for key, value in made["layout"].items() if key not in ("template", "title")}
    content = {"name": plot.name, "title": made["layout"]["title"]["text"], "data": made["data"], "layout": layout}
    if plot.name in VARIANTS:
        content["variants"] = {}
        for row in detail_runs(study):
            title, data = VARIANTS[plot.name](study, row)
            content["variants"][str(row)] = {"title": title, "data": data}
        content["data"] = []
        content["layout"]["meta"] = {**content["layout"]["meta"], "runs": detail_runs(study)}
    return content


def _group(group: str, plots: Sequence[Plot]) -> str:
    if not plots:
        return ""
    chooser = (
        '<p class="chooser"><label for="run">Run: </label><select id="run"></select></p>'
        if group == "Predictions"
        else ""
    )
    blocks = "".join(_block(plot) for plot in plots)
    return f'<section id="{group.lower()}"><h2>{group}</h2>{chooser}<div class="plots">{blocks}</div></section>'


def _block(plot: Plot) -> str:
    caption = html.escape(plot.caption)
    if plot.figure is None:
        title = html.escape(plot.name.replace("_", " ").capitalize())
        return f'<figure class="absent"><h3>{title}</h3><figcaption>{caption}</figcaption></figure>'
    name = html.escape(plot.name)
    return (
        f'<figure id="figure-{name}"><h3></h3><div class="plot" id="plot-{name}" role="img"></div>'
        f'<figcaption>{caption} <span class="more"></span></figcaption></figure>'
    )
