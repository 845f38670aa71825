"""The answer in plain sentences: which combination is best, by how much, how sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sousa_bench.analysis.columns import DIFFERENCE, SIMULTANEOUS, is_absent
from sousa_bench.analysis.combinations import interval_words, spread_words
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.stats.training_luck import TrainingLuck
from sousa_bench.analysis.study import Study
from sousa_bench.system.text_table import amount
from sousa_bench.task import Task

MAX_NAMED = 12

Pairs = Mapping[str, Mapping[str, Any]]
"""The leader's comparisons, leader minus other, by the other's name."""


def answer(study: Study) -> list[str]:
    """Plain sentences, those of each cohort together; not escaped for any format. The verdict stands before them."""
    sentences: list[str] = []
    for cohort in study.standings:
        sentences += _cohort(study, cohort.cohort, cohort.rows)
    return sentences


def _cohort(study: Study, cohort: str, rows: pd.DataFrame) -> list[str]:
    ranked = best_first(rows, "test_acc")
    leader, task = ranked.iloc[0], study.task
    where = f"Cohort {cohort}: the" if study.cohorts else "The"
    only = "" if study.luck[cohort].dof else " of these trained models only"
    said = [f"{where} highest test {task.score}{only} is that of {leader['combination']}: {_accuracy(leader, task)}."]
    if len(rows) == 1:
        return [*said, "It is the only combination."]
    said += _first_by_validation(rows, leader, study.task)
    mine = study.pairs[study.pairs["cohort"] == cohort]
    tested = int(rows["p_best"].notna().sum())
    others = rows.loc[rows["best_set"] & (rows["combination"] != leader["combination"]), "combination"]
    if not tested:
        return [*said, "No other could be tested against it, so it may be ahead by chance."]
    test = f"max-t over {all_pairs(len(mine))}, 5 % level"
    if len(others):
        said.append(f"{others_in_words(len(others), tested)} can't be told from it ({test}): {named(list(others))}.")
    else:
        every = others_in_words(tested, tested)
        said.append(f"It is clearly better than {every[0].lower()}{every[1:]} ({test}).")
    names = [str(name) for name in rows["combination"] if name != leader["combination"]]
    found = {name: pair_of(mine, cohort, leader["combination"], name) for name in names}
    pairs = {name: pair for name, pair in found.items() if pair is not None}
    following = str(ranked["combination"].iloc[1])
    pair = pairs.get(following)
    if pair is not None and not is_absent(pair["simultaneous_low"]):
        said.append(
            f"Its lead over the next, {following}, is {DIFFERENCE.cell(pair)} (simultaneous 95 % interval "
            f"{SIMULTANEOUS.cell(pair)})."
        )
    return [
        *said,
        *_within_margin(pairs, study.margin),
        *_luck(study.luck[cohort], int(ranked.index[0]), pairs, study.task),
    ]


def all_pairs(number: int) -> str:
    """The family of so many comparisons."""
    return "one pair" if number == 1 else f"all {number} pairs"


def named(names: list[str]) -> str:
    """The first ``MAX_NAMED`` names, and how many more there are."""
    more = f"; and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return "; ".join(names[:MAX_NAMED]) + more


def _first_by_validation(rows: pd.DataFrame, leader: pd.Series, task: Task) -> list[str]:
    """Which is first by the clips that the test accuracy had no part in."""
    chosen = rows[rows["leader"].isin(("validation", "both"))]
    if not len(chosen):
        return []
    first = chosen.iloc[0]
    if first["combination"] == leader["combination"]:
        return [f"It is the first by validation {task.score}, too."]
    name = f"{first['combination']}: {_accuracy(first, task)}"
    return [f"By validation {task.score}, which the test clips had no part in, the first is {name}."]


def _within_margin(pairs: Pairs, margin: float) -> list[str]:
    """Which others are as good as the leader within a margin, which is more than that no difference was seen."""
    near = [name for name, pair in pairs.items() if pair["error"] > 0 and pair["simultaneous_high"] <= margin]
    return [f"As good within {in_points(margin)} at 95 % confidence: {named(near)}."] if near else []


def _luck(known: TrainingLuck, leader: int, pairs: Pairs, task: Task) -> list[str]:
    """What is known of training luck, and the verdict on the trained models apart from it."""
    if not known.dof:
        return ["Nothing shows how another training would fall out; more seeds would."]
    by = "seeds" if known.source == "seeds" else "folds and combinations"
    size = f"no more than {task.clips_and_groups} make of it"
    if deviation := known.deviation(leader):
        size = f"{100 * deviation:.2f} points, as a standard deviation"
    said = [
        f"Trainings of a method as good as the first differ by {size} ({known.dof} degrees of freedom between {by}); "
        "the intervals and tests above hold for the method, whatever the training."
    ]
    clear = sum(bool(pair["models_clear"]) and pair["difference"] > 0 for pair in pairs.values())
    if pairs:
        others = amount(len(pairs), "other")
        said.append(f"Of the trained models at hand alone: it is clearly better than {clear} of {others}.")
    return said


def in_points(margin: float) -> str:
    """A difference of accuracies as people say it: ``2 points``."""
    return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"


def others_in_words(number: int, tested: int) -> str:
    """``number`` of the ``tested`` others, in words."""
    if number < tested:
        return f"{number} of {tested} others"
    return {1: "The other one", 2: "Both others"}.get(tested, f"All {tested} others")


def _accuracy(row: pd.Series, task: Task) -> str:
    parts = rests_on(row, task, note=True)
    return f"{row['test_acc']:.4f}" + (f" ({'; '.join(parts)})" if parts else "")


def rests_on(row: Mapping[Any, Any] | pd.Series, task: Task, note: bool = False) -> list[str]:
    """What an accuracy rests on: folds and seeds, interval (or a ``note`` why there is none), clips and groups."""
    clips = task.extent(f"{row['clips']:,}", row["players"]) if row["clips"] else ""
    parts = [spread_words(row), interval_words(row) or (str(row["note"]) if note else ""), clips]
    return [part for part in parts if part]
