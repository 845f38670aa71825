"""Mean average precision by group of clips, so that everything that works on sums over groups works on it too.

The mean over classes of average precisions is no mean over clips. What stands in for a group's clips is its jackknife
pseudo-value, the mean average precision and what the group adds to it (Tukey 1958, Annals of Mathematical Statistics
29, 614; Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans"):

    value(g) = whole + (groups - 1) * (mean over the groups of what is left without each - what is left without g)

Their mean is the mean average precision itself, and their variance over groups the jackknife's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.analysis.stats.intervals import accuracy_interval

MAX_BLOCKS = 100

Array = NDArray[np.float64]


def pseudo_values(scores: NDArray[np.float32], labels: NDArray[np.bool_], group: NDArray[np.int64]) -> Array:
    """The pseudo-values of the groups, whose mean is the mean average precision.

    A class counts where a clip has it. Without a group that holds all clips of a class, the mean is over the other
    classes: how far that class lies from them then tells how little a single group knows of it.

    Args:
        scores: (clips, classes), the higher the likelier.
        labels: (clips, classes), whether each clip has each class.
        group: (clips,) numbers of the groups, from 0.

    Returns:
        (groups,). Without a group that holds all labels there is no score: it counts as the whole one.
    """
    groups = int(group.max()) + 1
    met = np.flatnonzero(labels.any(axis=0))
    found = [_average_precisions(scores[:, number], labels[:, number], group, groups) for number in met]
    whole = float(np.mean([each for each, _ in found]))
    left = np.stack([without for _, without in found])
    there = ~np.isnan(left)
    counts = there.sum(axis=0)
    without = np.divide(np.where(there, left, 0.0).sum(axis=0), counts, out=np.full(groups, whole), where=counts > 0)
    values: Array = whole + (groups - 1) * (without.mean() - without)
    return values


def precision_interval(
    scores: NDArray[np.float32], labels: NDArray[np.bool_], groups: NDArray[Any]
) -> tuple[float, float]:
    """The ends of the mean average precision's interval, as ``accuracy_interval`` makes them.

    Args:
        scores: (clips, classes).
        labels: (clips, classes).
        groups: (clips,) names.
    """
    names, codes = np.unique(groups, return_inverse=True)
    found = accuracy_interval(pseudo_values(scores, labels, codes)[None], np.ones(len(names)))
    return float(found.low[0]), float(found.high[0])


def blocks(names: NDArray[Any]) -> NDArray[Any]:
    """The sample where no groups are known: each clip its own name, or where there are many that of its drawn block.

    Args:
        names: (clips,), each another.

    Returns:
        (clips,) names of ``MAX_BLOCKS`` blocks of like size at most; one for the same clips, whatever their order.
    """
    made = np.empty_like(names)
    order = np.argsort(names)
    block = np.random.default_rng(0).permutation(len(names)) % MAX_BLOCKS
    _, first, number = np.unique(block, return_index=True, return_inverse=True)
    made[order] = names[order][first][number]
    return made


def _average_precisions(
    scores: NDArray[np.float32], labels: NDArray[np.bool_], group: NDArray[np.int64], groups: int
) -> tuple[float, Array]:
    """A class's average precision, as scikit-learn has it: clips of equal scores at once.

    Counted between the scores of its clips only: what lies above each of them is all that their precision needs.

    Returns:
        The whole one, and (groups,) without each, NaN where no clip of the class is left.
    """
    thresholds = np.unique(-scores[labels])
    size = (len(thresholds) + 1) * groups
    cell = np.searchsorted(thresholds, -scores) * groups + group
    clips = np.bincount(cell, minlength=size).reshape(-1, groups)[:-1]
    hits = np.bincount(cell[labels], minlength=size).reshape(-1, groups)[:-1]
    above, right = clips.cumsum(axis=0), hits.cumsum(axis=0)
    return float(_weighted(hits.sum(axis=1), right.sum(axis=1), above.sum(axis=1))), _weighted(
        *(part.sum(axis=1, keepdims=True) - part for part in (hits, right, above))
    )


def _weighted(hits: NDArray[np.int64], right: NDArray[np.int64], above: NDArray[np.int64]) -> Array:
    """Precision at each threshold, averaged over the clips of the class there; NaN where there are none."""
    sums = (hits * (right / np.maximum(above, 1))).sum(axis=0)
    total = hits.sum(axis=0)
    result: Array = np.divide(sums, total, out=np.full(np.shape(total), np.nan), where=total > 0)
    return result
