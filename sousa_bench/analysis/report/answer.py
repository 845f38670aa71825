"""The answer in plain sentences: which combination is best, by how much, how sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

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
    leader = rows.sort_values("test_acc", ascending=False, kind="stable").iloc[0]
    where = f"Cohort {cohort}: the" if study.cohorts else "The"
    said = [f"{where} highest test accuracy is that of {leader['combination']}: {accuracy_words(leader)}."]
    tested = int(rows["p_best"].notna().sum())
    others = rows[rows["best_set"] & (rows["combination"] != leader["combination"])]
    if len(rows) == 1:
        said.append("It is the only combination.")
    elif not tested:
        said.append("No other could be tested against it, so it may be ahead by chance.")
    elif len(others):
        names = "; ".join(others["combination"].head(MAX_NAMED))
        more = f"; and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
        said.append(f"{_who(len(others), tested)} can't be told from it ({TEST}): {names}{more}.")
    else:
        rest = "the other one" if tested == 1 else "both others" if tested == 2 else f"all {tested} others"
        said.append(f"It is clearly better than {rest} ({TEST}).")
    return said + _margin(study, leader, rows) + _luck(rows)


def _who(number: int, tested: int) -> str:
    """``number`` of the ``tested`` others, in words."""
    if number < tested:
        return f"{number} of {tested} others"
    return {1: "The other one", 2: "Both others"}.get(tested, f"All {tested} others")


def _margin(study: Study, leader: pd.Series, rows: pd.DataFrame) -> list[str]:
    """By how much the leader is ahead of the next."""
    rest = rows[rows["combination"] != leader["combination"]].sort_values("test_acc", ascending=False, kind="stable")
    pair = (
        pair_of(study.pairs, leader["cohort"], leader["combination"], rest.iloc[0]["combination"])
        if len(rest)
        else None
    )
    if pair is None:
        return []
    interval = ""
    if pair["low"] == pair["low"]:
        interval = f" (95 % interval {100 * pair['low']:+.2f} to {100 * pair['high']:+.2f})"
    return [
        f"Its lead over the next, {rest.iloc[0]['combination']}, is {100 * pair['difference']:+.2f} points{interval}."
    ]


def _luck(rows: pd.DataFrame) -> list[str]:
    if (rows.loc[rows["best_set"], "seeds"] >= 2).all():
        return []
    if (rows.loc[rows["best_set"], "folds"] > 0).all():
        return [
            "With one seed each, the players of a fold share one training's luck, which intervals and tests don't "
            "cover; more seeds would show it."
        ]
    return [
        "With one seed each, intervals and tests cover the choice of players and clips, not the luck of training; "
        "more seeds would show that."
    ]


def accuracy_words(row: Mapping[str, Any] | pd.Series) -> str:
    """An accuracy with what it rests on: interval, seeds, clips and players, or why there is no interval."""
    parts = []
    if words := spread_words(row):
        parts.append(words)
    if words := interval_words(row):
        parts.append(words)
    elif row["note"]:
        parts.append(str(row["note"]))
    if row["clips"]:
        parts.append(f"{row['clips']:,} clips, {row['players']} players")
    return f"{row['test_acc']:.4f}" + (f" ({'; '.join(parts)})" if parts else "")
