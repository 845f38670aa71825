"""Main effects and interactions: against the repeated measures ANOVA, known effects, and a null matrix."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.anova import AnovaRM

from sousa_bench.analysis.stats.effects import Effects, effects
from sousa_bench.analysis.stats.training_luck import Luck, Repeats, training_luck

FACTORS = ("model", "strategy", "augmentation")


def matrix(shape: tuple[int, int, int]) -> pd.DataFrame:
    cells = itertools.product(range(shape[0]), range(shape[1]), [True, False][: shape[2]])
    return pd.DataFrame([(f"m{a}", f"s{b}", c) for a, b, c in cells], columns=list(FACTORS))


def of_models(cells: pd.DataFrame, totals: np.ndarray) -> Effects:
    """The effects on trained models, 60 clips a player."""
    return effects(cells, FACTORS, totals, np.full(totals.shape[1], 60.0), Luck.none(len(totals)))


def test_agrees_with_the_repeated_measures_anova():
    """statsmodels' AnovaRM on the same normal data: for effects with one degree of freedom p is all but the same."""
    rng = np.random.default_rng(1)
    cells, players = matrix((2, 2, 2)), 14
    values = 40 + rng.normal(0, 4, (1, players)) + rng.normal(0, 2, (8, players))
    values += 1.5 * cells["augmentation"].to_numpy()[:, None]
    made = of_models(cells, values).table.set_index("effect")
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
    made = of_models(cells, rng.integers(30, 60, (24, 10)).astype(float))
    assert made.table["share"].sum() == pytest.approx(1)
    assert len(made.table) == 7


def test_a_known_effect_and_no_other():
    rng = np.random.default_rng(3)
    cells, players = matrix((4, 3, 2)), 19
    logits = 1.2 + rng.normal(0, 0.7, (1, players)) + rng.normal(0, 0.2, (24, players))
    logits += 0.5 * (cells["model"] == "m0").to_numpy()[:, None]
    totals = rng.binomial(60, 1 / (1 + np.exp(-logits))).astype(float)
    made = of_models(cells, totals)
    assert made.table.loc[made.table["clear"], "effect"].tolist() == ["model"]
    best = made.levels[made.levels["factor"] == "model"].sort_values("deviation").iloc[-1]
    assert best["level"] == "m0"
    assert best["low"] > 0


def test_holes_get_a_plain_word():
    made = of_models(matrix((2, 2, 2)).iloc[:-1], np.ones((7, 10)))
    assert "not balanced" in made.reason
    assert "1 of 8" in made.reason
    assert made.table.empty


def test_one_level_each_is_no_factor():
    assert "No factor varies" in of_models(matrix((1, 1, 1)), np.ones((1, 10))).reason


def test_what_the_order_of_the_rows_leaves_alone():
    """Each cell keeps its own luck: a method of fewer trainings has more of it."""
    rng = np.random.default_rng(5)
    cells, totals = matrix((3, 2, 2)), rng.integers(30, 60, (12, 12)).astype(float)
    raw = rng.uniform(1e-4, 9e-4, 12)
    luck = Luck(raw, raw / 4, 8, raw)
    mixed = rng.permutation(12)
    turned = Luck(raw[mixed], raw[mixed] / 4, 8, raw[mixed])
    one = effects(cells, FACTORS, totals, np.full(12, 60.0), luck)
    two = effects(cells.iloc[mixed].reset_index(drop=True), FACTORS, totals[mixed], np.full(12, 60.0), turned)
    levels = [made.levels.sort_values(["factor", "level"]) for made in (one, two)]
    for key in ("accuracy", "low", "high"):
        assert levels[0][key].to_numpy() == pytest.approx(levels[1][key].to_numpy())
    # The levels are numbered as they come, so the same draws fall on other cells.
    assert one.table["share"].to_numpy() == pytest.approx(two.table["share"].to_numpy())
    assert one.table["p"].to_numpy() == pytest.approx(two.table["p"].to_numpy(), abs=0.02)


def false_alarms(players: int, seeds: int, deviation: float, studies: int) -> tuple[float, float]:
    """Share of null matrices of 2 × 2 × 2 with any clear effect: on methods, and on the trained models.

    Players differ by 8 points, models by player by 2, trainings by ``deviation``.
    """
    rng = np.random.default_rng([4, players, seeds])
    cells, sizes = matrix((2, 2, 2)), np.full(players, 120.0)
    alarms = np.zeros(2)
    for _ in range(studies):
        accuracy = 0.6 + rng.normal(0, 0.08, players) + rng.normal(0, 0.02, (8, 1, players))
        accuracy = accuracy + rng.normal(0, deviation, (8, seeds, 1))
        totals = rng.binomial(120, np.clip(accuracy, 0, 1)).astype(float)
        known = training_luck([Repeats(number, 0, one, sizes, int(sizes.sum())) for number, one in enumerate(totals)])
        for number, luck in enumerate((known.of(range(8), [seeds] * 8), Luck.none(8))):
            made = effects(cells, FACTORS, totals.mean(axis=1), sizes, luck, draws=400)
            alarms[number] += made.table["clear"].any()
    methods, models = alarms / studies
    return float(methods), float(models)


@pytest.mark.slow
def test_false_alarms_of_the_family_of_effects():
    """Trainings that differ by 2 points: with their luck 5 %, and by flips of players alone far more."""
    methods, models = false_alarms(19, 2, 0.02, 40)
    assert methods <= 0.1
    assert models > 0.25
    assert false_alarms(8, 1, 0.0, 40)[1] <= 0.1
