"""Which combinations can be on the front of accuracy and cost, as far as the paired tests tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COST = "trainable_params"


def front_places(cost: NDArray[np.floating[Any]], gain: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """The places of the points that no other beats in both: less cost and at least the gain.

    Args:
        cost: Shape (points,), smaller is better.
        gain: Shape (points,), larger is better.

    Returns:
        Places in both, by rising cost.
    """
    order = np.lexsort((-gain, cost))
    best = np.maximum.accumulate(gain[order]) if len(order) else gain
    return order[[index for index in range(len(order)) if index == 0 or gain[order[index]] > best[index - 1]]]


def on_front(combinations: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Whether no other combination has as few trainable parameters and is clearly more accurate.

    Parameters are counted and so exact; accuracies are compared by the tests of the cohort's family, all at once. So no
    accident of the test clips keeps a combination off the front (nor of the trainings, where their luck is known), but
    too few clips may leave one on it.

    Args:
        combinations: With ``combination``, ``cohort`` and ``trainable_params``.
        pairs: See ``comparisons.pair_table``.

    Returns:
        By row of ``combinations``, missing where it was tested against no other.
    """
    cost = combinations[COST].to_numpy(float)
    made = pd.Series(pd.NA, combinations.index, dtype="boolean")
    if not len(pairs):
        return made
    names = zip(combinations["cohort"].map(str), combinations["combination"].map(str), strict=True)
    place = {name: number for number, name in enumerate(names)}
    tested = pairs[pairs["p_adjusted"].notna()]
    cohorts = tested["cohort"].map(str)
    first, second = (
        [place[name] for name in zip(cohorts, tested[side].map(str), strict=True)] for side in ("first", "second")
    )
    made.iloc[[*first, *second]] = True
    for one, other, difference, clear in zip(first, second, tested["difference"], tested["clear"], strict=True):
        better, worse = (one, other) if difference > 0 else (other, one)
        if clear and cost[better] <= cost[worse]:
            made.iloc[worse] = False
    return made
