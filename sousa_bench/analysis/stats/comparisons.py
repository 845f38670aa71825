"""Paired comparisons as a table: which combinations were measured on the same clips, and how they differ there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.stats.intervals import MIN_PLAYERS, difference_interval
from sousa_bench.analysis.stats.pairs import ALPHA, max_t, mcnemar
from sousa_bench.analysis.stats.training_luck import Luck, TrainingLuck

COLUMNS = (
    "cohort",
    "first",
    "second",
    "difference",
    "low",
    "high",
    "error",
    "dof",
    "p",
    "simultaneous_low",
    "simultaneous_high",
    "p_adjusted",
    "clear",
    "about",
    "models_low",
    "models_high",
    "models_p_adjusted",
    "models_clear",
    "mcnemar_p",
    "only_first",
    "only_second",
    "seeds_first",
    "seeds_second",
    "folds",
    "clips",
    "players",
)
METHODS, MODELS = "methods", "these trained models"
SIDES = (("first", "second"), ("only_first", "only_second"), ("seeds_first", "seeds_second"))
ENDS = [(f"{kind}low", f"{kind}high") for kind in ("", "simultaneous_", "models_")]
TURNED_ENDS = {one: two for low, high in ENDS for one, two in ((low, high), (high, low))}
TURNED = {one: two for first, second in SIDES for one, two in ((first, second), (second, first))}


@dataclass
class Measured:
    """One combination on some clips.

    Attributes:
        index: Its row in the combinations.
        hits: How often each clip was recognised, ``scale`` for always, whole numbers of shape (clips,); with several
            labels a clip the parts of the mean average precision (``ClipSet.parts``), ``scale`` times, shape (parts,).
        first: Whether its first seed recognised each clip, shape (clips,); or its first seed's parts.
        seeds: Most runs behind any of the clips.
        scale: What ``hits`` are divided by: the number of seeds, or a common multiple of the folds' numbers of seeds.
        trainings: As many trainings of equal weight have a mean of the same luck.
    """

    index: int
    hits: NDArray[Any]
    first: NDArray[Any]
    seeds: int
    scale: int
    trainings: float


def luck_of(group: Sequence[Measured], known: TrainingLuck) -> Luck:
    """The training luck in the mean accuracy of each of ``group``."""
    return known.of([item.index for item in group], [item.trainings for item in group])


def mean_totals(clips: ClipSet, group: Sequence[Measured]) -> NDArray[np.float64]:
    """Right clips by combination and player, averaged over seeds, shape (combinations, players).

    Whole numbers are summed and divided last, so combinations that recognised equally many clips are equal to the bit.
    """
    scales = np.array([item.scale for item in group])
    return clips.totals(np.stack([item.hits for item in group])) / scales[:, None]


def pair_table(
    combinations: pd.DataFrame,
    clips: ClipSet,
    group: Sequence[Measured],
    couples: Iterable[tuple[int, int]],
    luck: TrainingLuck,
    folds: int = 0,
    families: int = 1,
) -> pd.DataFrame:
    """Compare couples of ``group`` on the same clips.

    Args:
        combinations: The combinations that ``group`` indexes.
        clips: The clips.
        group: Combinations measured on them.
        couples: Numbers of the two within ``group``, for each comparison.
        luck: What the cohort shows of training luck.
        folds: Number of folds whose clips these are; 0 where they are no folds'.
        families: Number of such tables that are read together; each gets its share of the error (Bonferroni).

    Returns:
        A row a comparison with ``COLUMNS``, about methods where training luck is known and else about these trained
        models, for which the columns ``models_…`` hold in any case; without tests and intervals below ``MIN_PLAYERS``
        players; without McNemar's test where a clip may have several labels; empty where players are unknown or fewer
        than two.
    """
    places = np.array(list(couples), dtype=np.int64).reshape(-1, 2)
    if not len(places) or clips.player is None or len(clips.players) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    totals = mean_totals(clips, group)
    first, second = places.T
    alone = (
        np.full((len(places), 2), np.nan)
        if clips.task.several
        else _right_alone(np.stack([item.first for item in group]), places)
    )
    rows = combinations.iloc[[item.index for item in group]]
    labels, cohorts = rows["combination"].to_numpy(), rows["cohort"].to_numpy()
    seeds = np.array([item.seeds for item in group])
    of_models = _verdicts(totals, clips.sizes, places, Luck.none(len(group)), families)
    of_methods = _verdicts(totals, clips.sizes, places, luck_of(group, luck), families) if luck.dof else of_models
    table = {
        "cohort": cohorts[first],
        "first": labels[first],
        "second": labels[second],
        **of_methods,
        "about": METHODS if luck.dof else MODELS,
        **{f"models_{key}": of_models[key] for key in ("low", "high", "p_adjusted", "clear")},
        "mcnemar_p": mcnemar(alone[:, 0], alone[:, 1]),
        "only_first": alone[:, 0],
        "only_second": alone[:, 1],
        "seeds_first": seeds[first],
        "seeds_second": seeds[second],
        "folds": folds,
        "clips": len(clips.label),
        "players": len(clips.players),
    }
    return pd.DataFrame(table)[list(COLUMNS)]


def _verdicts(
    totals: NDArray[np.float64], sizes: NDArray[np.float64], places: NDArray[np.int64], luck: Luck, families: int
) -> dict[str, NDArray[np.float64]]:
    """The columns from ``difference`` to ``clear``."""
    first, second = places.T
    chosen = np.zeros((len(places), len(totals)))
    chosen[np.arange(len(places)), first], chosen[np.arange(len(places)), second] = 1, -1
    interval = difference_interval(totals[first] - totals[second], sizes, luck.of(chosen))
    if len(sizes) < MIN_PLAYERS:
        adjusted, half = np.full(len(places), np.nan), np.full(len(places), np.nan)
    else:
        family = max_t(totals, sizes, places, luck.cautious, level=1 - ALPHA / families)
        adjusted, half = np.minimum(family.p * families, 1.0), family.half_width
    return {
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "error": interval.error,
        "dof": interval.dof,
        "p": interval.p,
        "simultaneous_low": interval.estimate - half,
        "simultaneous_high": interval.estimate + half,
        "p_adjusted": adjusted,
        "clear": adjusted <= ALPHA,
    }


def join(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the comparisons of several clip sets, largest first.

    Two combinations that were measured on several clip sets count once, on the first of them.
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True).drop_duplicates(["cohort", "first", "second"], ignore_index=True)


def _right_alone(right: NDArray[np.bool_], couples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clips that one of two rows of ``right`` alone recognised, shape (comparisons, 2)."""
    values = right.astype(np.float32)
    alone = values.sum(axis=1)[:, None] - values @ values.T
    first, second = couples.T
    return np.stack([alone[first, second], alone[second, first]], axis=1).astype(np.int64)


def pair_of(pairs: pd.DataFrame, cohort: str, first: str, second: str) -> Mapping[str, Any] | None:
    """The comparison of two combinations of a cohort, turned so that ``first`` comes first; None where there is none.

    Cohorts can hold combinations of the same name: other weights or data under the same settings.
    """
    both = (first, second)
    mine = pairs[(pairs["cohort"] == cohort) & pairs["first"].isin(both) & pairs["second"].isin(both)]
    if not len(mine):
        return None
    return _turned({str(key): value for key, value in mine.iloc[0].items()}, first)


def leads_of(pairs: pd.DataFrame, cohort: str, first: str) -> dict[str, Mapping[str, Any]]:
    """The comparisons of one combination of a cohort, turned so that it comes first, by the other's name."""
    mine = pairs[(pairs["cohort"] == cohort) & ((pairs["first"] == first) | (pairs["second"] == first))]
    turned = [_turned({str(key): value for key, value in row.items()}, first) for row in mine.to_dict("records")]
    return {str(row["second"]): row for row in turned}


def _turned(row: Mapping[str, Any], first: str) -> Mapping[str, Any]:
    """A comparison as of ``first`` minus the other."""
    if row["first"] == first:
        return row
    turned = {TURNED.get(key, key): value for key, value in row.items()}
    ends = {key: -row[TURNED_ENDS.get(key, key)] for key in ("difference", *TURNED_ENDS)}
    return turned | ends


def against_best(pairs: pd.DataFrame, cohort: str, best: str) -> dict[str, float]:
    """Adjusted p value of each combination that was compared with ``best``."""
    mine = pairs[pairs["cohort"] == cohort]
    sides = (("first", "second"), ("second", "first"))
    found = [mine[mine[own] == best].set_index(other)["p_adjusted"] for own, other in sides]
    return {str(name): float(p_value) for name, p_value in pd.concat(found).items()}
