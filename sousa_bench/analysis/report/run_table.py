"""What the page's table of all runs holds: its columns, its cells and what they are sorted by, its filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sousa_bench.analysis.columns import (
    ABSENT,
    COHORT,
    Column,
    between,
    clips_column,
    declared_metrics,
    is_absent,
    measure,
    measures,
)
from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.origins import all_origin_words
from sousa_bench.analysis.stats.folds import FOLD, fold_order
from sousa_bench.analysis.study import Study

MAX_LEVELS = 24
MAX_ORIGIN = 40
ASIDE = {"interval": "interval_note", "origin": "origin"}  # what more is said of a cell where the pointer rests on it


def run_columns(study: Study) -> list[Column]:
    """The columns of the page's table."""
    table = study.table
    factors = [key for key in study.factors if key not in BASE_FACTORS]
    factors += [key for key in (FOLD, "seed") if key in table and (key == FOLD or table[key].nunique() > 1)]
    names = {FOLD: "fold"}
    columns = [
        Column("model", "model", text=True),
        Column("strategy", "PEFT", text=True),
        Column("augmentation", "aug.", _augmentation, text=True),
        *(Column(key, names.get(key, key), _level(key)) for key in factors),
    ]
    if any(all_origin_words(table)):
        columns.append(Column("origin", "comes from", _origin, text=True))
    if study.cohorts:
        columns.append(COHORT)
    columns.append(Column("status", "status", _status, text=True))
    interval = Column("interval", "95 % interval", between("test_acc_low", "test_acc_high"))
    clips = clips_column(study.task, "test_clips", "test_players", help="")
    known = measures(study.task)
    keys = [
        known["test_f1_macro"].key,
        *declared_metrics(table),
        "val_acc",
        "trainable_params",
        "training_time_seconds",
    ]
    if "peak_memory_bytes" in table and table["peak_memory_bytes"].notna().any():
        keys.append("peak_memory_bytes")
    if study.metric not in (*keys, "test_acc"):
        columns.append(measure(study.metric, table))
    by_key = {column.key: column for column in known.values()}
    return [*columns, known["test_acc"], interval, *(by_key.get(key) or measure(key, table) for key in keys), clips]


def _level(key: str) -> Callable[[Mapping[Any, Any]], str]:
    return lambda row: shown(row[key])


def _augmentation(row: Mapping[Any, Any]) -> str:
    return "?" if row["augmentation"] is None else "yes" if row["augmentation"] else "no"


def _origin(row: Mapping[Any, Any]) -> str:
    said = row["origin"] or ABSENT
    return said if len(said) <= MAX_ORIGIN else f"{said[: MAX_ORIGIN - 1]}…"


def _status(row: Mapping[Any, Any]) -> str:
    epoch = row.get("progress.epoch")
    if row["status"] != "running" or is_absent(epoch):
        return str(row["status"])
    return f"running, epoch {_short(epoch)} of {_short(row['max_epochs'])}"


def run_rows(study: Study, columns: list[Column]) -> list[dict[str, Any]]:
    """What the table holds of each run of ``Study.drawn``.

    Returns:
        For each run the values that it is filtered and sorted by, under their keys, and ``cells``, their texts;
        ``asides`` holds what more there is to say of a cell.
    """
    chosen = study.drawn.rows
    best = {row for rows in study.combinations.loc[study.combinations["best_set"], "rows"] for row in rows}
    frame = study.table.loc[chosen]
    frame = frame.assign(origin=[words[:400] for words in all_origin_words(frame)], interval=frame["test_acc_low"])
    made = []
    for row, item in zip(chosen, frame.to_dict("records"), strict=True):
        values = {column.key: _short(item[column.key]) for column in columns}
        cells = {column.key: _short(column.cell(item)) for column in columns}
        if row in best:
            cells["test_acc"] = f"★ {cells['test_acc']}"
        asides = {key: item[source] for key, source in ASIDE.items() if item[source]}
        more = {"id": row, "experiment": _short(item["experiment_id"]), "cells": cells, "asides": asides}
        made.append(values | {key: _short(item[key]) for key in ("cohort", "seed") if key in item} | more)
    return made


def _short(value: Any) -> Any:
    """A value as the page carries it: six significant digits, short texts."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else float(f"{value:.6g}")
    return value[:200] if isinstance(value, str) else value


def filters(study: Study) -> list[dict[str, Any]]:
    """The columns that the page filters by: those with two levels or more, and not too many.

    ``repeats`` are those in which the runs of one combination differ.
    """
    repeats = [key for key in (FOLD, "seed") if key in study.table]
    keys = [*study.factors, "cohort", "status", *repeats]
    titles = {"strategy": "PEFT strategy", FOLD: "Fold"}
    made = []
    for key in keys:
        values = sorted({_short(value) for value in study.table[key]}, key=lambda value: (value is None, str(value)))
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            values.sort()
        elif key == FOLD:
            values.sort(key=fold_order)
        if 2 <= len(values) <= MAX_LEVELS:
            title = titles.get(key, key if "." in key else key.capitalize())
            made.append({"key": key, "title": title, "values": values, "repeats": key in repeats})
    return made
