"""The ranking of the combinations: a frame, a table of the report, and as printed by the command."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import Column, declared_metrics, measure, measures, own_name
from sousa_bench.analysis.combinations import MORE_OF_SEVERAL
from sousa_bench.analysis.report import markdown
from sousa_bench.analysis.report.blocks import Table
from sousa_bench.analysis.study import Study

NOTHING_TO_RANK = "No run has completed yet, so there is nothing to rank."


def ranking(study: Study) -> pd.DataFrame:
    """The ranked combinations with the columns people ask for first, in the task's words."""
    return col.in_the_words_of(study.task, _ranked(study))


def _ranked(study: Study) -> pd.DataFrame:
    frame = study.combinations
    keys = ["combination", "cohort", "runs", "seeds", "folds", "clips", "players"]
    if (frame["folds"] > 0).any():
        keys += ["of_folds", "missing", "pooled_acc"]
    keys += [study.metric, "test_acc", "acc_low", "acc_high", "acc_std", "seed_std"]
    keys += ["test_f1_macro", *MORE_OF_SEVERAL]
    keys += [key for key in declared_metrics(study.table) if key.startswith("test_")]
    keys += ["trainable_params", "training_time_seconds", "peak_memory_bytes", "p_best", "best_set", "note"]
    out = frame[[key for key in dict.fromkeys(keys) if key in frame]].copy()
    out.insert(0, "rank", range(1, len(out) + 1))
    return out


def ranking_table(study: Study, top: int | None = None) -> Table:
    """The ``top`` combinations, or all."""
    rows = _ranked(study)
    if len(rows):
        cohorts = rows.groupby("cohort")
        several, tests = cohorts["runs"].transform("size") > 1, cohorts["p_best"].transform("count")
        rows["undecided"] = several & (tests == 0)  # nothing was tested against the first either
    return Table(_columns(study), rows[:top].to_dict("records"))


def _columns(study: Study) -> list[Column]:
    frame, known = study.combinations, measures(study.task)
    shown = [known["test_acc"], col.interval_column(study.task)]
    if (frame["folds"] > 0).any():
        shown.append(col.FOLDS)
    if frame["seed_std"].notna().any():
        shown.append(col.SEEDS)
    shown += [known["test_f1_macro"], *test_metrics(study)]
    shown += [known["trainable_params"], known["training_time_seconds"]]
    shown += [col.clips_column(study.task), col.BEST]
    if study.metric not in [column.key for column in shown]:
        shown.insert(0, measure(study.metric, study.table))
    if study.cohorts:
        shown.insert(0, col.COHORT)
    return [Column("rank", "#", ".0f"), col.COMBINATION, *shown]


def test_metrics(study: Study) -> list[Column]:
    """The metrics of the test clips that the results declare themselves."""
    return [column for key, column in declared_metrics(study.table).items() if key.startswith("test_")]


def render(study: Study, form: str = "table") -> str:
    """The ranking as text.

    Args:
        study: From ``compare``.
        form: ``table``, ``markdown``, ``csv`` or ``json``.
    """
    if form == "json":
        rows = [{key: _json(value) for key, value in row.items()} for row in ranking(study).to_dict("records")]
        return json.dumps(
            {"metric": own_name(study.metric, study.task), "notes": study.notes, "ranking": rows}, indent=2
        )
    if form == "csv":
        return ranking(study).to_csv(index=False).rstrip("\n")
    block = ranking_table(study)
    text = markdown.table(block) if form == "markdown" else _table(block)
    return text or NOTHING_TO_RANK


def _json(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(block: Table) -> str:
    if not block.rows:
        return ""
    cells = block.aligned(lambda text: " ".join(text.split()))
    rows = ["  ".join(row).rstrip() for row in cells]
    return "\n".join([rows[0], "  ".join("-" * len(cell) for cell in cells[0]), *rows[1:]])
