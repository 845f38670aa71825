"""Intervals against known answers and against simulated players."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats

from sousa_bench.analysis.stats.intervals import accuracy_interval, difference_interval, why_no_interval
from sousa_bench.data.rudiments import TASK

SIMULATIONS = 1000


def test_equal_players_give_the_classical_error_of_their_means():
    rng = np.random.default_rng(3)
    sizes = np.full(12, 50.0)
    totals = rng.integers(20, 50, (1, 12)).astype(float)
    interval = difference_interval(totals, sizes)
    means = totals[0] / 50
    assert interval.error[0] == pytest.approx(stats.sem(means))
    assert interval.dof[0] == pytest.approx(11)
    low, high = stats.t.interval(0.95, 11, means.mean(), stats.sem(means))
    assert (interval.low[0], interval.high[0]) == pytest.approx((low, high))


def test_cr2_of_unequal_players_matches_the_matrix_formula():
    """Bell and McCaffrey's CR2 with the inverse square root of I - H, computed clip by clip."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(5, 30, 9)
    player = np.repeat(np.arange(9), sizes)
    right = (rng.random(len(player)) < 0.7).astype(float)
    count = len(right)
    residuals = right - right.mean()
    meat = 0.0
    for number in range(9):
        mine = residuals[player == number]
        hat = np.full((len(mine), len(mine)), 1 / count)
        values, vectors = np.linalg.eigh(np.eye(len(mine)) - hat)
        adjusted = vectors @ np.diag(values**-0.5) @ vectors.T @ mine
        meat += adjusted.sum() ** 2
    totals = np.bincount(player, right)
    assert difference_interval(totals[None], sizes.astype(float)).error[0] == pytest.approx(np.sqrt(meat) / count)


def test_no_interval_below_eight_players_but_a_word():
    interval = accuracy_interval(np.full((2, 7), 30.0), np.full(7, 40.0))
    assert np.isnan(interval.low).all()
    assert np.isnan(interval.high).all()
    assert interval.estimate == pytest.approx([0.75, 0.75])
    assert "7 players" in why_no_interval(7, TASK)
    assert why_no_interval(1, TASK).startswith("no interval: 1 player, and")
    assert TASK.extent("1,140", 1) == "1,140 clips, 1 player"
    assert why_no_interval(8, TASK) == ""
    assert "no player" in why_no_interval(20, TASK, known=False)


def test_perfect_and_hopeless_runs_have_an_exact_far_end():
    interval = accuracy_interval(np.array([[10.0] * 8, [0.0] * 8]), np.full(8, 10.0))
    edge = stats.binomtest(8, 8).proportion_ci(0.95, "exact").low
    assert interval.low.tolist() == pytest.approx([edge, 0.0])
    assert interval.high.tolist() == pytest.approx([1.0, 1 - edge])


def population_accuracy(logit: float, spread: float) -> float:
    points, weights = hermegauss(80)
    return float((weights / weights.sum() / (1 + np.exp(-(logit + spread * points)))).sum())


def simulate(players: int, even: bool, delta: float = 0.3, seed: int = 0) -> tuple[float, float]:
    """Coverage of the accuracy's and the paired difference's interval: players differ, and models differ by player."""
    rng = np.random.default_rng([seed, players, even])
    talent, taste = 0.7, 0.25
    sizes = np.full(players, 60) if even else rng.integers(30, 91, players)
    logits = np.array([1.4, 1.4 + delta])[None, :, None]
    logits = logits + rng.normal(0, talent, (SIMULATIONS, 1, players)) + rng.normal(0, taste, (SIMULATIONS, 2, players))
    totals = rng.binomial(sizes, 1 / (1 + np.exp(-logits))).astype(float)
    truth = [population_accuracy(1.4 + shift, np.hypot(talent, taste)) for shift in (0, delta)]
    one = accuracy_interval(totals[:, 0], sizes.astype(float))
    two = difference_interval(totals[:, 1] - totals[:, 0], sizes.astype(float))
    gap = truth[1] - truth[0]
    return (
        float(((one.low <= truth[0]) & (truth[0] <= one.high)).mean()),
        float(((two.low <= gap) & (gap <= two.high)).mean()),
    )


@pytest.mark.parametrize("players", [8, 19, 40])
@pytest.mark.parametrize("even", [True, False])
def test_coverage_with_players_that_differ(players: int, even: bool):
    for coverage in simulate(players, even):
        assert 0.93 <= coverage <= 0.97


def test_a_percentile_bootstrap_over_few_players_would_not_do():
    """Why the correction is there: the plain bootstrap covers too little at 8 players."""
    rng = np.random.default_rng(5)
    logits = 1.4 + rng.normal(0, 0.74, (SIMULATIONS, 8))
    means = rng.binomial(60, 1 / (1 + np.exp(-logits))) / 60
    drawn = rng.integers(0, 8, (SIMULATIONS, 500, 8))
    boot = np.take_along_axis(means[:, None, :], drawn, axis=2).mean(axis=2)
    low, high = np.percentile(boot, [2.5, 97.5], axis=1)
    truth = population_accuracy(1.4, 0.74)
    assert ((low <= truth) & (truth <= high)).mean() < 0.93
