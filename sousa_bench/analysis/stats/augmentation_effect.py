"""What augmentation does: averages, and paired differences where everything else is equal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.stats.comparisons import pair_table
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.stats.pairs import holm
from sousa_bench.analysis.study import Study

MAX_NAMED = 6

Repeat = tuple[str, str, int]  # fold, seed, and the how-manieth run of both


@dataclass
class Impact:
    """The effect of augmentation.

    Attributes:
        averages: Name, mean test accuracy, number of runs, and the clips and players they were tested on.
        table: A row a pair, over the seeds and folds that both sides have: ``label``, ``with_rows`` and
            ``without_rows`` (row numbers of the runs), ``repeats`` (how many runs on either side, and how many were
            left out), ``difference`` (with minus without) with ``low`` and ``high``, ``p``, ``p_holm`` within this
            family, ``clips``, ``players``.
        word: Why there are no pairs, or which were left out, in a sentence; empty where all were paired.
    """

    averages: list[tuple[str, float, int, str]] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    word: str = ""


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
                averages.append((name, float(part["test_acc"].mean()), len(part), tested_on(part)))
    shared, alone = _couples(study)
    word = "" if shared else "No two combinations differ in augmentation alone, so there is no paired difference."
    if alone:
        word = f"Not paired, since no seed (and fold) was run both with and without: {'; '.join(alone[:MAX_NAMED])}"
        word += f"; and {len(alone) - MAX_NAMED} more." if len(alone) > MAX_NAMED else "."
    if not shared:
        return Impact(averages, word=word)
    table = pd.DataFrame([_row(study, couple) for couple in shared])
    for key in ("low", "high", "p"):
        table[key] = np.nan
    table["clips"], table["players"] = 0, 0
    _measure(study, shared, table)
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy())
    return Impact(averages, table.sort_values("difference", ascending=False, ignore_index=True), word)


def tested_on(runs: pd.DataFrame) -> str:
    """Clips and players that rows of the study's table were tested on, in words."""
    if not runs["test_clips"].any():
        return "no predictions, so clips and players are unknown"
    return f"{_span(runs['test_clips'])} clips, {_span(runs['test_players'])} players each"


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
    for _, group in frame.groupby(["cohort", *others], dropna=False, sort=False):
        on, off = group[group["augmentation"] == True], group[group["augmentation"] == False]  # noqa: E712
        if len(on) != 1 or len(off) != 1:
            continue
        there, back = _by_repeat(study, on["rows"].iloc[0]), _by_repeat(study, off["rows"].iloc[0])
        both = [key for key in there if key in back]
        if both:
            cut = {key: there[key] for key in both}, {key: back[key] for key in both}
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
    gained = study.table.loc[list(couple.with_rows.values()), "test_acc"].to_numpy()
    gained = gained - study.table.loc[list(couple.without_rows.values()), "test_acc"].to_numpy()
    folds = pd.Series(gained).groupby([fold for fold, *_ in couple.with_rows]).mean()
    used = len(couple.with_rows)
    left = [
        f"{len(item['rows']) - used} {word}"
        for item, word in ((first, "with"), (second, "without"))
        if len(item["rows"]) > used
    ]
    return {
        "label": _label(study, first),
        "model": first["model"],
        "with_rows": list(couple.with_rows.values()),
        "without_rows": list(couple.without_rows.values()),
        "repeats": f"{used}" + (f"; left out: {', '.join(left)}" if left else ""),
        "difference": folds.mean(),
    }


def _measure(study: Study, couples: Sequence[Couple], table: pd.DataFrame) -> None:
    """Difference, interval and test of the couples whose runs were measured on the same clips."""
    by_sets: dict[tuple[int, ...], list[int]] = {}
    own = [_on_same_clips(study, couple) for couple in couples]
    for number, (there, _) in enumerate(own):
        if there:
            by_sets.setdefault(tuple(sorted(there)), []).append(number)
    for sets, numbers in by_sets.items():
        clips = study.measurer.pool(sets)
        group = []
        for number in numbers:
            there, back = own[number]
            couple = couples[number]
            group += [study.measurer.measure(couple.on, there, sets), study.measurer.measure(couple.off, back, sets)]
        couples_of_group = zip(range(0, len(group), 2), range(1, len(group), 2), strict=True)
        pairs = pair_table(study.combinations, clips, group, couples_of_group)
        if len(pairs):
            for key in ("difference", "low", "high", "p", "clips", "players"):
                table.loc[numbers, key] = pairs[key].to_numpy()


def _on_same_clips(study: Study, couple: Couple) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Rows of both sides by clip set, for the seeds and folds whose two runs saw the same clips."""
    there: dict[int, list[int]] = {}
    back: dict[int, list[int]] = {}
    for key, row in couple.with_rows.items():
        other = couple.without_rows[key]
        number = study.measurer.set_of.get(row)
        if number is not None and number == study.measurer.set_of.get(other):
            there.setdefault(number, []).append(row)
            back.setdefault(number, []).append(other)
    if study.combinations.at[couple.on, "folds"] or len(there) < 2:
        return there, back
    most = max(there, key=lambda number: len(there[number]))
    return {most: there[most]}, {most: back[most]}
