"""What augmentation does: averages, and paired differences where everything else is equal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.order import places_of_groups
from sousa_bench.analysis.stats.comparisons import pair_table
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study
from sousa_bench.task import Task

MAX_NAMED = 6

Repeat = tuple[str, str, int]  # fold, seed, and a number that tells runs of the same fold and seed apart


@dataclass
class Impact:
    """The effect of augmentation.

    Attributes:
        averages: Name, mean test accuracy, number of runs, and the clips and players they were tested on.
        table: A row a pair, over the seeds and folds that both sides have: ``label``, ``with_rows`` and
            ``without_rows`` (row numbers of the runs), ``repeats`` (how many runs on either side, and how many were
            left out), ``difference`` (with minus without) with ``low`` and ``high``, ``p``, ``p_adjusted`` within this
            family, ``about``, ``clips``, ``players``.
        reason: Why there are no pairs, or which were left out, in a sentence; empty where all were paired.
    """

    averages: list[tuple[str, float, int, str]] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    reason: str = ""


@lru_cache(maxsize=2)
def augmentation_impact(study: Study) -> Impact:
    """Compare with and without augmentation, combination by combination."""
    done = study.table[(study.table["status"] == "completed") & study.table["test_acc"].notna()]
    averages = []
    for cohort in sorted(done["cohort"].unique()):
        for value, words in ((True, "With augmentation"), (False, "Without augmentation")):
            part = done[(done["augmentation"] == value) & (done["cohort"] == cohort)]
            if len(part):
                name = f"{words} (cohort {cohort})" if study.cohorts else words
                averages.append((name, float(part["test_acc"].mean()), len(part), tested_on(part, study.task)))
    shared, alone = _couples(study)
    reason = "" if shared else "No two combinations differ in augmentation alone, so there is no paired difference."
    if alone:
        reason = f"Not paired, since no seed (and fold) was run both with and without: {'; '.join(alone[:MAX_NAMED])}"
        reason += f"; and {len(alone) - MAX_NAMED} more." if len(alone) > MAX_NAMED else "."
    if not shared:
        return Impact(averages, reason=reason)
    table = pd.DataFrame([_row(study, couple) for couple in shared])
    table[["low", "high", "p", "p_adjusted"]] = np.nan
    table[["clips", "players"]] = 0
    table["about"] = ""
    _measure(study, shared, table)
    return Impact(averages, table.sort_values("difference", ascending=False, ignore_index=True), reason)


def tested_on(runs: pd.DataFrame, task: Task) -> str:
    """Clips and groups that rows of the study's table were tested on, in the task's words."""
    if not runs["test_clips"].any():
        return f"no predictions, so {task.clips_and_groups} are unknown"
    return f"{task.extent(_span(runs['test_clips']), _span(runs['test_players']))} each"


def _span(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


@dataclass(frozen=True)
class Couple:
    """Two combinations that differ in augmentation alone, cut to the seeds and folds that both were run with.

    Attributes:
        on: Row of the combination with augmentation, in the study's combinations.
        off: Of that without.
        with_rows: Rows of its runs in the table, by seed and fold.
        without_rows: The same seeds and folds without.
    """

    on: int
    off: int
    with_rows: dict[Repeat, int]
    without_rows: dict[Repeat, int]


def _couples(study: Study) -> tuple[list[Couple], list[str]]:
    """Combinations that differ in augmentation alone, and the names of those that share no seed and fold."""
    frame = study.combinations[study.combinations["test_acc"].notna()]
    others = [key for key in study.factors if key != "augmentation"]
    shared, alone = [], []
    for places in places_of_groups(frame, ["cohort", *others]):
        if len(places) < 2:  # of thousands of combinations most have no other half
            continue
        group = frame.iloc[places]
        on, off = group[group["augmentation"] == True], group[group["augmentation"] == False]  # noqa: E712
        if len(on) != 1 or len(off) != 1:
            continue
        with_aug, without = (_by_repeat(study, side["rows"].iloc[0]) for side in (on, off))
        both = [key for key in with_aug if key in without]
        if both:
            cut = ({key: side[key] for key in both} for side in (with_aug, without))
            shared.append(Couple(int(on.index[0]), int(off.index[0]), *cut))
        else:
            alone.append(_label(study, on.iloc[0]))
    return shared, alone


def _by_repeat(study: Study, rows: Sequence[int]) -> dict[Repeat, int]:
    """Runs of one combination by fold and seed, and by number where several have the same."""
    table = study.table.loc[list(rows)]
    folds = table[FOLD].map(str) if FOLD in table else [""] * len(rows)
    seeds = table["seed"].map(shown) if "seed" in table else ["none"] * len(rows)
    made: dict[Repeat, int] = {}
    for row, fold, seed in zip(rows, folds, seeds, strict=True):
        number = next(number for number in itertools.count() if (fold, seed, number) not in made)
        made[fold, seed, number] = row
    return made


def _label(study: Study, row: pd.Series) -> str:
    extra = [f"{key}={shown(row[key])}" for key in study.factors if key not in BASE_FACTORS]
    return ", ".join([f"{row['model']} + {row['strategy']}", *extra])


def _row(study: Study, couple: Couple) -> dict[str, object]:
    first, second = study.combinations.iloc[couple.on], study.combinations.iloc[couple.off]
    rows, without = list(couple.with_rows.values()), list(couple.without_rows.values())
    gained = study.table.loc[rows, "test_acc"].to_numpy() - study.table.loc[without, "test_acc"].to_numpy()
    folds = pd.Series(gained).groupby([fold for fold, *_ in couple.with_rows]).mean()
    left_out = {"with": len(first["rows"]) - len(rows), "without": len(second["rows"]) - len(rows)}
    left = ", ".join(f"{count} {side}" for side, count in left_out.items() if count)
    return {
        "label": _label(study, first),
        "model": first["model"],
        "with_rows": rows,
        "without_rows": without,
        "repeats": f"{len(rows)}" + (f"; left out: {left}" if left else ""),
        "difference": folds.mean(),
    }


def _measure(study: Study, couples: Sequence[Couple], table: pd.DataFrame) -> None:
    """Difference, interval and test of the couples whose runs were measured on the same clips."""
    families: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    runs = [_on_same_clips(study, couple) for couple in couples]
    for number, (with_runs, _) in enumerate(runs):
        if with_runs:
            cohort = str(study.combinations.at[couples[number].on, "cohort"])
            families.setdefault((cohort, tuple(sorted(with_runs))), []).append(number)
    for (cohort, sets), numbers in families.items():
        clips = study.measurer.pool(sets)
        group = [
            study.measurer.measure(index, own, sets)
            for number in numbers
            for index, own in zip((couples[number].on, couples[number].off), runs[number], strict=True)
        ]
        couples_of_group = zip(range(0, len(group), 2), range(1, len(group), 2), strict=True)
        pairs = pair_table(
            study.combinations, clips, group, couples_of_group, study.luck[cohort], families=len(families)
        )
        if len(pairs):
            for key in ("difference", "low", "high", "p", "p_adjusted", "about", "clips", "players"):
                table.loc[numbers, key] = pairs[key].to_numpy()


def _on_same_clips(study: Study, couple: Couple) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Rows of both sides by clip set, for the seeds and folds whose two runs saw the same clips."""
    with_runs: dict[int, list[int]] = {}
    without: dict[int, list[int]] = {}
    for key, row in couple.with_rows.items():
        other = couple.without_rows[key]
        number = study.measurer.set_of.get(row)
        if number is not None and number == study.measurer.set_of.get(other):
            with_runs.setdefault(number, []).append(row)
            without.setdefault(number, []).append(other)
    if study.combinations.at[couple.on, "folds"] or len(with_runs) < 2:
        return with_runs, without
    most = max(with_runs, key=lambda number: len(with_runs[number]))
    return {most: with_runs[most]}, {most: without[most]}
