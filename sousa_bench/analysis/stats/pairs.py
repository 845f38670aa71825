"""Paired comparisons on the same clips: sign-flip permutation by player, McNemar by clip, Holm's correction.

A sign-flip test (Fisher 1935, "The Design of Experiments", section 21) asks how often the summed difference is as
large as the one seen when each player's difference could as well have had the other sign. It needs no distribution,
and takes players, who resemble themselves from clip to clip, as the units. McNemar's test takes each clip for a unit
of its own and so raises false alarms as soon as players differ; it is given for comparison with older papers only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

ALPHA = 0.05
EXACT_PLAYERS = 17
DRAWS = 100_000
CHUNK = 8_192
COUPLES = 32  # comparisons at once: what a processor's cache holds

Array = NDArray[np.float64]


def sign_flip(values: Array, pairs: NDArray[np.int64], seed: int = 0, draws: int = DRAWS) -> Array:
    """Two-sided p values of paired differences, flipping the sign of whole players.

    Args:
        values: Right clips by combination and player, shape (combinations, players).
        pairs: Numbers of the two combinations of each comparison, shape (comparisons, 2).
        seed: Seed of the drawn sign patterns, where the players are too many to enumerate them all.
        draws: Number of drawn patterns.

    Returns:
        P values, shape (comparisons,): exact up to ``EXACT_PLAYERS`` players, else from patterns drawn with a
        fixed seed, the one seen counted among them (so never 0).
    """
    values = np.asarray(values, float)
    first, second = np.asarray(pairs).reshape(-1, 2).T
    observed = np.abs(values[first].sum(axis=1) - values[second].sum(axis=1))
    tolerance = 1e-9 * (1 + np.abs(values).sum(axis=1).max(initial=0.0))
    hits = np.zeros(len(observed), dtype=np.int64)
    count = 0
    least = (observed - tolerance)[:, None]
    for signs in sign_patterns(values.shape[1], seed, draws):
        sums = np.ascontiguousarray((signs @ values.T).T)
        for start in range(0, len(first), COUPLES):
            some = slice(start, start + COUPLES)
            gaps = sums[first[some]]
            gaps -= sums[second[some]]
            np.abs(gaps, out=gaps)
            hits[some] += np.count_nonzero(gaps >= least[some], axis=1)
        count += len(signs)
    if values.shape[1] > EXACT_PLAYERS:
        return (hits + 1) / (count + 1)
    result: Array = hits / max(count, 1)
    return result


def sign_patterns(players: int, seed: int = 0, draws: int = DRAWS) -> Iterator[Array]:
    """Chunks of sign patterns, each (patterns, players): all of them up to ``EXACT_PLAYERS`` players, else drawn.

    Of all patterns the half with a positive first sign is enough, since a two-sided statistic doesn't see the other.
    """
    if players <= EXACT_PLAYERS:
        total = 2 ** max(players - 1, 0)
        bits = np.arange(players)
        for start in range(0, total, CHUNK):
            codes = np.arange(start, min(start + CHUNK, total))
            yield (1 - 2 * ((codes[:, None] >> bits) & 1)).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        yield (1 - 2 * rng.integers(0, 2, (size, players), dtype=np.int8)).astype(np.float64)


def smallest_p(players: int) -> float:
    """The smallest p value that a sign-flip test can give with so many players."""
    return 2.0 / 2**players if players <= EXACT_PLAYERS else 1 / (DRAWS + 1)


def holm(p_values: Array, family: int | None = None) -> Array:
    """Holm's step-down adjusted p values (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Args:
        p_values: Raw p values, shape (tests,).
        family: Size of the family where it is larger than ``p_values``; the tests not given count as never rejected.
    """
    p_values = np.asarray(p_values, float)
    size = max(family or 0, len(p_values))
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (size - np.arange(len(p_values))))
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
