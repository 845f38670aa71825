"""The answer in plain sentences: which combination is best, by how much, how sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sousa_bench.analysis.columns import DIFFERENCE, DIFFERENCE_INTERVAL, is_absent
from sousa_bench.analysis.combinations import interval_words, spread_words
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.study import Study

MAX_NAMED = 12
TEST = "sign-flip test by player, Holm-corrected, 5 % level"


def answer(study: Study) -> list[str]:
    """Plain sentences, those of each cohort together; not escaped for any format."""
    sentences: list[str] = []
    for cohort in dict.fromkeys(study.combinations["cohort"]):
        rows = study.combinations[study.combinations["cohort"] == cohort]
        if rows["best_set"].any():
            sentences += _cohort(study, str(cohort), rows)
    if study.at_chance:
        runs = len(study.done)
        who = "The only completed run is not" if runs == 1 else f"None of the {runs} completed runs is"
        sentences.insert(0, f"{who} above chance: nothing was learnt, so what follows ranks luck.")
    return sentences or ["No run has completed yet, so there is nothing to compare."]


def _cohort(study: Study, cohort: str, rows: pd.DataFrame) -> list[str]:
    ranked = rows.sort_values("test_acc", ascending=False, kind="stable")
    leader = ranked.iloc[0]
    where = f"Cohort {cohort}: the" if study.cohorts else "The"
    said = [f"{where} highest test accuracy is that of {leader['combination']}: {_accuracy(leader)}."]
    tested = int(rows["p_best"].notna().sum())
    others = rows.loc[rows["best_set"] & (rows["combination"] != leader["combination"]), "combination"]
    if len(rows) == 1:
        said.append("It is the only combination.")
    elif not tested:
        said.append("No other could be tested against it, so it may be ahead by chance.")
    elif len(others):
        names = "; ".join(others.head(MAX_NAMED))
        more = f"; and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
        said.append(f"{others_in_words(len(others), tested)} can't be told from it ({TEST}): {names}{more}.")
    else:
        every = others_in_words(tested, tested)
        said.append(f"It is clearly better than {every[0].lower()}{every[1:]} ({TEST}).")
    following = ranked["combination"].iloc[1] if len(ranked) > 1 else ""
    pair = pair_of(study.pairs, cohort, leader["combination"], following)
    if pair is not None:
        interval = "" if is_absent(pair["low"]) else f" (95 % interval {DIFFERENCE_INTERVAL.cell(pair)})"
        said.append(f"Its lead over the next, {following}, is {DIFFERENCE.cell(pair)}{interval}.")
    return said + _luck(rows[rows["best_set"]])


def others_in_words(number: int, tested: int) -> str:
    """``number`` of the ``tested`` others, in words."""
    if number < tested:
        return f"{number} of {tested} others"
    return {1: "The other one", 2: "Both others"}.get(tested, f"All {tested} others")


def _luck(best: pd.DataFrame) -> list[str]:
    """What the intervals don't cover, where the best have one seed each."""
    if (best["seeds"] >= 2).all():
        return []
    if (best["folds"] > 0).all():
        return [
            "With one seed each, the players of a fold share one training's luck, which intervals and tests don't "
            "cover; more seeds would show it."
        ]
    return [
        "With one seed each, intervals and tests cover the choice of players and clips, not the luck of training; "
        "more seeds would show that."
    ]


def _accuracy(row: pd.Series) -> str:
    parts = rests_on(row, note=True)
    return f"{row['test_acc']:.4f}" + (f" ({'; '.join(parts)})" if parts else "")


def rests_on(row: Mapping[Any, Any] | pd.Series, note: bool = False) -> list[str]:
    """What an accuracy rests on: folds and seeds, interval (or a ``note`` why there is none), clips and players."""
    clips = f"{row['clips']:,} clips, {row['players']} players" if row["clips"] else ""
    parts = [spread_words(row), interval_words(row) or (str(row["note"]) if note else ""), clips]
    return [part for part in parts if part]
