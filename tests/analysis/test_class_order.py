"""The order of the classes in the figures, where no families give one."""

from __future__ import annotations

import numpy as np
import pytest

from sousa_bench.analysis.stats.class_order import by_similarity, class_order, confusions
from sousa_bench.data.rudiments import TASK
from sousa_bench.task import Task


def test_those_that_are_taken_for_each_other_lie_side_by_side() -> None:
    counts = np.diag([20] * 6)
    for one, other in ((0, 3), (1, 5), (2, 4)):
        counts[one, other] = counts[other, one] = 8
    order = by_similarity(counts)
    assert sorted(order) == list(range(6))
    assert {frozenset(order[number : number + 2]) for number in (0, 2, 4)} == {
        frozenset(pair) for pair in ((0, 3), (1, 5), (2, 4))
    }


def test_a_share_counts_and_not_a_number_of_clips() -> None:
    """Class 0 has many clips, and few of them are taken for 1; class 2 has few, and most are taken for 3."""
    counts = np.array([[960, 20, 0, 20], [0, 10, 0, 0], [0, 0, 2, 8], [0, 0, 0, 10]])
    order = by_similarity(counts)
    assert abs(order.index(2) - order.index(3)) == 1


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_without_confusions_they_stay_as_numbered(classes: int) -> None:
    assert by_similarity(np.diag(np.full(classes, 5))) == list(range(classes))


def test_a_class_without_a_clip_has_its_place() -> None:
    assert sorted(by_similarity(np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]]))) == [0, 1, 2]


def test_families_go_before_similarity_and_all_runs_count() -> None:
    label = np.array([0, 1, 2, 3])
    predicted = np.array([[2, 3, 0, 1], [2, 3, 0, 1]], dtype=np.int16)
    task = Task(("a", "b", "c", "d"))
    order = class_order(task, label, predicted)
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1
    families = {"d": "one", "a": "two", "b": "one", "c": "two"}
    assert class_order(Task(task.classes, families=families), label, predicted) == [3, 1, 0, 2]
    assert class_order(TASK, label, predicted) == [TASK.classes.index(name) for name in TASK.families]
    assert confusions(label, predicted[0], 4).tolist() == np.eye(4, dtype=int)[[2, 3, 0, 1]].tolist()
