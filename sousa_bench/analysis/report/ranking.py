"""The ranking of the combinations: as a frame, and of each cohort as a table of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import Column, declared_metrics, measure, measures
from sousa_bench.analysis.combinations import MORE_OF_SEVERAL
from sousa_bench.analysis.digits import percent, percent_interval, points_behind, three_digits
from sousa_bench.analysis.report.blocks import Table
from sousa_bench.analysis.standings import Standings
from sousa_bench.analysis.study import Study

MOST_COLUMNS = 10
FIRST_OF_ALL = 5  # of the most important columns, without which a table says nothing
TIMES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
BEHIND = "the highest; with the interval that holds for all comparisons of its family at once"


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


def ranking_table(cohort: Standings, start: int = 0, end: int | None = None) -> Table:
    """The combinations of a cohort from place ``start``, counted from 0, up to ``end``.

    In ``MOST_COLUMNS`` columns at most, that fit 1,000 px.
    """
    study = cohort.study
    rows = cohort.rows.copy()
    rows.insert(0, "place", range(1, len(rows) + 1))
    rows = rows[start:end]
    rows["name"] = rows["combination"].map(cohort.names)
    rows["rows"] = rows["rows"].map(study.drawn.part)
    rows["undecided"] = cohort.untested
    for key in ("difference", "simultaneous_low", "simultaneous_high"):
        rows[key] = [
            float(cohort.leads[name][key]) if name in cohort.leads else math.nan for name in rows["combination"]
        ]
    wanted = _columns(cohort)
    chosen = sorted(wanted, key=lambda column: importance(column.key, study.metric))[:MOST_COLUMNS]
    return Table([column for column in wanted if column in chosen], rows.to_dict("records"))


def _columns(cohort: Standings) -> list[Column]:
    """All columns that there could be, in the order of a table."""
    study, digits = cohort.study, cohort.digits
    frame, known = cohort.rows, measures(study.task)
    score, second = known["test_acc"], known["test_f1_macro"]
    made = [
        Column("place", "#", ".0f"),
        Column("name", "combination", text=True),
        _in_percent(score, digits),
        Column("acc_low", "95 % interval", lambda row: percent_interval(row["acc_low"], row["acc_high"], digits),
               "higher", col.interval_column(study.task).help),
        Column("difference", "points behind", lambda row: _behind(row, digits), "lower", BEHIND),
        col.BEST,
    ]  # fmt: skip
    if study.metric not in [column.key for column in made]:
        made.insert(2, measure(study.metric, study.table))
    if (frame["folds"] > 0).any():
        made.append(_spread("acc_std", "± folds (n)", col.FOLDS, digits))
    if frame["seed_std"].notna().any():
        made.append(_spread("seed_std", "± seeds (n)", col.SEEDS, digits))
    made += [_in_percent(second, digits), *test_metrics(study)]
    made.append(Column("trainable_params", "trainable", lambda row: three_digits(row["trainable_params"]), "lower",
                       known["trainable_params"].help))  # fmt: skip
    made.append(Column("training_time_seconds", "training", lambda row: _time(row["training_time_seconds"]), "lower",
                       known["training_time_seconds"].help))  # fmt: skip
    if frame[["clips", "players"]].drop_duplicates().shape[0] > 1:
        made.append(col.clips_column(study.task))
    return list({column.key: column for column in made}.values())


def importance(key: str, metric: str) -> int:
    """What a table of few columns keeps: the smaller, the sooner."""
    first = ("place", "name", metric, "test_acc", "acc_low", "best_set", "difference", "seed_std", "acc_std")
    last = ("trainable_params", "training_time_seconds", "test_f1_macro", "test_map_micro")
    if key in first:
        return first.index(key)
    return len(first) + (last.index(key) + 1 if key in last else 0)


def _in_percent(column: Column, digits: int) -> Column:
    return replace(column, format=lambda row: percent(row[column.key], digits))


def _spread(key: str, label: str, like: Column, digits: int) -> Column:
    """A standard deviation in points with its number, as ``like`` has it as a share."""

    def cell(row: Mapping[Any, Any]) -> str:
        number = like.cell(row).rpartition(" (")[2].removesuffix(")")
        return col.ABSENT if col.is_absent(row[key]) else f"{100 * row[key]:.{max(digits, 1)}f} ({number})"

    return Column(key, label, cell, help=f"{like.help}; in points")


def _behind(row: Mapping[Any, Any], digits: int) -> str:
    if col.is_absent(row["difference"]):
        return col.ABSENT
    return points_behind(row["difference"], row["simultaneous_low"], row["simultaneous_high"], digits)


def _time(seconds: float) -> str:
    """A time to three digits: ``37.6 min``."""
    if col.is_absent(seconds):
        return col.ABSENT
    size, unit = next(((size, unit) for size, unit in TIMES if seconds >= size), TIMES[-1])
    return f"{three_digits(seconds / size)} {unit}"


def test_metrics(study: Study) -> list[Column]:
    """The metrics of the test clips that the results declare themselves."""
    return [column for key, column in declared_metrics(study.table).items() if key.startswith("test_")]
