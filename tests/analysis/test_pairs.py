"""Paired tests against published worked examples, other implementations and simulated null data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from sousa_bench.analysis.stats.pairs import holm, mcnemar, sign_flip, smallest_p

ONE_PAIR = np.array([[0, 1]])
# Darwin's cross- and self-fertilised maize, in eighths of an inch: Fisher (1935), The Design of Experiments.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], float)


def paired(differences: np.ndarray) -> np.ndarray:
    return np.stack([differences, np.zeros_like(differences)])


def test_fishers_maize():
    """Fisher, section 21: in 863 of 32,768 sign patterns the sum is as large as the one seen, on either side."""
    assert sign_flip(paired(DARWIN), ONE_PAIR)[0] == 2 * 863 / 32768


def test_sign_flip_is_scipys_permutation_test():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 30, (2, 10)).astype(float)
    other = stats.permutation_test(
        tuple(values),
        lambda a, b, axis: np.sum(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip(values, ONE_PAIR)[0] == pytest.approx(other.pvalue)


def test_drawn_patterns_agree_with_all_of_them_and_with_themselves():
    rng = np.random.default_rng(2)
    values = paired(rng.normal(0.4, 1, 20))
    observed = abs(values[0].sum())
    signs = 1 - 2 * ((np.arange(2**19)[:, None] >> np.arange(20)) & 1)
    exact = (np.abs(signs @ values[0]) >= observed - 1e-9).mean()
    drawn = sign_flip(values, ONE_PAIR)[0]
    assert drawn == pytest.approx(exact, abs=0.003)
    assert drawn == sign_flip(values, ONE_PAIR)[0]


def test_smallest_p():
    assert sign_flip(paired(np.arange(1.0, 9.0)), ONE_PAIR)[0] == smallest_p(8) == 2 / 256
    assert sign_flip(paired(np.zeros(8)), ONE_PAIR)[0] == 1.0


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


def test_holm_in_a_larger_family_counts_the_tests_not_given():
    assert holm(np.array([0.001, 0.02]), family=10) == pytest.approx([0.01, 0.18])


def null_rejections(players: int, combinations: int, simulations: int) -> float:
    """Share of simulations with any false alarm after Holm: equal models, players differ, models differ by player."""
    rng = np.random.default_rng([7, players])
    couples = np.array([(i, j) for i in range(combinations) for j in range(i + 1, combinations)])
    alarms = 0
    for _ in range(simulations):
        logits = 1.4 + rng.normal(0, 0.7, (1, players)) + rng.normal(0, 0.4, (combinations, players))
        totals = rng.binomial(60, 1 / (1 + np.exp(-logits))).astype(float)
        alarms += bool((holm(sign_flip(totals, couples, draws=4000)) <= 0.05).any())
    return alarms / simulations


@pytest.mark.parametrize(
    ("players", "combinations"),
    [
        (8, 2),
        (19, 2),
        (8, 4),
        pytest.param(40, 2, marks=pytest.mark.slow),
        pytest.param(19, 4, marks=pytest.mark.slow),
        pytest.param(40, 4, marks=pytest.mark.slow),
    ],
)
def test_false_alarms_after_correction(players: int, combinations: int):
    assert null_rejections(players, combinations, 1000) <= 0.06


def test_mcnemar_by_clip_raises_false_alarms_when_players_differ():
    """Why the sign-flip test decides: each model suits some players, none is better, and McNemar's test cries often."""
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(300):
        logits = 1.0 + rng.normal(0, 0.7, (1, 19, 1)) + rng.normal(0, 0.8, (2, 19, 1))
        right = rng.random((2, 19, 60)) < 1 / (1 + np.exp(-logits))
        alone = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        alarms += mcnemar(np.array([alone[0]]), np.array([alone[1]]))[0] <= 0.05
    assert alarms / 300 > 0.3


@pytest.mark.parametrize("players", [8, 19, 40])
def test_a_true_difference_is_found(players: int):
    rng = np.random.default_rng([9, players])
    found = 0
    for _ in range(200):
        logits = np.array([[1.0], [1.9]]) + rng.normal(0, 0.7, (1, players)) + rng.normal(0, 0.25, (2, players))
        totals = rng.binomial(60, 1 / (1 + np.exp(-logits))).astype(float)
        found += sign_flip(totals, ONE_PAIR, draws=4000)[0] <= 0.05
    assert found / 200 > 0.9
