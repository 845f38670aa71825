"""Cells of a matrix that no run stands for: what a sweep meant to cross and didn't."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pandas as pd

from sousa_bench.analysis.baselines import BASELINES
from sousa_bench.analysis.commands import SMOKE, Cell, cell_of
from sousa_bench.analysis.factors import BASE_FACTORS, NO_COHORT, cohort_identity, counted_rows, shown
from sousa_bench.analysis.stats.folds import fold_counts
from sousa_bench.analysis.study import Study
from sousa_bench.config.overrides import split
from sousa_bench.results.scan import Planned


def missing_cells(study: Study, own: pd.Series) -> Iterator[tuple[str, list[int], list[Cell]]]:
    """Cells of the completed runs' crossed levels that have no run at all, for matrices at least half full.

    A cohort is a matrix of its own. Trials of the machinery (``experiment=smoke``) have no part in one.

    Args:
        study: The study.
        own: Which rows of its table were trained to be compared.

    Yields:
        A cohort's letter, the rows of its completed runs, and its missing cells.
    """
    table = study.table[own]
    table = table[np.array([not is_trial(study, row) for row in table.index], dtype=bool)]
    done = table[counted_rows(table)]
    begun = table.drop(done.index)
    unsure = (cohort_identity(study.table).loc[begun.index] == "").any(axis=1)
    settings = _settings(study)
    for name, part in done.groupby("cohort", sort=False):
        if name != NO_COHORT:
            asked = {settings[row] for row in part.index}
            may_be = [any(_agree(settings[row], one) for one in asked) for row in begun.index]
            mine = begun[(begun["cohort"] == name) | (unsure & np.array(may_be, dtype=bool))]
            yield str(name), list(part.index), list(_missing(study, part, mine))


def is_trial(study: Study, row: int) -> bool:
    """Whether a run of the table is a trial of the machinery, which says nothing of methods."""
    resolved, overrides = study.results.resolved[row], study.results.overrides[row] or ()
    if any(key in resolved for key in SMOKE):
        return any(resolved.get(key) is not None for key in SMOKE)
    given = [item for item in overrides if item[:1] != "~" and not item.endswith("=null")]
    return any(item in (*SMOKE, "experiment=smoke") or split(item)[0] in SMOKE for item in given)


def _settings(study: Study) -> list[tuple[str | None, ...]]:
    """What each run was asked for, if it ended before it could say its cohort: data, epochs, folds, weights."""
    table = study.table
    weights = [None if (named := each.get("weights")) is None else str(named) for each in study.results.resolved]
    columns = (table["data"].map(shown), table["max_epochs"].map(shown), fold_counts(table).map(str), weights)
    return list(zip(*columns, strict=True))


def _agree(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    return all(mine is None or theirs is None or mine == theirs for mine, theirs in zip(one, other, strict=True))


def _missing(study: Study, done: pd.DataFrame, begun: pd.DataFrame) -> Iterator[Cell]:
    """Missing cells of the matrix that the completed runs of a cohort span.

    Args:
        study: The study.
        done: Its completed runs.
        begun: Runs that have not completed and are, or may be, of this cohort.
    """
    keys = [*BASE_FACTORS, *study.results.factors]
    cells = done[keys].drop_duplicates()
    levels = [dict(zip(cells[key].map(shown), cells[key], strict=True)) for key in keys]
    every = pd.concat([done, begun])[keys].drop_duplicates().map(shown).itertuples(index=False, name=None)
    there = {cell for cell in every if all(value in level for value, level in zip(cell, levels, strict=True))}
    size = math.prod(map(len, levels))
    if size > 2 * len(there) or size == len(there):
        return
    jobs = [*study.results.waiting(), *(job for job in study.results.planned if job.decision == "refused")]
    common = {key: done[key].mode(dropna=False).iloc[0] for key in ("data", "max_epochs")}
    counts = fold_counts(done)
    common |= {"rows": list(done.index), "of_folds": int(counts.iloc[0]) if counts.nunique() == 1 else 0}
    plain = set(BASELINES) - set(done.loc[done["augmentation"] == True, "strategy"])  # noqa: E712
    for values in itertools.product(*levels):
        if values not in there:
            row = {key: level[value] for key, level, value in zip(keys, levels, values, strict=True)}
            if row["augmentation"] and row["strategy"] in plain:
                continue
            cell = cell_of(study, row | common)
            if not any(stands_for(job, cell) for job in jobs):
                yield cell


def stands_for(job: Planned, cell: Cell) -> bool:
    """Whether a job that has no result is a cell's: a key that it doesn't name may have the cell's value.

    One that was refused stands for the cell on any data, unless it was refused for words that the cell doesn't have.
    """
    asked = dict(map(split, job.overrides))
    if job.decision == "refused":
        asked = {key: value for key, value in asked.items() if key.split(".")[0] in ("model", "peft", "weights")}
        return bool(asked) and all(key in cell and _same(value, cell[key]) for key, value in asked.items())
    return all(_same(asked[key], cell[key]) for key in asked.keys() & cell.keys())


def _same(asked: str, values: str) -> bool:
    """Whether a job's value is the cell's, or one of its comma list: as texts, or as numbers (``1e-3`` is 0.001)."""
    return _number(asked) in {_number(values), *map(_number, values.split(","))}


def _number(text: str) -> float | str:
    """A number where the text is one."""
    with suppress(ValueError):
        return float(text)
    return text
