"""The ranking of the combinations, as a frame for scripts and as a table for people."""

from __future__ import annotations

import pandas as pd

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import MEASURES, Column, declared_metrics, measure
from sousa_bench.analysis.report.blocks import Table
from sousa_bench.analysis.study import Study

NOTHING_TO_RANK = "No run has completed yet, so there is nothing to rank."


def ranking(study: Study) -> pd.DataFrame:
    """The ranked combinations with the columns people ask for first."""
    frame = study.combinations
    keys = ["combination", "cohort", "runs", "seeds", "folds", "clips", "players"]
    if (frame["folds"] > 0).any():
        keys += ["of_folds", "missing", "pooled_acc"]
    keys += [study.metric, "test_acc", "acc_low", "acc_high", "acc_std", "seed_std", "test_f1_macro"]
    keys += [key for key in declared_metrics(study.table) if key.startswith("test_")]
    keys += ["trainable_params", "training_time_seconds", "peak_memory_bytes", "p_best", "best_set", "note"]
    out = frame[[key for key in dict.fromkeys(keys) if key in frame]].copy()
    out.insert(0, "rank", range(1, len(out) + 1))
    return out


def ranking_table(study: Study, top: int | None = None) -> Table:
    """The ``top`` combinations, or all."""
    return Table(_columns(study), ranking(study)[:top].to_dict("records"))


def _columns(study: Study) -> list[Column]:
    frame = study.combinations
    shown = [MEASURES["test_acc"], col.INTERVAL]
    if (frame["folds"] > 0).any():
        shown.append(col.FOLDS)
    if frame["seed_std"].notna().any():
        shown.append(col.SEEDS)
    shown += [MEASURES["test_f1_macro"], *test_metrics(study)]
    shown += [MEASURES["trainable_params"], MEASURES["training_time_seconds"], col.CLIPS, col.BEST]
    if study.metric not in [column.key for column in shown]:
        shown.insert(0, measure(study.metric, study.table))
    if study.cohorts:
        shown.insert(0, col.COHORT)
    return [Column("rank", "#", ".0f"), col.COMBINATION, *shown]


def test_metrics(study: Study) -> list[Column]:
    """The metrics of the test clips that the results declare themselves."""
    return [column for key, column in declared_metrics(study.table).items() if key.startswith("test_")]
