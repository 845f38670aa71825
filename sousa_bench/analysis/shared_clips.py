"""The clips on which combinations meet: one set of test clips, or those of several folds put together.

Each player is tested in one fold only, by models that never heard that player, so the folds' predictions add up to one
set over all players.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.stats.comparisons import Measured
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.stats.training_luck import Repeats

MAX_SCALE = 2**31  # counts stay whole numbers in double precision

RunsBySet = Mapping[
    int, Sequence[int]
]  # a combination's rows in the table, by number of the clip set they were tested on


@dataclass
class SharedClips:
    """Combinations that were measured on the same clips.

    Attributes:
        sets: Numbers of the clip sets that make them up.
        clips: The clips, without predictions.
        measured: The combinations on them.
    """

    sets: tuple[int, ...]
    clips: ClipSet
    measured: list[Measured]


class Measurer:
    """Puts clip sets together, and counts how often combinations were right on them; each answer is looked up once.

    Args:
        clip_sets: From ``read_predictions``.

    Attributes:
        set_of: Number of the clip set of each run, by its row in the table.
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

    def measure(self, index: int, runs: RunsBySet, sets: tuple[int, ...]) -> Measured:
        """One combination on the clips of ``sets``, every set weighing by its clips, whatever its number of seeds."""
        right = [self._right[number][[self._place[row] for row in runs[number]]] for number in sets]
        scale = math.lcm(*(len(part) for part in right))
        exact = np.int64 if right[0].dtype == bool else np.float64
        hits = [part.sum(axis=0, dtype=exact) * (scale // len(part)) for part in right]
        seeds = max(len(part) for part in right)
        first = np.concatenate([part[0] for part in right])
        weights = np.array([part.shape[1] for part in right]) / len(first)
        trainings = 1 / float((weights**2 / [len(part) for part in right]).sum())
        return Measured(index, np.concatenate(hits), first, seeds, scale, trainings)

    def repeats(self, index: int, runs: RunsBySet, seedless: bool) -> Iterator[Repeats]:
        """The trainings of one combination on each clip set, where players are known."""
        for number, rows in runs.items():
            clips = self.clip_sets[number]
            if clips.player is not None:
                totals = clips.totals(self._right[number][[self._place[row] for row in rows]])
                yield Repeats(index, number, totals, clips.sizes, len(clips.label), seedless)

    def share(self, sets: tuple[int, ...], indices: Iterable[int], runs: Sequence[RunsBySet]) -> SharedClips:
        """Several combinations, each with its entry in ``runs``, on the clips of ``sets``."""
        return SharedClips(sets, self.pool(sets), [self.measure(index, runs[index], sets) for index in indices])


def pool(sets: Sequence[ClipSet]) -> ClipSet:
    """The clips of several sets as one, without predictions."""
    if len(sets) == 1:
        return sets[0]
    names = sorted({name for clips in sets for name in clips.players})
    place = {name: number for number, name in enumerate(names)}
    places = [np.array([place[name] for name in each.players], dtype=np.int64) for each in sets]
    known = all(each.player is not None for each in sets)
    return ClipSet(
        task=sets[0].task,
        sample_id=np.concatenate([clips.sample_id for clips in sets]),
        label=np.concatenate([clips.label for clips in sets]),
        player=np.concatenate([new[each.player] for new, each in zip(places, sets, strict=True)]) if known else None,
        players=names if known else [],
        slices={},
        player_of_part=np.concatenate(places) if known and sets[0].task.several else None,
    )


def runs_by_set(frame: pd.DataFrame, table: pd.DataFrame, measurer: Measurer) -> list[RunsBySet]:
    """The runs of each combination; of a fold only those on the set that most of its cohort's runs have.

    Args:
        frame: The combinations.
        table: A row a run.
        measurer: Over the clip sets.
    """
    chosen = _set_of_each_fold(frame, table, measurer)
    found: list[RunsBySet] = []
    for cohort, folds, rows in zip(frame["cohort"], frame["folds"], frame["rows"], strict=True):
        runs: dict[int, list[int]] = {}
        for row in rows:
            number = measurer.set_of.get(row)
            if number is not None and (not folds or chosen[cohort, str(table.at[row, FOLD])] == number):
                runs.setdefault(number, []).append(row)
        if folds and math.lcm(*map(len, runs.values())) > MAX_SCALE:
            runs = {number: rows[:1] for number, rows in runs.items()}
        found.append(runs)
    return found


def _set_of_each_fold(frame: pd.DataFrame, table: pd.DataFrame, measurer: Measurer) -> dict[tuple[str, str], int]:
    """The clip set that most runs of a cohort's fold were tested on, by cohort and fold."""
    runs = [run for rows in frame.loc[frame["folds"] > 0, "rows"] for run in rows if run in measurer.set_of]
    if not runs:
        return {}
    counted = table.loc[runs, ["cohort", FOLD]].assign(number=[measurer.set_of[run] for run in runs])
    sizes = counted.value_counts(["cohort", FOLD, "number"]).reset_index().sort_values("number", kind="stable")
    first = sizes.sort_values("count", ascending=False, kind="stable").drop_duplicates(["cohort", FOLD])
    return {(c, f): int(n) for c, f, n in zip(first["cohort"], first[FOLD], first["number"], strict=True)}


def meeting_places(frame: pd.DataFrame, runs: Sequence[RunsBySet], measurer: Measurer) -> list[SharedClips]:
    """Where combinations meet, that of most runs first: a clip set, or all folds that a combination has."""
    meeting: dict[tuple[int, ...], list[int]] = {}
    for index, (folds, mine) in enumerate(zip(frame["folds"], runs, strict=True)):
        for sets in [tuple(sorted(mine))] if folds and mine else [(number,) for number in mine]:
            meeting.setdefault(sets, []).append(index)
    order = sorted(meeting, key=lambda sets: (-sum(len(runs[i][n]) for i in meeting[sets] for n in sets), sets))
    return [measurer.share(sets, meeting[sets], runs) for sets in order]
