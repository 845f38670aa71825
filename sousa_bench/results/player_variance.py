"""How far a share of right clips can be off where the clips come in clusters: several clips of each player.

Clips of one player resemble each other, so the players are the sample. The variance of the ratio of totals is the
bias-reduced linearisation CR2 (Bell and McCaffrey 2002, "Bias reduction in standard errors for linear regression
with multi-stage samples", Survey Methodology 28), for t with their Satterthwaite degrees of freedom.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MANY = 500

Array = NDArray[np.float64]


def cluster_weights(sizes: Array) -> Array:
    """What CR2 multiplies each player's squared residual by, shape (players,)."""
    count = sizes.sum()
    weights: Array = 1 / (1 - sizes / count) / count**2
    return weights


def clustered(totals: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Ratio estimates, their variances over players and Satterthwaite degrees of freedom, each of shape (rows,).

    Args:
        totals: Sums by row and player, shape (rows, players).
        sizes: Clips of each player, shape (players,).

    Returns:
        Variances and degrees of freedom are NaN where there is but one player.
    """
    totals, sizes = np.atleast_2d(np.asarray(totals, float)), np.asarray(sizes, float)
    count = sizes.sum()
    estimate = totals.sum(axis=1) / count
    if len(sizes) < 2:
        nothing = np.full(len(estimate), np.nan)
        return estimate, nothing, nothing.copy()
    residuals = totals - estimate[:, None] * sizes
    weights = cluster_weights(sizes)
    dof = (_dof if len(sizes) <= MANY else _dof_of_many)(sizes, weights)
    return estimate, (residuals**2 * weights).sum(axis=1), np.full(len(estimate), dof)


def _dof(sizes: Array, weights: Array) -> float:
    """Working model of the degrees of freedom: whole players vary, so a total's variance goes with its squared size."""
    centre = np.eye(len(sizes)) - np.outer(sizes, np.ones(len(sizes))) / sizes.sum()
    product = (centre * sizes**2) @ centre.T * weights
    return float(np.trace(product) ** 2 / np.trace(product @ product))


def _dof_of_many(sizes: Array, weights: Array) -> float:
    """The same without a matrix, which thousands of clips that stand for themselves would fill the memory with."""
    squares, count = sizes**2, sizes.sum()
    more = squares.sum() / count**2
    beside = more * squares - 2 * sizes * squares / count  # the diagonal without each player's own variance
    own = beside + squares
    two, three, four = ((weights * sizes**power).sum() for power in (2, 3, 4))
    crossed = 2 * (two * four + three**2) / count**2 + (more * two) ** 2 - 4 * more * two * three / count
    whole = crossed + (weights**2 * (own**2 - beside**2)).sum()
    return float((weights * own).sum() ** 2 / whole)
