"""Which runs the page holds and draws one by one, where they are too many to hold them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.model_sizes import MULTIPLY_ADDS, PARAMETERS
from sousa_bench.analysis.order import places_of_groups
from sousa_bench.analysis.standings import MOST_COHORTS
from sousa_bench.analysis.stats.cost_front import COST, front_places

if TYPE_CHECKING:
    from sousa_bench.analysis.study import Study

MOST_RUNS = 2000
ROW_LIMIT = 40  # rows of dots in an image, or at once in the page
OF_ALL = "Lines, means and intervals are of all runs; a filter counts the drawn ones."


@dataclass(frozen=True)
class DrawnRuns:
    """The runs that stand one by one in the page's table and figures.

    Attributes:
        rows: Their row numbers, the completed ones first, best first.
        total: How many runs there are.
        by_combination: Whether each combination has its share of them; else the combinations are too many.
    """

    rows: list[int]
    total: int
    by_combination: bool = True

    @cached_property
    def _known(self) -> frozenset[int]:
        return frozenset(self.rows)

    @property
    def all(self) -> bool:
        """Whether none is left out."""
        return len(self.rows) == self.total

    @property
    def chosen(self) -> str:
        """How they were chosen, in words."""
        of, more = ("of each combination", "") if self.by_combination else ("of all runs", ", the best of the leaders")
        return f"{of} the best, the worst and others evenly between them{more}, and the first and last of each figure"

    def __contains__(self, row: object) -> bool:
        return row in self._known

    def of(self, values: pd.Series) -> pd.Series:
        """The values of these runs, of a series by row."""
        return values if self.all else values[values.index.isin(self.rows)]

    def part(self, rows: Sequence[int]) -> list[int]:
        """Those of ``rows``, and of the others one alone, by which the page knows that some are left out."""
        known = [int(row) for row in rows]
        if self.all:
            return known
        return [row for row in known if row in self] + [row for row in known if row not in self][:1]


def drawn_runs(study: Study) -> DrawnRuns:
    """All runs where there are no more than ``MOST_RUNS``, else as many as that, chosen without chance.

    The first that each figure shows, the ends of its axes, the first of its fronts and of the runs in progress; and of
    each combination (apart those that haven't completed) the best, the worst and others evenly between, as many of one
    as of another as far as it has them. Where there is no room for two of each combination, the same of all runs
    together, with the best run of each combination that a filter's verdict may name.
    """
    order = [*map(int, study.done.index), *map(int, study.table.index.difference(study.done.index))]
    if len(order) <= MOST_RUNS:
        return DrawnRuns(order, len(order))
    chosen = _ends(study)
    frame = study.table.loc[order, ["cohort", "combination"]].assign(done=np.arange(len(order)) < len(study.done))
    groups = places_of_groups(frame, ["cohort", "combination", "done"])
    by_combination = sum(min(len(places), 2) for places in groups) <= MOST_RUNS - len(chosen)
    if not by_combination:
        chosen |= _best_of_leaders(study)
        groups = [np.arange(len(order))]
    share = _share(np.array([len(places) for places in groups]), MOST_RUNS - len(chosen))
    chosen |= {order[place] for places in groups for place in places[_evenly(len(places), share)]}
    return DrawnRuns([row for row in order if row in chosen], len(order), by_combination)


def _ends(study: Study) -> set[int]:
    """Rows of runs that a figure shows first, that are the last in it, lie on its front, or are in progress."""
    done = study.done
    chosen = {*done.index[:ROW_LIMIT], *study.table.index[study.table["status"] == "running"][:ROW_LIMIT]}
    for key, lower in (("test_acc", False), ("training_time_seconds", True), ("peak_memory_bytes", True)):
        if key in done:
            order = pd.to_numeric(done[key], errors="coerce").dropna().sort_values(ascending=lower, kind="stable").index
            chosen |= {*order[:ROW_LIMIT], *order[-1:]}
    for key in (COST, PARAMETERS, MULTIPLY_ADDS):
        if key in done:
            cost = pd.to_numeric(done[key], errors="coerce").astype(float)
            cost = cost[cost > 0]
            gain = done.loc[cost.index, "test_acc"].to_numpy(float)
            chosen |= set(cost.index[front_places(cost.to_numpy(), gain)][:ROW_LIMIT])
    return {int(row) for row in chosen}


def _best_of_leaders(study: Study) -> set[int]:
    """Of each combination in a cohort's picture the row of its best run."""
    rows = [row for cohort in study.standings[:MOST_COHORTS] for own in cohort.leading["rows"] for row in own]
    done = study.done[study.done.index.isin(rows)]
    return set(map(int, done.drop_duplicates(["cohort", "combination"]).index))


def _share(sizes: NDArray[np.int_], room: int) -> int:
    """How many each group may have, so that all together have at most ``room``."""
    share = room // len(sizes)
    while share < sizes.max() and np.minimum(sizes, share + 1).sum() <= room:
        share += 1
    return int(share)


def _evenly(count: int, share: int) -> NDArray[np.int_]:
    """At most ``share`` places of ``count``, the first, the last, and others evenly between."""
    if count <= share:
        return np.arange(count)
    return np.linspace(0, count - 1, share).round().astype(int)
