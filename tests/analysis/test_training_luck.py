"""Training luck against a textbook's variance components and against simulated trainings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from sousa_bench.analysis.stats.intervals import accuracy_interval
from sousa_bench.analysis.stats.pairs import highest_t
from sousa_bench.analysis.stats.training_luck import Repeats, TrainingLuck, training_luck

CLIPS = 100


def cohort(rng: np.random.Generator, shape: tuple[int, int, int], deviation: float) -> np.ndarray:
    """Right clips by method, training and player: players differ by 8 points, trainings by ``deviation``.

    A training suits one player more than another by 1 point.
    """
    methods, _, players = shape
    accuracy = 0.6 + rng.normal(0, 0.08, players) + rng.normal(0, 0.02, (methods, 1, players))
    accuracy = accuracy + rng.normal(0, deviation, (*shape[:2], 1)) + rng.normal(0, 0.01, shape)
    return rng.binomial(CLIPS, np.clip(accuracy, 0, 1)).astype(float)


def of_seeds(totals: np.ndarray, sizes: np.ndarray | None = None) -> TrainingLuck:
    sizes = np.full(totals.shape[2], float(CLIPS)) if sizes is None else sizes
    return training_luck([Repeats(number, 0, one, sizes) for number, one in enumerate(totals)])


def mean_squares(accuracy: np.ndarray) -> pd.Series:
    """statsmodels' analysis of variance of a table of rows and columns without replication."""
    long = pd.DataFrame(accuracy).stack().rename_axis(["row", "column"]).rename("value").reset_index()
    return anova_lm(ols("value ~ C(row) + C(column)", long).fit())["mean_sq"]


def test_seeds_are_the_textbooks_variance_component():
    """Trainings crossed with players, both random: (mean square of trainings - that of the rest) / players."""
    totals = cohort(np.random.default_rng(1), (1, 5, 12), 0.02)
    squares = mean_squares(totals[0] / CLIPS)
    luck = of_seeds(totals)
    assert luck.raw == pytest.approx(squares["C(row)"] / 12)
    assert luck.noise == pytest.approx(squares["Residual"] / 12)
    assert luck.deviation**2 == pytest.approx(max((squares["C(row)"] - squares["Residual"]) / 12, 0))
    assert (luck.dof, luck.source) == (4, "seeds")


def test_combinations_are_pooled_by_their_degrees_of_freedom():
    rng = np.random.default_rng(2)
    sizes = rng.integers(40, 90, 10).astype(float)
    cells = [Repeats(n, 0, rng.binomial(40, 0.6, (seeds, 10)).astype(float), sizes) for n, seeds in enumerate((2, 4))]
    luck = training_luck(cells)
    accuracies = [cell.totals.sum(axis=1) / sizes.sum() for cell in cells]
    assert luck.raw == pytest.approx(sum(((one - one.mean()) ** 2).sum() for one in accuracies) / 4)
    assert luck.dof == 4


def test_what_clips_and_players_make_is_taken_off():
    """The mean over 300 cohorts is the simulated variance, 2 points squared, and none where there is none."""
    rng = np.random.default_rng(3)
    for deviation in (0.0, 0.02):
        found = [of_seeds(cohort(rng, (6, 3, 19), deviation)) for _ in range(300)]
        variance = np.mean([luck.raw - luck.noise for luck in found])
        assert variance == pytest.approx(deviation**2, abs=2e-5), deviation


def test_a_method_without_chance_says_nothing_of_the_others():
    totals = cohort(np.random.default_rng(4), (3, 3, 12), 0.02)
    still = totals.copy()
    still[2] = still[2, :1]
    assert of_seeds(still).raw == pytest.approx(of_seeds(totals[:2]).raw)
    assert of_seeds(still[2:]).raw == 0
    sizes = np.full(12, float(CLIPS))
    once = [Repeats(number, 0, one[:1], sizes) for number, one in enumerate(totals[:2])]
    assert training_luck([*once, Repeats(2, 0, still[2], sizes)]).dof == 0, "the two may have luck that nothing shows"


def test_folds_and_combinations_where_each_was_trained_once():
    """What one combination does better in one fold than in another: the rest of a two-way table."""
    rng = np.random.default_rng(5)
    totals = cohort(rng, (4, 5, 8), 0.03)  # eight players a fold
    sizes = np.full(8, float(CLIPS))
    cells = [Repeats(m, fold, totals[m, fold][None], sizes) for m in range(4) for fold in range(5)]
    luck = training_luck(cells)
    assert luck.raw == pytest.approx(mean_squares(totals.mean(axis=2) / CLIPS)["Residual"])
    assert (luck.dof, luck.source) == (12, "folds")
    one_fold = training_luck([cell for cell in cells if cell.clip_set == 0])
    assert (one_fold.dof, one_fold.source, one_fold.deviation) == (0, "", 0.0)


def test_folds_show_the_simulated_luck():
    """Each fold has players of its own, each method one training a fold."""
    rng = np.random.default_rng(6)
    sizes, found = np.full(10, float(CLIPS)), []
    for _ in range(200):
        folds = [cohort(rng, (4, 1, 10), 0.02) for _ in range(5)]
        luck = training_luck([Repeats(m, f, fold[m], sizes) for f, fold in enumerate(folds) for m in range(4)])
        found.append(luck.raw - luck.noise)
    assert np.mean(found) == pytest.approx(0.02**2, abs=4e-5)


def test_one_that_scatters_is_feared_more_and_more_trainings_less():
    totals = cohort(np.random.default_rng(7), (4, 3, 19), 0.005)
    totals[0] += np.array([[-9.0], [0.0], [9.0]])
    luck = of_seeds(totals).of(range(4), [3, 3, 3, 6])
    assert luck.feared[0] > luck.raw[0] == luck.raw[1] == luck.feared[1] == 2 * luck.raw[3]
    assert not TrainingLuck().of([0, 1], [1, 1]).variance.any()


def test_the_leaders_interval_covers_although_it_was_chosen():
    """Of 24 equal methods the highest: t's interval covers its truth far less often than 95 %."""
    rng = np.random.default_rng(8)
    sizes, covered = np.full(19, float(CLIPS)), []
    for _ in range(40):
        totals = cohort(rng, (24, 2, 19), 0.02)
        luck = of_seeds(totals).of(range(24), [2] * 24)
        means = totals.mean(axis=1)
        first = means.sum(axis=1).argmax()
        quantile = np.full(24, highest_t(means, sizes, luck))
        lows = [accuracy_interval(means, sizes, luck, lower_quantile=some).low[first] for some in (quantile, None)]
        covered.append([low <= 0.6 for low in lows])
    allowed, plain = np.mean(covered, axis=0)
    assert allowed >= 0.93
    assert plain < allowed
