"""Confidence intervals for accuracies whose clips come in clusters: several clips of each player.

The players are the sample: the variance is that of `sousa_bench.results.player_variance`, the quantile that of t. An
accuracy's interval is made on the logit scale, so it stays within 0 and 1; a difference's on the plain scale.
The variance of training luck is added to that over players, and the degrees of freedom follow from both (Satterthwaite
1946, Biometrics Bulletin 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from sousa_bench.results.player_variance import clustered
from sousa_bench.task import Task, counted

if TYPE_CHECKING:
    from sousa_bench.analysis.stats.training_luck import Luck

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
        error: Standard errors, over players and, where it was given, training luck.
        dof: Satterthwaite degrees of freedom.
    """

    estimate: Array
    low: Array
    high: Array
    error: Array
    dof: Array

    @property
    def p(self) -> Array:
        """Two-sided p values against zero, shape (rows,); NaN where there is no interval."""
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.where(self.estimate == 0, 0.0, np.abs(self.estimate) / self.error)
        result: Array = np.where(np.isnan(self.low), np.nan, 2 * stdtr(self.dof, -size))
        return result


def why_no_interval(groups: int, task: Task, known: bool = True) -> str:
    """Why there is no interval over so many groups, in the task's words; empty where there is one."""
    if not known:
        return f"no interval: the predictions name no {task.group}"
    if groups < MIN_PLAYERS:
        return f"no interval: {counted(groups, task.group)}, and below {MIN_PLAYERS} none can be trusted"
    return ""


def accuracy_interval(
    totals: Array, sizes: Array, luck: Luck | None = None, level: float = LEVEL, lower_quantile: Array | None = None
) -> Interval:
    """Interval of accuracies, clustered by player.

    Args:
        totals: Right clips by row and player, shape (rows, players); fractions where seeds are averaged.
        sizes: Clips of each player, shape (players,).
        luck: Of each row's trainings; None: of these trained models.
        level: Confidence level.
        lower_quantile: Standard errors down to the lower end where that is more than t's, shape (rows,): for rows that
            were chosen because they are high.

    Returns:
        Intervals within [0, 1]; NaN ends below ``MIN_PLAYERS``. Where every clip is right (or wrong) there is no spread
        to measure, and the far end is the exact binomial one with a player as the unit: ``(alpha / 2) ** (1 /
        players)``.
    """
    estimate, error, dof = _clustered(totals, sizes, luck)
    players = len(sizes)
    if players < MIN_PLAYERS:
        nothing = np.full(len(estimate), np.nan)
        return Interval(estimate, nothing, nothing.copy(), error, dof)
    alpha = 1 - level
    inside = np.clip(estimate, 1e-12, 1 - 1e-12)
    quantile, scale = stdtrit(dof, 1 - alpha / 2), error / (inside * (1 - inside))
    logit = np.log(inside / (1 - inside))
    down = quantile if lower_quantile is None else np.maximum(quantile, lower_quantile)
    low, high = _expit(logit - down * scale), _expit(logit + quantile * scale)
    edge = (alpha / 2) ** (1 / players)
    perfect, hopeless = estimate >= 1 - 1e-12, estimate <= 1e-12
    low, high = np.where(perfect, edge, low), np.where(perfect, 1.0, high)
    low, high = np.where(hopeless, 0.0, low), np.where(hopeless, 1 - edge, high)
    return Interval(estimate, low, high, error, dof)


def difference_interval(totals: Array, sizes: Array, luck: Luck | None = None, level: float = LEVEL) -> Interval:
    """Interval of paired differences of accuracies, clustered by player.

    Args:
        totals: Differences of the numbers of right clips by row and player, shape (rows, players).
        sizes: Clips of each player, shape (players,).
        luck: Of each row's trainings; None: of these trained models.
        level: Confidence level.

    Returns:
        Intervals on the plain scale; NaN ends below ``MIN_PLAYERS``.
    """
    estimate, error, dof = _clustered(totals, sizes, luck)
    spread = stdtrit(dof, 0.5 + level / 2) * error if len(sizes) >= MIN_PLAYERS else np.full(len(estimate), np.nan)
    return Interval(estimate, estimate - spread, estimate + spread, error, dof)


def _clustered(totals: Array, sizes: Array, luck: Luck | None) -> tuple[Array, Array, Array]:
    """Ratio estimates, their standard errors and Satterthwaite degrees of freedom, each of shape (rows,)."""
    estimate, variance, dof = clustered(totals, sizes)
    if luck is not None and luck.dof:
        whole = variance + luck.variance
        doubt = np.where(luck.variance > 0, luck.raw, 0.0)
        with np.errstate(invalid="ignore"):
            both = whole**2 / (variance**2 / dof + doubt**2 / luck.dof)
        variance, dof = whole, np.where(whole > 0, both, dof)
    return estimate, np.sqrt(variance), dof


def _expit(value: Array) -> Array:
    with np.errstate(over="ignore"):
        result: Array = 1 / (1 + np.exp(-value))
    return result
