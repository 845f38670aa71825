"""Paired comparisons on the same clips: max-t over a whole family, McNemar by clip, Holm's correction.

How large the largest of many t statistics gets when no method is better than another is found by flipping the signs of
whole players' deviations from the mean (after Fisher 1935, "The Design of Experiments", section 21; players resemble
themselves from clip to clip) and by drawing training luck, whose size is known as well as the repeated trainings tell
it (Westfall and Young 1993, "Resampling-Based Multiple Testing"). The same quantile makes p values and simultaneous
intervals, so they agree.
A comparison's variance over players is taken half from itself and half from the whole family: with few players its own
is so uncertain that the largest of many statistics would mostly show the smallest of many variances. The draws are
treated alike, so that this costs no validity where the variances differ.
McNemar's test takes each clip for a unit of its own and so raises false alarms as soon as players differ; it is given
for comparison with older papers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from sousa_bench.analysis.stats.training_luck import Luck
from sousa_bench.results.player_variance import cluster_weights

ALPHA = 0.05
DRAWS = 10_000
CHUNK = 512
TIE = 1e-9  # statistics that differ by no more than rounding are equal

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """A family of comparisons.

    Attributes:
        p: P value of each comparison, corrected for the family, shape (comparisons,).
        half_width: Of each comparison's simultaneous interval, a difference of accuracies, shape (comparisons,). The
            interval leaves out zero where ``p`` is at most 1 - ``level``, and nowhere else.
    """

    p: Array
    half_width: Array


def max_t(
    totals: Array,
    sizes: Array,
    couples: NDArray[np.int64],
    luck: Luck,
    level: float = 1 - ALPHA,
    seed: int = 0,
    draws: int = DRAWS,
) -> Family:
    """Test all comparisons of a family at once.

    Args:
        totals: Right clips by combination and player, shape (combinations, players).
        sizes: Clips of each player, shape (players,).
        couples: Numbers of the two combinations of each comparison, shape (comparisons, 2).
        luck: Of each combination's mean; ``Luck.none`` for statements about the trained models.
        level: Of the simultaneous intervals.
        seed: Of the draws.
        draws: Number of draws.
    """
    first, second = np.asarray(couples).reshape(-1, 2).T
    count, weights = sizes.sum(), cluster_weights(sizes)
    accuracy = totals.sum(axis=1) / count
    rest = totals - np.outer(accuracy, sizes)
    squares, scale = ((rest[first] - rest[second]) ** 2 * weights).sum(axis=1), float((sizes**2 * weights).sum())
    added = luck.variance[first] + luck.variance[second]
    size, error = np.abs(accuracy[first] - accuracy[second]), np.sqrt(_moderated(squares) + added)
    largest = []
    rng = np.random.default_rng(seed)
    for signs in sign_patterns(len(sizes), rng, draws):
        sums, bent = signs @ (rest / count).T, signs @ (rest * weights * sizes).T
        drawn = sums[:, first] - sums[:, second]
        variance = squares - 2 * drawn * (bent[:, first] - bent[:, second]) + drawn**2 * scale
        if luck.dof:
            chance = luck.draws(rng, len(signs))
            drawn += chance[:, first] - chance[:, second]
        largest.append((np.abs(drawn) / np.sqrt(_moderated(variance) + added)).max(axis=1))
    top = np.sort(np.concatenate(largest))
    reached = len(top) - np.searchsorted(top, size / error * (1 - TIE))
    p_values = np.where(size < 1e-12, 1.0, (reached + 1) / (len(top) + 1))
    allowed = int((1 - level) * (len(top) + 1) + TIE)  # p is small enough where fewer draws reach the statistic
    quantile = float(top[-allowed]) / (1 - TIE) if allowed else np.inf
    return Family(p_values, quantile * error)


def _moderated(variance: Array) -> Array:
    """Half each comparison's variance, half the family's mean, shape (…, comparisons); never quite zero."""
    mixed: Array = np.maximum((variance + variance.mean(axis=-1, keepdims=True)) / 2, 1e-18)
    return mixed


def highest_t(totals: Array, sizes: Array, luck: Luck, tail: float = ALPHA / 2, seed: int = 0) -> float:
    """How many standard errors the highest of several estimates may stand above its truth, because it is the highest.

    Args:
        totals: Right clips by combination and player, shape (combinations, players).
        sizes: Clips of each player, shape (players,).
        luck: Of each combination's mean.
        tail: Share of studies that may exceed it.
        seed: Of the draws.
    """
    count, weights = sizes.sum(), cluster_weights(sizes)
    rest = totals - np.outer(totals.sum(axis=1) / count, sizes)
    squares, scale = (rest**2 * weights).sum(axis=1), float((sizes**2 * weights).sum())
    highest = []
    rng = np.random.default_rng(seed)
    for signs in sign_patterns(len(sizes), rng, DRAWS):
        drawn, bent = signs @ (rest / count).T, signs @ (rest * weights * sizes).T
        variance = squares - 2 * drawn * bent + drawn**2 * scale + luck.variance
        drawn += luck.draws(rng, len(signs))
        highest.append((drawn / np.sqrt(np.maximum(variance, 1e-18))).max(axis=1))
    return float(np.quantile(np.concatenate(highest), 1 - tail, method="higher"))


def sign_patterns(players: int, rng: np.random.Generator, draws: int = DRAWS) -> Iterator[Array]:
    """Chunks of drawn sign patterns, each of shape (patterns, players)."""
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        yield (1 - 2 * rng.integers(0, 2, (size, players), dtype=np.int8)).astype(np.float64)


def holm(p_values: Array) -> Array:
    """Holm's step-down adjusted p values (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Args:
        p_values: Raw p values, shape (tests,).
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (len(p_values) - np.arange(len(p_values))))
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def mcnemar(only_first: NDArray[np.int64], only_second: NDArray[np.int64]) -> Array:
    """Exact two-sided McNemar p values (McNemar 1947, Psychometrika 12, 153-157; binomial form).

    Args:
        only_first: Clips that the first run alone recognised.
        only_second: Clips that the second run alone recognised.
    """
    only_first, only_second = np.asarray(only_first), np.asarray(only_second)
    smaller = np.minimum(only_first, only_second)
    doubled = 2 * bdtr(smaller.astype(float), only_first + only_second, 0.5)
    result: Array = np.where(only_first + only_second == 0, 1.0, np.minimum(doubled, 1.0))
    return result
