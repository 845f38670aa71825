"""The parts of a mean average precision that groups of clips have, against scikit-learn's score without each."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sousa_bench.analysis.stats.average_precision import pseudo_values


def mean_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    met = labels.any(axis=0)
    return float(average_precision_score(labels[:, met], scores[:, met], average="macro"))


def jackknife(scores: np.ndarray, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    groups = group.max() + 1
    left = np.array([mean_precision(scores[group != g], labels[group != g]) for g in range(groups)])
    return mean_precision(scores, labels) + (groups - 1) * (left.mean() - left)


@pytest.mark.parametrize("decimals", [7, 1])  # with one decimal many scores are equal
def test_they_are_the_jackknifes_pseudo_values(decimals: int):
    rng = np.random.default_rng(0)
    labels, group = rng.random((300, 5)) < 0.1, rng.integers(0, 12, 300)
    labels[group != 3, 4] = False  # a class that one group alone has
    scores = np.round(labels + rng.normal(size=labels.shape), decimals).astype(np.float32)
    found = pseudo_values(scores, labels, group)
    assert found == pytest.approx(jackknife(scores, labels, group), abs=1e-12)
    assert found.mean() == pytest.approx(mean_precision(scores, labels), abs=1e-12)


def test_a_class_that_no_clip_has_does_not_count():
    rng = np.random.default_rng(1)
    labels, group = rng.random((200, 4)) < 0.2, rng.integers(0, 8, 200)
    scores = rng.normal(size=labels.shape).astype(np.float32)
    labels[:, 2] = False
    others = [0, 1, 3]
    assert np.array_equal(
        pseudo_values(scores, labels, group), pseudo_values(scores[:, others], labels[:, others], group)
    )


def test_one_group_has_the_whole_score():
    labels = np.array([[True, False], [False, True], [True, True]])
    scores = np.array([[0.1, 0.0], [0.9, 0.5], [0.5, 0.9]], np.float32)
    assert pseudo_values(scores, labels, np.zeros(3, int)) == pytest.approx([mean_precision(scores, labels)])


def test_a_perfect_ranking_leaves_no_doubt():
    labels = np.eye(4, dtype=bool)[np.arange(80) % 4]
    found = pseudo_values(labels.astype(np.float32), labels, np.arange(80) // 8)
    assert found == pytest.approx(np.ones(10))


def test_a_group_that_has_all_labels_leaves_the_mean_as_it_is():
    labels, group = np.zeros((40, 2), bool), np.arange(40) // 10
    labels[:10] = np.random.default_rng(2).random((10, 2)) < 0.5
    scores = np.random.default_rng(3).normal(size=labels.shape).astype(np.float32)
    assert pseudo_values(scores, labels, group).mean() == pytest.approx(mean_precision(scores, labels))
