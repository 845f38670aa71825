"""Paired comparisons as a table: which combinations were measured on the same clips, and how they differ there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.stats.intervals import difference_interval
from sousa_bench.analysis.stats.pairs import ALPHA, holm, mcnemar, sign_flip

COLUMNS = (
    "cohort",
    "first",
    "second",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "mcnemar_p",
    "only_first",
    "only_second",
    "seeds_first",
    "seeds_second",
    "folds",
    "clips",
    "players",
    "clear",
)
SIDES = (("first", "second"), ("only_first", "only_second"), ("seeds_first", "seeds_second"))
TURNED = {one: two for first, second in SIDES for one, two in ((first, second), (second, first))}


@dataclass
class Measured:
    """One combination on some clips.

    Attributes:
        index: Its row in the combinations.
        hits: How often each clip was recognised, ``scale`` for always, whole numbers of shape (clips,).
        first: Whether its first seed recognised each clip, shape (clips,).
        seeds: Most runs behind any of the clips.
        scale: What ``hits`` are divided by: the number of seeds, or a common multiple of the folds' numbers of seeds.
    """

    index: int
    hits: NDArray[np.int64]
    first: NDArray[np.bool_]
    seeds: int
    scale: int


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
    folds: int = 0,
) -> pd.DataFrame:
    """Compare couples of ``group`` on the same clips.

    Args:
        combinations: The combinations that ``group`` indexes.
        clips: The clips.
        group: Combinations measured on them.
        couples: Numbers of the two within ``group``, for each comparison.
        folds: Number of folds whose clips these are; 0 where they are no folds'.

    Returns:
        A row a comparison with ``COLUMNS`` but those of ``correct``; empty where players are unknown or fewer than two.
    """
    places = np.array(list(couples), dtype=np.int64).reshape(-1, 2)
    if not len(places) or clips.player is None or len(clips.players) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    totals = mean_totals(clips, group)
    first, second = places.T
    interval = difference_interval(totals[first] - totals[second], clips.sizes)
    alone = _right_alone(np.stack([item.first for item in group]), places)
    rows = combinations.iloc[[item.index for item in group]]
    labels, cohorts = rows["combination"].to_numpy(), rows["cohort"].to_numpy()
    seeds = np.array([item.seeds for item in group])
    table = {
        "cohort": cohorts[first],
        "first": labels[first],
        "second": labels[second],
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": sign_flip(totals, places),
        "mcnemar_p": mcnemar(alone[:, 0], alone[:, 1]),
        "only_first": alone[:, 0],
        "only_second": alone[:, 1],
        "seeds_first": seeds[first],
        "seeds_second": seeds[second],
        "folds": folds,
        "clips": len(clips.label),
        "players": len(clips.players),
    }
    return pd.DataFrame(table)


def correct(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the comparisons of several clip sets, largest first, and correct them: a cohort is one family.

    Two combinations that were measured on several clip sets count once, on the first of them.
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    frame = pd.concat(parts, ignore_index=True).drop_duplicates(["cohort", "first", "second"], ignore_index=True)
    frame["p_holm"] = frame.groupby("cohort")["p"].transform(lambda column: holm(column.to_numpy()))
    frame["clear"] = frame["p_holm"] <= ALPHA
    return frame[list(COLUMNS)]


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
    row: dict[str, Any] = {str(key): value for key, value in mine.iloc[0].items()}
    if row["first"] == first:
        return row
    turned = {TURNED.get(key, key): value for key, value in row.items()}
    return turned | {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}


def against_best(pairs: pd.DataFrame, cohort: str, best: str) -> dict[str, float]:
    """Holm-adjusted p value of each combination that was compared with ``best``."""
    mine = pairs[pairs["cohort"] == cohort]
    sides = (("first", "second"), ("second", "first"))
    found = [mine[mine[own] == best].set_index(other)["p_holm"] for own, other in sides]
    return {str(name): float(p_value) for name, p_value in pd.concat(found).items()}
