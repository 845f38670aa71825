"""A small part of `make calibrate`: whole studies through the command line, against a known truth."""

from __future__ import annotations

import pytest

from benchmarks.calibrate import error, studies, tables
from benchmarks.calibration_worlds import WORLDS, World


def world(key: str) -> World:
    return next(world for world in WORLDS if world.key == key)


@pytest.mark.slow
def test_the_luck_of_training_raises_no_false_alarms():
    """Six equal methods, three seeds that differ by 2 points: what tests of the players alone call clear too often."""
    equal = world("Six equal methods: 19 players, 2,500 clips; 3 seeds; training ± 2")
    found = studies(equal, range(12))
    shares = found.mean()
    assert shares["clear"] <= 0.1, shares
    assert shares["effects"] <= 0.1, shares
    assert shares["pairs"] >= 0.9, shares
    assert shares["best"] >= 0.9, shares
    assert "19 players" in tables({equal: found})


LABELLED = "Mean average precision of eight classes, six methods: "


@pytest.mark.slow
def test_mean_average_precision_keeps_the_promise_too():
    """As above where clips have several labels: six equal methods of three seeds."""
    shares = studies(world(f"{LABELLED}19 players, 2,500 clips; 3 seeds; training ± 2; equal"), range(8)).mean()
    assert shares["methods"] == 1
    assert shares["clear"] <= 0.13, shares  # one study of eight
    assert shares["effects"] <= 0.13, shares
    for figure in ("pairs", "accuracies", "best"):
        assert shares[figure] >= 0.85, (figure, shares)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "8 players, 400 clips; 3 seeds; training ± 2; equal",
        "19 players, 2,500 clips; 1 seed; training ± 2; equal",
        "19 players, 2,500 clips; 3 seeds; training ± 2; equal",
    ],
)
def test_coverage_and_false_alarms_of_mean_average_precision(name: str):
    """93 to 97 % and at most 6 %, give or take three standard errors of so few studies."""
    found = studies(world(LABELLED + name), range(60))
    for figure in ("pairs", "accuracies"):
        assert 0.93 - 3 * error(found[figure]) <= found[figure].mean() <= 0.97 + 3 * error(found[figure]), figure
    for figure in ("clear", "effects"):
        if found[figure].isna().all():  # one training of each cell: no effect can be tested
            assert figure == "effects"
            assert "1 seed" in name
            continue
        assert found[figure].mean() <= 0.06 + 3 * max(error(found[figure]), (0.06 * 0.94 / 60) ** 0.5), figure


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        "24 methods: 50 players, 400 clips; 1 seed; training ± 0; equal",
        "Five folds: 100 players, 10,000 clips; 1 seed; training ± 2; equal",
        "3 × 2 × 2 factors: 19 players, 2,500 clips; 3 seeds; training ± 2; equal",
    ],
)
def test_large_worlds(key: str):
    shares = studies(world(key), range(30)).mean()
    for figure in ("clear", "effects", "augmentation"):
        assert not shares[figure] > 0.1, (figure, shares)  # NaN where there is no such figure
    for figure in ("pairs", "leader", "best"):
        assert shares[figure] >= 0.87, (figure, shares)
