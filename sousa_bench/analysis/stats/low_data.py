"""Low-data curves: how accurate each method is by training clips a class (``data.per_class``), and where two cross."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.factors import BASE_FACTORS, combination_label, shown
from sousa_bench.analysis.flatten import ALL_CLIPS, PER_CLASS
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.study import Study


@dataclass(frozen=True)
class Point:
    """One combination of a curve.

    Attributes:
        clips: Training clips a class; of all clips the mean over the classes.
        words: As it was asked for: ``5``, ``all``.
        row: Of the study's combinations.
    """

    clips: float
    words: str
    row: Mapping[Any, Any]


@dataclass(frozen=True)
class LowDataCurve:
    """What a method reaches with few clips.

    Attributes:
        name: The combination's label without the number of clips.
        cohort: Whose clips it was tested on.
        points: Fewest clips first, two or more.
    """

    name: str
    cohort: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Crossing:
    """Where one curve overtakes another.

    Attributes:
        first: The curve that leads with fewer clips.
        second: The one that leads with more.
        before: Comparison of the two at the last number of clips before it.
        after: That at the first number after it.
        few: That number before, in words.
        many: That number after.
        clear: Whether the tests tell who leads on both sides.
    """

    first: str
    second: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    few: str
    many: str
    clear: bool


def low_data_curves_of(study: Study) -> list[LowDataCurve]:
    """The curves of a study, the best first; none where the number of clips didn't vary."""
    if PER_CLASS not in study.results.factors:
        return []
    others = [key for key in study.factors if key not in (*BASE_FACTORS, PER_CLASS)]
    points: dict[tuple[str, str], list[Point]] = {}
    for row in study.combinations[study.combinations["test_acc"].notna()].to_dict("records"):
        words = shown(row[PER_CLASS])
        clips = _clips_a_class(study, row["rows"]) if words == ALL_CLIPS else pd.to_numeric(words, errors="coerce")
        if not is_absent(clips):
            points.setdefault((combination_label(row, others), str(row["cohort"])), []).append(Point(clips, words, row))
    return [
        LowDataCurve(name, cohort, tuple(sorted(found, key=lambda point: point.clips)))
        for (name, cohort), found in points.items()
        if len(found) > 1
    ]


def _clips_a_class(study: Study, rows: list[int]) -> float:
    """Mean training clips of a class in some runs; NaN where they don't say it."""
    needed = ("data.counts.train", "data.classes.train")
    if any(key not in study.table for key in needed):
        return float("nan")
    counts, classes = (pd.to_numeric(study.table.loc[rows, key], errors="coerce") for key in needed)
    return float((counts / classes).mean())


def crossings(study: Study, curves: list[LowDataCurve]) -> list[Crossing]:
    """Where curves of one cohort cross, those that the tests tell first.

    A crossing is clear where one curve is clearly ahead at some number of clips, and the other at the next larger one
    at which the two can be told apart. Of two curves without one, the places at which they
    merely change order count.
    """
    found = []
    for one, other in itertools.combinations(curves, 2):
        if one.cohort == other.cohort:
            compared = _compared(study, one, other)
            clear = [item for item in compared if item[1]["clear"]]
            found += _turns(one, other, clear, clear=True) or _turns(one, other, compared, clear=False)
    return sorted(found, key=lambda item: not item.clear)


def _compared(study: Study, one: LowDataCurve, other: LowDataCurve) -> list[tuple[str, Mapping[str, Any]]]:
    """The paired comparisons (one minus other) at each number of clips that both have."""
    there = {point.words: point for point in other.points}
    pairs = (
        (point.words, pair_of(study.pairs, one.cohort, point.row["combination"], mate.row["combination"]))
        for point in one.points
        if (mate := there.get(point.words)) is not None
    )
    return [(words, pair) for words, pair in pairs if pair is not None and pair["difference"]]


def _turns(
    one: LowDataCurve, other: LowDataCurve, compared: list[tuple[str, Mapping[str, Any]]], *, clear: bool
) -> list[Crossing]:
    """Neighbours among the comparisons whose differences have other signs."""
    return [
        Crossing(*_leader_first(one.name, other.name, before), before, after, few, many, clear)
        for (few, before), (many, after) in itertools.pairwise(compared)
        if (before["difference"] > 0) != (after["difference"] > 0)
    ]


def _leader_first(one: str, other: str, pair: Mapping[str, Any]) -> tuple[str, str]:
    return (one, other) if pair["difference"] > 0 else (other, one)
