"""Main effects and interactions: against the repeated measures ANOVA, known effects, and a null matrix."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.anova import AnovaRM

from sousa_bench.analysis.stats.effects import _component, effects, flip_sums_of_squares

FACTORS = ("model", "strategy", "augmentation")


def matrix(shape: tuple[int, int, int]) -> pd.DataFrame:
    cells = itertools.product(range(shape[0]), range(shape[1]), [True, False][: shape[2]])
    return pd.DataFrame([(f"m{a}", f"s{b}", c) for a, b, c in cells], columns=list(FACTORS))


def test_agrees_with_the_repeated_measures_anova():
    """statsmodels' AnovaRM on the same normal data: for effects with one degree of freedom p is all but the same."""
    rng = np.random.default_rng(1)
    cells, players = matrix((2, 2, 2)), 14
    values = 40 + rng.normal(0, 4, (1, players)) + rng.normal(0, 2, (8, players))
    values += 1.5 * cells["augmentation"].to_numpy()[:, None]
    made = effects(cells, FACTORS, values, np.full(players, 60.0)).table.set_index("effect")
    long = pd.DataFrame(
        [
            {**cell, "player": player, "value": values[row, player]}
            for row, cell in enumerate(cells.to_dict("records"))
            for player in range(players)
        ]
    )
    table = AnovaRM(long, "value", "player", within=list(FACTORS)).fit().anova_table
    for name, row in table.iterrows():
        assert made.loc[str(name).replace(":", " × "), "p"] == pytest.approx(row["Pr > F"], abs=0.03)


def test_shares_add_up_to_the_variation_between_cells():
    rng = np.random.default_rng(2)
    cells = matrix((4, 3, 2))
    made = effects(cells, FACTORS, rng.integers(30, 60, (24, 10)).astype(float), np.full(10, 60.0))
    assert made.table["share"].sum() == pytest.approx(1)
    assert len(made.table) == 7


def test_a_known_effect_and_no_other():
    rng = np.random.default_rng(3)
    cells, players = matrix((4, 3, 2)), 19
    logits = 1.2 + rng.normal(0, 0.7, (1, players)) + rng.normal(0, 0.2, (24, players))
    logits += 0.5 * (cells["model"] == "m0").to_numpy()[:, None]
    totals = rng.binomial(60, 1 / (1 + np.exp(-logits))).astype(float)
    made = effects(cells, FACTORS, totals, np.full(players, 60.0))
    assert made.table.loc[made.table["clear"], "effect"].tolist() == ["model"]
    best = made.levels[made.levels["factor"] == "model"].sort_values("deviation").iloc[-1]
    assert best["level"] == "m0"
    assert best["low"] > 0


def test_holes_get_a_plain_word():
    made = effects(matrix((2, 2, 2)).iloc[:-1], FACTORS, np.ones((7, 10)), np.ones(10))
    assert "not balanced" in made.reason
    assert "1 of 8" in made.reason
    assert made.table.empty


def test_one_level_each_is_no_factor():
    assert "No factor varies" in effects(matrix((1, 1, 1)), FACTORS, np.ones((1, 10)), np.ones(10)).reason


@pytest.mark.parametrize(
    "players", [8, pytest.param(19, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.slow)]
)
def test_false_alarms_of_the_family_of_effects(players: int):
    """1,000 null matrices of 2 × 2 × 2 with players that differ and models that differ by player."""
    from sousa_bench.analysis.stats.pairs import holm

    rng = np.random.default_rng([4, players])
    subsets = [s for order in (1, 2, 3) for s in itertools.combinations(range(3), order)]
    alarms = 0
    for _ in range(1000):
        logits = 1.4 + rng.normal(0, 0.7, players) + rng.normal(0, 0.25, (2, 2, 2, players))
        array = rng.binomial(60, 1 / (1 + np.exp(-logits))) / (60 * players)
        contrasts = [_component(array, subset) for subset in subsets]
        alarms += bool((holm(flip_sums_of_squares(contrasts, draws=1000)) <= 0.05).any())
    assert alarms / 1000 <= 0.06
