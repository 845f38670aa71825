"""Which classes are taken for which, and an order of the classes in which those that are lie side by side.

Hierarchical clustering with average linkage, its leaves in the order of the least distance between neighbours
(Bar-Joseph, Gifford and Jaakkola 2001, Bioinformatics 17 Suppl. 1), from scipy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from sousa_bench.task import Task

TIE = 1e-6


def confusions(label: NDArray[np.int64], predicted: NDArray[np.int16], classes: int) -> NDArray[np.int64]:
    """(classes, classes): clips of each true class by predicted class."""
    return np.bincount(label * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_order(task: Task, label: NDArray[np.int64], predicted: NDArray[np.int16]) -> list[int]:
    """The classes' numbers as figures list them: family by family, else by similarity.

    Args:
        task: What was asked.
        label: True class of each clip, shape (clips,).
        predicted: By each run, shape (runs, clips); all of them count, so that their figures have one order.
    """
    if task.families:
        return [task.classes.index(name) for name in task.order]
    size = len(task.classes)
    return by_similarity(sum((confusions(label, row, size) for row in predicted), np.zeros((size, size), np.int64)))


def by_similarity(counts: NDArray[np.int64]) -> list[int]:
    """An order of the classes in which those that are taken for each other lie side by side; one for the same counts.

    Two classes are as similar as the mean of the shares of their clips that are taken for the other; between equals
    those are nearer whose numbers are. Of an order and its reverse, that one is taken that begins with the lower
    number.

    Args:
        counts: Clips of each true class by predicted class, shape (classes, classes).
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    number = np.arange(len(counts))
    alike = (shares + shares.T) / 2
    np.fill_diagonal(alike, 0)
    distance = alike.max() - alike + TIE * np.abs(number[:, None] - number)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance), "average", optimal_ordering=True)
    order: list[int] = leaves_list(tree).tolist()
    return order if order[0] <= order[-1] else order[::-1]
