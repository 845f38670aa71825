"""Metrics against scikit-learn's conventions, worked by hand."""

import math

import numpy as np
import pytest
import torch

from sousa_bench.analysis.stats.average_precision import pseudo_values
from sousa_bench.results.metrics import METRICS_OF_SEVERAL, per_class, split_metrics
from sousa_bench.task import Task

# Labels 0 0 1 1 2, predictions 0 1 1 1 3 of five classes; class 4 occurs nowhere.
LABELS = torch.tensor([0, 0, 1, 1, 2])
PREDICTED = torch.tensor([0, 1, 1, 1, 3])
LOGITS = torch.nn.functional.one_hot(PREDICTED, 5) * 10.0


def test_accuracy_and_averages():
    metrics = split_metrics("val", LOGITS, LABELS)
    assert metrics["val_acc"] == pytest.approx(3 / 5)
    # F1: class 0 2/3, class 1 4/5, class 2 0, class 3 (predicted only) 0; class 4 is left out.
    assert metrics["val_f1_macro"] == pytest.approx((2 / 3 + 4 / 5) / 4)
    # Recall over the classes that have clips: 1/2, 1, 0.
    assert metrics["val_balanced_acc"] == pytest.approx((0.5 + 1 + 0) / 3)


def test_loss_is_plain_cross_entropy():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    metrics = split_metrics("test", logits, torch.tensor([0, 1]))
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert metrics["test_loss"] == pytest.approx(expected, rel=1e-6)


def test_top5():
    logits = torch.arange(40.0).repeat(2, 1)
    metrics = split_metrics("test", logits, torch.tensor([35, 34]))
    assert metrics["test_top5_acc"] == 0.5
    assert metrics["test_acc"] == 0.0


def test_per_class_leaves_undefined_ratios_empty():
    table = per_class(LOGITS, LABELS, Task(("a", "b", "c", "d", "e")))
    assert table["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert table["d"] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    assert table["e"]["f1"] is None


@pytest.mark.parametrize(
    ("logits", "precision", "area"),
    [([18.0, 30.0, 25.0, -1.0], 1.0, 1.0), ([-200.0, -110.0, -120.0, -300.0], 1.0, 1.0), ([30.0] * 4, 0.5, 0.5)],
)
def test_far_logits_keep_their_order_and_equal_ones_stay_equal(logits: list[float], precision: float, area: float):
    scores, labels = torch.tensor(logits)[:, None], torch.tensor([0, 1, 1, 0])[:, None]
    made = split_metrics("test", scores, labels, METRICS_OF_SEVERAL)
    assert (made["test_map"], made["test_map_micro"], made["test_auc"]) == (precision, precision, area)
    assert pseudo_values(scores.numpy(), labels.numpy() > 0, np.arange(4)).mean() == pytest.approx(precision)
