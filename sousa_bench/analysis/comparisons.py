"""Paired comparisons as a table: which combinations were measured on the same clips, and how they differ there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.intervals import difference_interval
from sousa_bench.analysis.pairs import ALPHA, holm, mcnemar, sign_flip
from sousa_bench.analysis.predictions import ClipSet

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
    "clips",
    "players",
    "clear",
)


@dataclass
class Measured:
    """One combination on one clip set.

    Attributes:
        index: Its row in the combinations.
        correct: Share of its seeds that recognised each clip, shape (clips,).
        first: Whether its first seed recognised each clip, shape (clips,).
        seeds: Number of runs behind it.
    """

    index: int
    correct: NDArray[np.float32]
    first: NDArray[np.bool_]
    seeds: int


def measure(combinations: pd.DataFrame, clips: ClipSet) -> list[Measured]:
    """The combinations that have a run on ``clips``, in their order."""
    place = {row: number for number, row in enumerate(clips.rows)}
    correct = clips.correct
    measured = []
    for index, rows in enumerate(combinations["rows"]):
        there = [place[row] for row in rows if row in place]
        if there:
            mean = correct[there].mean(axis=0, dtype=np.float32)
            measured.append(Measured(index, mean, correct[there[0]], len(there)))
    return measured


def pair_table(
    combinations: pd.DataFrame, clips: ClipSet, group: Sequence[Measured], couples: NDArray[np.int64]
) -> pd.DataFrame:
    """Compare couples of ``group`` on the same clips; they are one family for Holm's correction.

    Args:
        combinations: The combinations that ``group`` indexes.
        clips: The clips.
        group: Combinations measured on them.
        couples: Numbers within ``group``, shape (comparisons, 2).

    Returns:
        A row a comparison with ``COLUMNS``; empty where players are unknown or fewer than two.
    """
    if not len(couples) or clips.player is None or len(clips.players) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    totals = clips.totals(np.stack([item.correct for item in group]))
    first, second = couples.T
    interval = difference_interval(totals[first] - totals[second], clips.sizes)
    p_values = sign_flip(totals, couples)
    alone = _alone(np.stack([item.first for item in group]), couples)
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
        "p": p_values,
        "p_holm": holm(p_values),
        "mcnemar_p": mcnemar(alone[:, 0], alone[:, 1]),
        "only_first": alone[:, 0],
        "only_second": alone[:, 1],
        "seeds_first": seeds[first],
        "seeds_second": seeds[second],
        "clips": len(clips.label),
        "players": len(clips.players),
    }
    frame = pd.DataFrame(table)
    frame["clear"] = frame["p_holm"] <= ALPHA
    return frame


def _alone(right: NDArray[np.bool_], couples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clips that one of two rows of ``right`` alone recognised, shape (comparisons, 2)."""
    values = right.astype(np.float32)
    alone = values.sum(axis=1)[:, None] - values @ values.T
    first, second = couples.T
    return np.stack([alone[first, second], alone[second, first]], axis=1).astype(np.int64)


def pair_of(pairs: pd.DataFrame, first: str, second: str) -> Mapping[str, Any] | None:
    """The comparison of two combinations, turned so that ``first`` comes first; None where there is none."""
    direct = pairs[(pairs["first"] == first) & (pairs["second"] == second)]
    if len(direct):
        return dict(direct.iloc[0])
    turned = pairs[(pairs["first"] == second) & (pairs["second"] == first)]
    if not len(turned):
        return None
    row = dict(turned.iloc[0])
    row |= {
        "first": first,
        "second": second,
        "difference": -row["difference"],
        "low": -row["high"],
        "high": -row["low"],
    }
    return row | {"only_first": row["only_second"], "only_second": row["only_first"]}


def against_best(pairs: pd.DataFrame, cohort: str, best: str) -> dict[str, float]:
    """Holm-adjusted p value of each combination that was compared with ``best``."""
    mine = pairs[pairs["cohort"] == cohort] if len(pairs) else pairs
    found = {str(row["second"]): float(row["p_holm"]) for _, row in mine[mine["first"] == best].iterrows()}
    return found | {str(row["first"]): float(row["p_holm"]) for _, row in mine[mine["second"] == best].iterrows()}
