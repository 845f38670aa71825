"""Confidence intervals for accuracies whose clips come in clusters: several clips of each player.

Clips of one player resemble each other, so the players are the sample. The variance of the ratio of totals is the
bias-reduced linearisation CR2 (Bell and McCaffrey 2002, "Bias reduction in standard errors for linear regression
with multi-stage samples", Survey Methodology 28), the quantile that of t with their Satterthwaite degrees of freedom.
An accuracy's interval is made on the logit scale, so it stays within 0 and 1; a difference's on the plain scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

MIN_PLAYERS = 8
LEVEL = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Estimates with their intervals, one an analysed row.

    Attributes:
        estimate: Weighted means, shape (rows,).
        low: Lower ends, NaN where there is no interval.
        high: Upper ends.
        error: Standard errors over players.
        dof: Satterthwaite degrees of freedom.
    """

    estimate: Array
    low: Array
    high: Array
    error: Array
    dof: Array


def why_no_interval(players: int, known: bool = True) -> str:
    """Why there is no interval, in words; empty where there is one."""
    if not known:
        return "no interval: the predictions name no player"
    if players < MIN_PLAYERS:
        return f"no interval: {players} players, and below {MIN_PLAYERS} none can be trusted"
    return ""


def accuracy_interval(totals: Array, sizes: Array, level: float = LEVEL) -> Interval:
    """Interval of accuracies, clustered by player.

    Args:
        totals: Right clips by row and player, shape (rows, players); fractions where seeds are averaged.
        sizes: Clips of each player, shape (players,).
        level: Confidence level.

    Returns:
        Intervals within [0, 1]; NaN ends below ``MIN_PLAYERS``. Where every clip is right (or wrong) there is no spread
        to measure, and the far end is the exact binomial one with a player as the unit: ``(alpha / 2) ** (1 /
        players)``.
    """
    estimate, error, dof = _clustered(totals, sizes)
    players = len(sizes)
    if players < MIN_PLAYERS:
        nothing = np.full(len(estimate), np.nan)
        return Interval(estimate, nothing, nothing.copy(), error, dof)
    alpha = 1 - level
    inside = np.clip(estimate, 1e-12, 1 - 1e-12)
    spread = stdtrit(dof, 1 - alpha / 2) * error / (inside * (1 - inside))
    logit = np.log(inside / (1 - inside))
    low, high = _expit(logit - spread), _expit(logit + spread)
    edge = (alpha / 2) ** (1 / players)
    perfect, hopeless = estimate >= 1 - 1e-12, estimate <= 1e-12
    low, high = np.where(perfect, edge, low), np.where(perfect, 1.0, high)
    low, high = np.where(hopeless, 0.0, low), np.where(hopeless, 1 - edge, high)
    return Interval(estimate, low, high, error, dof)


def difference_interval(totals: Array, sizes: Array, level: float = LEVEL) -> Interval:
    """Interval of paired differences of accuracies, clustered by player.

    Args:
        totals: Differences of the numbers of right clips by row and player, shape (rows, players).
        sizes: Clips of each player, shape (players,).
        level: Confidence level.

    Returns:
        Intervals on the plain scale; NaN ends below ``MIN_PLAYERS``.
    """
    estimate, error, dof = _clustered(totals, sizes)
    spread = stdtrit(dof, 0.5 + level / 2) * error if len(sizes) >= MIN_PLAYERS else np.full(len(estimate), np.nan)
    return Interval(estimate, estimate - spread, estimate + spread, error, dof)


def _clustered(totals: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Ratio estimates, CR2 standard errors and Satterthwaite degrees of freedom, each of shape (rows,)."""
    totals, sizes = np.atleast_2d(np.asarray(totals, float)), np.asarray(sizes, float)
    count = sizes.sum()
    estimate = totals.sum(axis=1) / count
    if len(sizes) < 2:
        nothing = np.full(len(estimate), np.nan)
        return estimate, nothing, nothing.copy()
    residuals = totals - estimate[:, None] * sizes
    weights = 1 / (1 - sizes / count) / count**2
    error = np.sqrt((residuals**2 * weights).sum(axis=1))
    # Working model of the degrees of freedom: whole players vary, so a total's variance goes with its squared size.
    centre = np.eye(len(sizes)) - np.outer(sizes, np.ones(len(sizes))) / count
    product = (centre * sizes**2) @ centre.T * weights
    dof = np.trace(product) ** 2 / np.trace(product @ product)
    return estimate, error, np.full(len(estimate), dof)


def _expit(value: Array) -> Array:
    with np.errstate(over="ignore"):
        result: Array = 1 / (1 + np.exp(-value))
    return result
