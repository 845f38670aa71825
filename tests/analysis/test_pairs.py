"""Paired tests against published worked examples, other implementations and simulated studies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from sousa_bench.analysis.stats.intervals import difference_interval
from sousa_bench.analysis.stats.pairs import Family, holm, max_t, mcnemar
from sousa_bench.analysis.stats.training_luck import Luck, Repeats, TrainingLuck, training_luck
from tests.cases import check_each

ONE_PAIR = np.array([[0, 1]])
UNITS = dict.fromkeys(range(5), 1.0)
# Darwin's cross- and self-fertilised maize, in eighths of an inch: Fisher (1935), The Design of Experiments.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], float)


def couples_of(count: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(count), 2)))


def of_models(totals: np.ndarray, sizes: np.ndarray | None = None, draws: int = 100_000) -> Family:
    """All pairs of trained models: no luck of training."""
    sizes = np.full(totals.shape[1], 60.0) if sizes is None else sizes
    return max_t(totals, sizes, couples_of(len(totals)), Luck.none(len(totals)), draws=draws)


def test_fishers_maize():
    """Fisher, section 21: in 863 of 32,768 sign patterns the sum is as large as the one seen, on either side."""
    family = of_models(np.stack([DARWIN, np.zeros_like(DARWIN)]))
    student = stats.ttest_1samp(DARWIN, 0)
    assert family.p[0] == pytest.approx(2 * 863 / 32768, abs=0.01)
    assert family.p[0] == pytest.approx(student.pvalue, abs=0.01)
    assert family.half_width[0] * 15 * 60 == pytest.approx(15 * np.ptp(student.confidence_interval()) / 2, rel=0.03)


def test_one_pair_is_scipys_permutation_test():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 30, (2, 16)).astype(float) + np.array([[0.0], [4.0]])
    other = stats.permutation_test(
        tuple(values),
        lambda a, b, axis: np.sum(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        random_state=rng,
    )
    assert of_models(values).p[0] == pytest.approx(other.pvalue, abs=0.02)


def test_a_family_is_max_t_over_all_patterns():
    """Ten players, four combinations: every sign pattern of the differences' deviations, a t of each pair whose
    variance is half its own and half the mean of all, and the largest of them."""
    rng = np.random.default_rng(2)
    totals = np.array([[0], [2], [5], [9]]) + rng.integers(20, 40, (4, 10))
    gaps = np.stack([totals[i] - totals[j] for i, j in couples_of(4)])
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    flipped = (gaps - gaps.mean(axis=1, keepdims=True))[:, None, :] * signs
    seen, drawn = (
        np.abs(values.mean(axis=-1)) / np.sqrt((variance + variance.mean(axis=0)) / 2)
        for values in (gaps, flipped)
        for variance in [stats.sem(values, axis=-1) ** 2]
    )
    largest = drawn.max(axis=0)
    wanted = (largest >= seen[:, None] - 1e-9).mean(axis=1)
    made = of_models(totals.astype(float))
    assert made.p == pytest.approx(wanted, abs=0.006)
    errors = np.abs(gaps.mean(axis=1)) / seen / 60
    assert made.half_width == pytest.approx(np.quantile(largest, 0.95) * errors, rel=0.02)
    assert np.ptp(wanted) > 0.5


def test_the_same_again():
    totals = np.random.default_rng(3).integers(20, 40, (5, 12)).astype(float)
    luck = TrainingLuck(4e-4, 1e-4, 10, UNITS).of(range(5), [3] * 5)
    one, two = (max_t(totals, np.full(12, 50.0), couples_of(5), luck) for _ in range(2))
    assert one.p.tolist() == two.p.tolist()
    assert one.half_width.tolist() == two.half_width.tolist()


def test_equal_totals_are_no_difference():
    assert of_models(np.full((2, 8), 30.0)).p[0] == 1.0


def test_luck_counts_as_much_as_it_was_seen():
    """One pair of many players: p is that of t with Satterthwaite's degrees of freedom, as the interval's."""
    rng = np.random.default_rng(4)
    totals, sizes = rng.normal([[33.0], [31.5]], 4.0, (2, 60)), np.full(60, 50.0)

    def check(variance: float, dof: int) -> None:
        luck = TrainingLuck(variance, 0.0, dof, UNITS).of([0, 1], [3, 3])
        family = max_t(totals, sizes, ONE_PAIR, luck, draws=40_000)
        interval = difference_interval(totals[:1] - totals[1:], sizes, luck.of(np.array([[1.0, -1.0]])))
        assert family.p[0] == pytest.approx(interval.p[0], abs=0.02)
        assert family.half_width[0] == pytest.approx((interval.high - interval.low)[0] / 2, rel=0.08)

    check_each([(1e-6, 12), (4e-4, 12), (4e-4, 40), (4e-3, 6)], check)


def test_what_is_clear_has_an_interval_without_zero():
    """In every family, also where several share the error and where few players give tied statistics."""
    rng = np.random.default_rng(5)

    def check(players: int, families: int, variance: float) -> None:
        for _ in range(12):
            totals = rng.integers(20, 24, (4, players)) + np.array([[0.0], [0.5], [1.0], [2.0]])
            sizes, couples = np.full(players, 30.0), couples_of(4)
            luck = TrainingLuck(variance, 0.0, 8 if variance else 0, UNITS).of(range(4), [2] * 4)
            family = max_t(totals, sizes, couples, luck, 1 - 0.05 / families, draws=3000)
            gaps = (totals[couples[:, 0]] - totals[couples[:, 1]]).sum(axis=1) / sizes.sum()
            assert (family.p * families <= 0.05).tolist() == (np.abs(gaps) > family.half_width).tolist()

    check_each(itertools.product((8, 19), (1, 2, 3, 7), (0.0, 1e-4)), check)


def test_mcnemar_of_fagerland():
    """Fagerland, Lydersen, Laake (2013), BMC Med Res Methodol 13:91: airway hyper-responsiveness, 1 against 7."""
    assert mcnemar(np.array([1]), np.array([7]))[0] == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize(("only_first", "only_second"), [(150, 86), (5, 5), (0, 9), (0, 0), (121, 59)])
def test_mcnemar_is_that_of_statsmodels(only_first: int, only_second: int):
    """150 against 86: the approval ratings of Agresti (2002), Categorical Data Analysis, table 10.1."""
    other = statsmodels_mcnemar([[10, only_first], [only_second, 10]], exact=True).pvalue
    assert mcnemar(np.array([only_first]), np.array([only_second]))[0] == pytest.approx(min(other, 1.0))


def test_holms_procedure_worked():
    """0.01, 0.04, 0.03, 0.005 at 5 %: the first and the last are rejected, the second and third are not."""
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert (adjusted <= 0.05).tolist() == [True, False, False, True]


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(6).beta(0.4, 3, 200)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def studies(players: int, seeds: int, deviation: float, count: int, better: float = 0.0, methods: int = 6):
    """Simulated studies: totals of shape (methods, seeds, players) out of 120 clips each, the first method ``better``.

    Players differ by 8 points, methods by player by 2, trainings by ``deviation``.
    """
    rng = np.random.default_rng([7, players, seeds])
    for _ in range(count):
        accuracy = 0.6 + rng.normal(0, 0.08, players) + rng.normal(0, 0.02, (methods, 1, players))
        accuracy = accuracy + rng.normal(0, deviation, (methods, seeds, 1))
        accuracy[0] += better
        yield rng.binomial(120, np.clip(accuracy, 0, 1)).astype(float)


def judged(totals: np.ndarray) -> tuple[Family, Family]:
    """The verdicts on the methods and on the trained models of a simulated study."""
    methods, seeds, players = totals.shape
    sizes, means = np.full(players, 120.0), totals.mean(axis=1)
    known = training_luck([Repeats(number, 0, one, sizes, int(sizes.sum())) for number, one in enumerate(totals)])
    couples, luck = couples_of(methods), known.of(range(methods), [seeds] * methods)
    return tuple(max_t(means, sizes, couples, some, draws=1000) for some in (luck, Luck.none(methods)))


def test_false_alarms_with_training_luck():
    """Six equal methods whose trainings differ by 2 points; what flips players alone cries in a third of studies."""

    def check(players: int, seeds: int) -> None:
        found = [judged(totals) for totals in studies(players, seeds, 0.02, 100)]
        methods, models = (np.mean([(each.p <= 0.05).any() for each in some]) for some in zip(*found, strict=True))
        assert methods <= 0.07
        assert models > 0.25

    check_each([(19, 3), (50, 2)], check)


def test_false_alarms_without_training_luck():
    """Equal models, players differ, models differ by player: nothing else than flips is asked."""

    def check(players: int, methods: int) -> None:
        found = [judged(totals)[1] for totals in studies(players, 1, 0.0, 120, methods=methods)]
        assert np.mean([(each.p <= 0.05).any() for each in found]) <= 0.08

    check_each([(8, 2), (19, 2), (8, 4)], check)


def test_a_true_difference_is_found():
    """Six points with three seeds whose trainings differ by one point."""

    def check(players: int) -> None:
        found = [judged(totals)[0].p[:5] <= 0.05 for totals in studies(players, 3, 0.01, 40, better=0.06)]
        assert np.mean(found) > 0.75

    check_each([19, 40], check)


def test_mcnemar_by_clip_raises_false_alarms_when_players_differ():
    """Why players are flipped: each model suits some of them, none is better, and McNemar's test cries often."""
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(300):
        logits = 1.0 + rng.normal(0, 0.7, (1, 19, 1)) + rng.normal(0, 0.8, (2, 19, 1))
        right = rng.random((2, 19, 60)) < 1 / (1 + np.exp(-logits))
        alone = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        alarms += mcnemar(np.array([alone[0]]), np.array([alone[1]]))[0] <= 0.05
    assert alarms / 300 > 0.3
