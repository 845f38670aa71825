"""What augmentation does: averages, and paired differences where everything else is equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from sousa_bench.analysis.comparisons import pair_table
from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.pairs import holm
from sousa_bench.analysis.study import Study


@dataclass
class Impact:
    """The effect of augmentation.

    Attributes:
        averages: Name, mean test accuracy, number of runs, and the clips and players they were tested on.
        table: A row a pair: ``label``, ``with_rows`` and ``without_rows`` (row numbers of the runs), ``seeds`` (how
            many with, how many without), ``difference`` (with minus without) with ``low`` and ``high``, ``p``,
            ``p_holm`` within this family, ``clips``, ``players``.
        word: Why there are no pairs, in a sentence; empty where there are.
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
    couples = _couples(study)
    if not couples:
        return Impact(
            averages, word="No two combinations differ in augmentation alone, so there is no paired difference."
        )
    table = pd.DataFrame([_row(study, on, off) for on, off in couples])
    for key in ("low", "high", "p"):
        table[key] = np.nan
    table["clips"], table["players"] = 0, 0
    _measure(study, couples, table)
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy())
    return Impact(averages, table.sort_values("difference", ascending=False, ignore_index=True))


def tested_on(runs: pd.DataFrame) -> str:
    """Clips and players that rows of the study's table were tested on, in words."""
    if not runs["test_clips"].any():
        return "no predictions, so clips and players are unknown"
    return f"{_span(runs['test_clips'])} clips, {_span(runs['test_players'])} players each"


def _span(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _couples(study: Study) -> list[tuple[int, int]]:
    """Rows of the combinations that differ in augmentation alone, the one with it first."""
    frame = study.combinations[study.combinations["test_acc"].notna()]
    others = [key for key in study.factors if key != "augmentation"]
    couples = []
    for _, group in frame.groupby(["cohort", *others], dropna=False, sort=False):
        on, off = group[group["augmentation"] == True], group[group["augmentation"] == False]  # noqa: E712
        if len(on) == 1 and len(off) == 1:
            couples.append((int(on.index[0]), int(off.index[0])))
    return couples


def _row(study: Study, on: int, off: int) -> dict[str, object]:
    first, second = study.combinations.loc[on], study.combinations.loc[off]
    extra = [f"{key}={shown(first[key])}" for key in study.factors if key not in BASE_FACTORS]
    return {
        "label": ", ".join([f"{first['model']} + {first['strategy']}", *extra]),
        "model": first["model"],
        "with_rows": first["rows"],
        "without_rows": second["rows"],
        "seeds": f"{first['seeds']} / {second['seeds']}",
        "difference": first["test_acc"] - second["test_acc"],
    }


def _measure(study: Study, couples: list[tuple[int, int]], table: pd.DataFrame) -> None:
    """Difference, interval and test of the couples that were measured on the same clips."""
    for clips, measured in zip(study.clip_sets, study.measured, strict=True):
        place = {item.index: number for number, item in enumerate(measured)}
        rows = [n for n, (on, off) in enumerate(couples) if on in place and off in place and not table.at[n, "clips"]]
        numbers = np.array([[place[couples[n][0]], place[couples[n][1]]] for n in rows], dtype=np.int64)
        pairs = pair_table(study.combinations, clips, measured, numbers)
        if len(pairs):
            for key in ("difference", "low", "high", "p", "clips", "players"):
                table.loc[rows, key] = pairs[key].to_numpy()
