"""Training luck against a textbook's variance components and against simulated trainings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from sousa_bench.analysis.stats.intervals import accuracy_interval
from sousa_bench.analysis.stats.pairs import highest_t
from sousa_bench.analysis.stats.training_luck import Repeats, TrainingLuck, training_luck, unit

CLIPS = 100


def cohort(rng: np.random.Generator, shape: tuple[int, int, int], deviation: float) -> np.ndarray:
    """Right clips by method, training and player: players differ by 8 points, trainings by ``deviation``.

    A training suits one player more than another by 1 point.
    """
    methods, _, players = shape
    accuracy = 0.6 + rng.normal(0, 0.08, players) + rng.normal(0, 0.02, (methods, 1, players))
    accuracy = accuracy + rng.normal(0, deviation, (*shape[:2], 1)) + rng.normal(0, 0.01, shape)
    return rng.binomial(CLIPS, np.clip(accuracy, 0, 1)).astype(float)


def cell(index: int, clip_set: int, totals: np.ndarray, sizes: np.ndarray, **rest) -> Repeats:
    return Repeats(index, clip_set, totals, sizes, **{"clips": int(sizes.sum()), **rest})


def of_seeds(totals: np.ndarray, sizes: np.ndarray | None = None) -> TrainingLuck:
    sizes = np.full(totals.shape[2], float(CLIPS)) if sizes is None else sizes
    return training_luck([cell(number, 0, one, sizes) for number, one in enumerate(totals)])


def mean_squares(accuracy: np.ndarray) -> pd.Series:
    """statsmodels' analysis of variance of a table of rows and columns without replication."""
    long = pd.DataFrame(accuracy).stack().rename_axis(["row", "column"]).rename("value").reset_index()
    return anova_lm(ols("value ~ C(row) + C(column)", long).fit())["mean_sq"]


def test_seeds_are_the_textbooks_variance_component():
    """Trainings crossed with players, both random: (mean square of trainings - that of the rest) / players."""
    totals = cohort(np.random.default_rng(1), (1, 5, 12), 0.02)
    squares = mean_squares(totals[0] / CLIPS)
    known = of_seeds(totals)
    luck = known.of([0], [1])
    assert luck.raw[0] == pytest.approx(squares["C(row)"] / 12)
    assert luck.noise[0] == pytest.approx(squares["Residual"] / 12)
    assert known.deviation(0) ** 2 == pytest.approx(max((squares["C(row)"] - squares["Residual"]) / 12, 0))
    assert (known.dof, known.source) == (4, "seeds")


def test_combinations_are_pooled_by_their_degrees_of_freedom():
    rng = np.random.default_rng(2)
    sizes = rng.integers(40, 90, 10).astype(float)
    cells = [cell(n, 0, rng.binomial(40, 0.6, (seeds, 10)).astype(float), sizes) for n, seeds in enumerate((2, 4))]
    luck = training_luck(cells)
    accuracies = [one.totals.sum(axis=1) / sizes.sum() for one in cells]
    squares = [((one - one.mean()) ** 2).sum() / unit(one.mean(), sizes.sum()) for one in accuracies]
    assert luck.raw == pytest.approx(sum(squares) / 4)
    assert luck.dof == 4


def test_a_method_that_is_nearly_always_right_varies_less():
    """Trainings that differ by 4 points at 0.66 say little of one at 0.99; a perfect one's unit is half a clip's."""
    rng, sizes = np.random.default_rng(10), np.full(30, 10.0)
    place = np.array([0.66, 0.70, 0.80, 0.90, 0.99])[:, None, None]
    accuracy = place + 0.08 * np.sqrt(place * (1 - place)) * rng.normal(0, 1, (5, 40, 1))
    known = of_seeds(rng.binomial(10, np.clip(accuracy, 0, 1), (5, 40, 30)).astype(float), sizes)
    found = np.array([known.deviation(index) for index in range(5)])
    assert found == pytest.approx(0.08 * np.sqrt(place * (1 - place)).ravel(), rel=0.25)
    always = of_seeds(np.stack([rng.binomial(10, 0.6, (3, 30)), np.full((3, 30), 10)]).astype(float), sizes)
    assert always.units[1] == pytest.approx(0.5 / 301 * 300.5 / 301)


def test_what_clips_and_players_make_is_taken_off():
    """The mean over 300 cohorts is the simulated variance, 2 points squared, and none where there is none."""
    rng = np.random.default_rng(3)
    for deviation in (0.0, 0.02):
        found = [of_seeds(cohort(rng, (6, 3, 19), deviation)) for _ in range(300)]
        variance = np.mean([luck.raw - luck.noise for known in found for luck in [known.of([0], [1])]])
        assert variance == pytest.approx(deviation**2, abs=2e-5), deviation


def test_a_method_without_chance_says_nothing_of_the_others():
    totals = cohort(np.random.default_rng(4), (3, 3, 12), 0.02)
    still = totals.copy()
    still[2] = still[2, :1]
    assert of_seeds(still).raw == pytest.approx(of_seeds(totals[:2]).raw)
    assert of_seeds(still[2:]).raw == 0
    sizes = np.full(12, float(CLIPS))
    once = [cell(number, 0, one[:1], sizes) for number, one in enumerate(totals[:2])]
    assert training_luck([*once, cell(2, 0, still[2], sizes)]).dof == 0, "the two may have luck that nothing shows"


def test_folds_and_combinations_where_each_was_trained_once():
    """What one combination does better in one fold than in another: the rest of a two-way table."""
    rng = np.random.default_rng(5)
    totals = cohort(rng, (4, 5, 8), 0.03)  # eight players a fold
    sizes = np.full(8, float(CLIPS))
    cells = [cell(m, fold, totals[m, fold][None], sizes) for m in range(4) for fold in range(5)]
    luck = training_luck(cells)
    size = np.sqrt([[unit(one.mean() / CLIPS, one.size * CLIPS)] for one in totals])
    assert luck.raw == pytest.approx(mean_squares(totals.mean(axis=2) / CLIPS / size)["Residual"])
    assert (luck.dof, luck.source) == (12, "folds")
    one_fold = training_luck([one for one in cells if one.clip_set == 0])
    assert (one_fold.dof, one_fold.source, one_fold.deviation(0)) == (0, "", 0.0)


def test_folds_show_the_simulated_luck():
    """Each fold has players of its own, each method one training a fold."""
    rng = np.random.default_rng(6)
    sizes, found = np.full(10, float(CLIPS)), []
    for _ in range(200):
        folds = [cohort(rng, (4, 1, 10), 0.02) for _ in range(5)]
        luck = training_luck([cell(m, f, fold[m], sizes) for f, fold in enumerate(folds) for m in range(4)])
        found.append(float((luck.of([0], [1]).raw - luck.of([0], [1]).noise)[0]))
    assert np.mean(found) == pytest.approx(0.02**2, abs=4e-5)


def test_one_that_scatters_is_feared_more_and_more_trainings_less():
    totals = cohort(np.random.default_rng(7), (4, 3, 19), 0.005)
    totals[0] += np.array([[-9.0], [0.0], [9.0]])
    known = of_seeds(totals)
    assert known.own[0] > known.raw > max(known.own[number] for number in (1, 2, 3))
    luck, units = known.of(range(4), [3, 3, 3, 6]), np.array([known.units[number] for number in range(4)])
    assert luck.raw == pytest.approx(units * known.raw / [3, 3, 3, 6])
    assert luck.feared == pytest.approx(units * [known.own[0], *[known.raw] * 3] / [3, 3, 3, 6])
    assert luck.cautious.raw.tolist() == luck.feared.tolist()
    assert not TrainingLuck().of([0, 1], [1, 1]).variance.any()


def test_a_method_that_no_seed_changes_has_no_luck_and_tells_none():
    """A probe beside methods with three seeds; in folds of one training each it learns from other clips in each."""
    totals = cohort(np.random.default_rng(11), (3, 3, 12), 0.02)
    sizes = np.full(12, float(CLIPS))
    drawn = [cell(number, 0, one, sizes) for number, one in enumerate(totals[:2])]
    probe = cell(2, 0, totals[2, :1], sizes, seedless=True)
    known = training_luck([*drawn, probe])
    assert (known.raw, known.noise, known.dof) == (of_seeds(totals[:2]).raw, of_seeds(totals[:2]).noise, 4)
    assert known.deviation(2) == 0.0 < known.deviation(0)
    alone = training_luck([probe])
    assert alone.dof == 0
    folds = [cell(m, f, totals[m, f][None], sizes, seedless=m == 2) for m in range(3) for f in range(3)]
    assert training_luck(folds).raw == training_luck(folds[:6]).raw
    assert training_luck(folds).units[2] > 0


def test_a_fold_with_more_trainings_counts_once():
    """Two trainings of one fold that are the same to the clip tell of no luck, and leave the folds to tell it."""
    totals = cohort(np.random.default_rng(12), (2, 3, 12), 0.02)
    sizes = np.full(12, float(CLIPS))
    cells = [cell(m, f, totals[m, f][None], sizes) for m in range(2) for f in range(3)]
    twice = [
        replace(one, totals=np.repeat(one.totals, 2, axis=0)) if number == 4 else one
        for number, one in enumerate(cells)
    ]
    assert training_luck(twice) == training_luck(cells)


def test_the_unit_goes_by_clips_where_the_score_has_parts():
    """A mean average precision of 0.99 over 400 clips by eight players, each a part of it."""
    parts = np.full((2, 8), 0.99)
    assert training_luck([cell(0, 0, parts, np.ones(8), clips=400)]).units[0] == pytest.approx(unit(0.99, 400))


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
