"""The clips on which combinations meet: one set of test clips, or those of several folds put together.

Each player is tested in one fold only, by models that never heard that player, so the folds' predictions add up to one
set over all players.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.stats.comparisons import Measured
from sousa_bench.analysis.stats.folds import FOLD

MAX_SCALE = 2**31  # counts stay whole numbers in double precision

Own = Mapping[int, Sequence[int]]  # rows of a combination by number of the clip set that they were tested on


@dataclass
class Ground:
    """Combinations that were measured on the same clips.

    Attributes:
        sets: Numbers of the clip sets that make it up.
        clips: Their clips, without predictions.
        measured: The combinations on them.
    """

    sets: tuple[int, ...]
    clips: ClipSet
    measured: list[Measured]


class Measurer:
    """Puts clip sets together, and counts who was right on them; each right answer is looked up once.

    Args:
        clip_sets: From ``read_predictions``.
    """

    def __init__(self, clip_sets: Sequence[ClipSet]) -> None:
        self.clip_sets = clip_sets
        self.set_of = {row: number for number, clips in enumerate(clip_sets) for row in clips.rows}
        self._place = {row: place for clips in clip_sets for place, row in enumerate(clips.rows)}
        self._right = [clips.correct for clips in clip_sets]
        self._pools: dict[tuple[int, ...], ClipSet] = {}

    def pool(self, sets: tuple[int, ...]) -> ClipSet:
        """The clips of several sets as one; a player of the same name in two of them is one player."""
        if sets not in self._pools:
            self._pools[sets] = pool([self.clip_sets[number] for number in sets])
        return self._pools[sets]

    def measure(self, index: int, own: Own, sets: tuple[int, ...]) -> Measured:
        """One combination on the clips of ``sets``, every set weighing by its clips, whatever its number of seeds."""
        right = [self._right[number][[self._place[row] for row in own[number]]] for number in sets]
        scale = math.lcm(*(len(part) for part in right))
        hits = [part.sum(axis=0, dtype=np.int64) * (scale // len(part)) for part in right]
        seeds = max(len(part) for part in right)
        return Measured(index, np.concatenate(hits), np.concatenate([part[0] for part in right]), seeds, scale)


def pool(sets: Sequence[ClipSet]) -> ClipSet:
    """The clips of several sets as one, without predictions."""
    if len(sets) == 1:
        return sets[0]
    names = sorted({name for clips in sets for name in clips.players})
    place = {name: number for number, name in enumerate(names)}
    codes: list[NDArray[np.int64]] = []
    for clips in sets:
        if clips.player is not None:
            codes.append(np.array([place[name] for name in clips.players])[clips.player])
    known = len(codes) == len(sets)
    return ClipSet(
        sample_id=np.concatenate([clips.sample_id for clips in sets]),
        label=np.concatenate([clips.label for clips in sets]),
        player=np.concatenate(codes) if known else None,
        players=names if known else [],
        slices={},
    )


def own_rows(frame: pd.DataFrame, table: pd.DataFrame, measurer: Measurer) -> list[Own]:
    """For each combination its rows by clip set; of a fold only those on the set that most of its cohort's runs have.

    Args:
        frame: The combinations.
        table: A row a run.
        measurer: Over the clip sets.
    """
    chosen = _chosen_sets(frame, table, measurer)
    own: list[Own] = []
    for cohort, folds, rows in zip(frame["cohort"], frame["folds"], frame["rows"], strict=True):
        mine: dict[int, list[int]] = {}
        for run in rows:
            number = measurer.set_of.get(run)
            if number is not None and (not folds or chosen[str(cohort), str(table.at[run, FOLD])] == number):
                mine.setdefault(number, []).append(run)
        own.append(_even(mine) if folds else mine)
    return own


def _even(mine: dict[int, list[int]]) -> dict[int, list[int]]:
    """As many of each fold's runs as have a common multiple that counts can be held in: all, but for absurd numbers."""
    if math.lcm(*(len(rows) for rows in mine.values())) <= MAX_SCALE:
        return mine
    return {number: rows[:1] for number, rows in mine.items()}


def _chosen_sets(frame: pd.DataFrame, table: pd.DataFrame, measurer: Measurer) -> dict[tuple[str, str], int]:
    runs = [run for rows in frame.loc[frame["folds"] > 0, "rows"] for run in rows if run in measurer.set_of]
    if not runs:
        return {}
    counted = table.loc[runs, ["cohort", FOLD]].assign(number=[measurer.set_of[run] for run in runs])
    sizes = counted.value_counts(["cohort", FOLD, "number"]).reset_index().sort_values("number", kind="stable")
    first = sizes.sort_values("count", ascending=False, kind="stable").drop_duplicates(["cohort", FOLD])
    return {(str(c), str(f)): int(n) for c, f, n in zip(first["cohort"], first[FOLD], first["number"], strict=True)}


def grounds(frame: pd.DataFrame, own: Sequence[Own], measurer: Measurer) -> list[Ground]:
    """Where combinations meet, that of most runs first: a clip set, or all folds that a combination has."""
    meeting: dict[tuple[int, ...], list[int]] = {}
    for index, (folds, mine) in enumerate(zip(frame["folds"], own, strict=True)):
        for sets in [tuple(sorted(mine))] if folds and mine else [(number,) for number in mine]:
            meeting.setdefault(sets, []).append(index)
    order = sorted(meeting, key=lambda sets: (-sum(len(own[i][n]) for i in meeting[sets] for n in sets), sets))
    return [
        Ground(sets, measurer.pool(sets), [measurer.measure(index, own[index], sets) for index in meeting[sets]])
        for sets in order
    ]


def shared_grounds(
    ground: Ground, other: Ground, own: Sequence[Own], measurer: Measurer, chosen: Iterable[int]
) -> tuple[Ground, int]:
    """The folds that two grounds have in common, with the combinations of both, those of ``ground`` first.

    Args:
        ground: Some folds.
        other: Some other folds.
        own: From ``own_rows``.
        measurer: As before.
        chosen: The combinations that are wanted.

    Returns:
        The common ground (without combinations where no fold is common), and the number of those from ``ground``.
    """
    sets = tuple(sorted(set(ground.sets) & set(other.sets)))
    wanted = set(chosen)
    first = [item.index for item in ground.measured if item.index in wanted]
    second = [item.index for item in other.measured if item.index in wanted]
    if not sets or not first or not second:
        return Ground(sets, ClipSet(np.zeros(0), np.zeros(0, np.int64), None, [], {}), []), 0
    measured = [measurer.measure(index, own[index], sets) for index in (*first, *second)]
    return Ground(sets, measurer.pool(sets), measured), len(first)
