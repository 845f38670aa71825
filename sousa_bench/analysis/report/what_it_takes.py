"""What it takes to know: what the tests find as they are, and how many seeds or groups find a smaller difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sousa_bench.analysis.columns import Column
from sousa_bench.analysis.reach import FOLDS, Reach, reaches
from sousa_bench.analysis.report.blocks import Block, Heading, Table, Text
from sousa_bench.analysis.stats.average_precision import MAX_BLOCKS
from sousa_bench.analysis.stats.sample_size import ASSUMED_LUCK, POWER
from sousa_bench.analysis.study import Study
from sousa_bench.task import Task

TO_FIND = Column(
    "difference", "to find", lambda row: f"{100 * row['difference']:g} point{'s' * (row['difference'] != 0.01)}"
)


def what_it_takes(study: Study) -> list[Block]:
    """A paragraph and a table for each cohort with a comparison."""
    blocks: list[Block] = []
    for reach in reaches(study):
        of_cohort = f" (cohort {reach.cohort})" if study.cohorts else ""
        blocks += [
            Heading(f"What it takes to know{of_cohort}", 3),
            Text([" ".join(_sentences(reach, study.task))]),
            Table(_columns(reach, study.task), reach.rows()),
        ]
    return blocks


def needs(row: Mapping[Any, Any], key: str, none: str = "not by these alone") -> str:
    """A number for one comparison, and in brackets for all: ``12 (31)``."""
    one, every = (none if (value := row.get(f"{key}{kind}")) is None else f"{value:,}" for kind in ("", "_all"))
    return one if one == every else f"{one} ({every})"


def _sample(reach: Reach, task: Task) -> str:
    """What the sample is made of; clips of which no groups are known are taken together where there are many."""
    return task.groups if task.grouped or reach.design.players < MAX_BLOCKS else "blocks of clips"


def _sentences(reach: Reach, task: Task) -> list[str]:
    design, components = reach.design, reach.components
    sample = _sample(reach, task)
    seeds = f"{design.seeds} seed{'s' if design.seeds > 1 else ''}"
    folds = f" in each of {design.folds} folds" if design.folds > 1 else ""
    one, every = components.least(design), components.least(design, reach.quantile)
    whose = "" if reach.known else " of these trained models"
    said = [
        f"The leader against those that can't be told from it, else the next: with {design.players} {sample} and "
        f"{seeds}{folds} the test finds a difference{whose} of {100 * one:.1f} points with power {POWER:g} in one "
        f"comparison alone, of {100 * every:.1f} points among all of its family."
    ]
    if reach.known:
        chosen, trainings = components.parts(design)
        share = 100 * chosen / (chosen + trainings) if chosen + trainings else 0.0
        whose = f"{sample} and their clips" if task.grouped else sample
        said.append(
            f"{share:.0f} % of that comparison's variance comes from {whose}, {100 - share:.0f} % from trainings."
        )
    else:
        said.append(
            "Nothing was trained twice, so more seeds come first; until then the table assumes that trainings of one "
            f"method differ by {100 * ASSUMED_LUCK:g} points, as those of experiment=comparison do."
        )
    return [
        *said,
        f"The table has the numbers for one comparison, in brackets those for all; {sample} are as these"
        f"{', each with as many clips' if sample != 'clips' else ''}.",
    ]


def _columns(reach: Reach, task: Task) -> list[Column]:
    sample = _sample(reach, task)
    columns = [
        TO_FIND,
        Column("seeds", f"seeds, with {reach.design.players} {sample}", _cell("seeds")),
        Column(
            "players",
            f"{sample}, with {reach.design.seeds} seeds" if reach.known else sample,
            _cell("players", "not by these alone" if reach.known else "seeds first"),
        ),
    ]
    if (design := reach.cross_validated) is not None:
        label = f"seeds a fold, {FOLDS} folds with {design.players} {sample}"
        columns.append(Column("seeds_in_folds", label, _cell("seeds_in_folds")))
    return columns


def _cell(key: str, none: str = "not by these alone") -> Callable[[Mapping[Any, Any]], str]:
    return lambda row: needs(row, key, none)
