"""Logistic regression with an L2 penalty, solved to its minimum for several strengths of the penalty.

Multinomial where a clip has one label; where it may have several, a binary one of each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

GRADIENT = 1e-7
"""Largest norm of the gradient at a minimum, in the coordinates of the solver."""
WIDE = 5120
"""Columns above which the principal axes of fewer clips are found by way of the clips, in the cube of their number.

No last layer alone takes more (EfficientAT mn40's takes as many), so that each ``peft.reads=last`` keeps its bits."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """The linear layer for one strength of the penalty.

    Attributes:
        l2: The strength.
        weight: (classes, features).
        bias: (classes,).
        steps: Newton steps that it took.
        converged: Whether they led to the minimum.
    """

    l2: float
    weight: Array
    bias: Array
    steps: int
    converged: bool

    def logits(self, features: Array) -> Array:
        """(clips, features) → (clips, classes)."""
        return features @ self.weight.T + self.bias

    def loss(self, features: Array, labels: NDArray[np.int64]) -> float:
        """Mean cross-entropy in nats; with several labels a clip, (clips, classes), the mean of the binary ones."""
        if labels.ndim > 1:
            return float(_binary_losses(self.logits(features), labels).mean())
        chances: Array = log_softmax(self.logits(features), axis=1)
        return -float(chances[np.arange(len(labels)), labels].mean())


def solutions(
    features: Array, labels: NDArray[np.int64], classes: int, strengths: Sequence[float]
) -> Iterator[Solution]:
    """Minimise mean cross-entropy + l2 / 2 · ‖weights of the standardised features‖² for each strength.

    With several labels a clip it is the sum of the classes' binary cross-entropies, so that each class is as if alone.

    The strongest comes first, and each starts from the one before. The bias has no penalty. A trust region with
    conjugate gradients inside (Steihaug 1983) works in the features' principal axes, each scaled by its curvature at
    equal chances: a tenth of the steps that it takes without.

    Args:
        features: (clips, features).
        labels: (clips,); (clips, classes) of 0 and 1 where a clip may have several.
        classes: Number of classes.
        strengths: Of the penalty, above 0.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    scale = np.where(deviation > 1e-9 * deviation.max(initial=0.0), deviation, np.inf)  # a constant one says nothing
    rows = (features - mean) / scale
    spread, axes = _principal_axes(rows)
    rotated = rows @ axes
    del rows
    rotated = np.column_stack([rotated, np.ones(len(rotated))])
    kind, equal = (_BinaryProblem, 4) if labels.ndim > 1 else (_Problem, classes)
    found: Array = np.zeros((classes, rotated.shape[1]))
    for l2 in sorted(strengths, reverse=True):
        curvature = np.sqrt(np.append(spread / equal + l2, 1 / equal))
        problem = kind(rotated / curvature, labels, np.append(np.full(len(spread), l2), 0.0) / curvature**2)
        solved = minimize(
            problem.loss,
            (found * curvature).ravel(),
            jac=True,
            hessp=problem.curved,
            method="trust-ncg",
            options={"gtol": GRADIENT},
        )
        found = solved.x.reshape(classes, -1) / curvature
        weight = found[:, :-1] @ axes.T / scale
        del problem  # a copy of the rows, before the next one's is made
        yield Solution(l2, weight, found[:, -1] - weight @ mean, int(solved.nit), bool(solved.success))


def _principal_axes(rows: Array) -> tuple[Array, Array]:
    """Variances along the principal axes of standardised rows, ascending, and the axes (columns, axes) themselves."""
    if rows.shape[1] > max(len(rows), WIDE):
        _, lengths, across = np.linalg.svd(rows, full_matrices=False)
        spread, axes = lengths[::-1] ** 2 / len(rows), across[::-1].T
    else:
        spread, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    told_apart = spread > 1e-12 * spread[-1]
    return spread[told_apart], axes[:, told_apart]


class _Problem:
    """What is minimised, as SciPy asks for it: the unknowns are (classes, columns of the rows), flat."""

    def __init__(self, rows: Array, labels: NDArray[np.int64], penalty: Array) -> None:
        self.rows = rows
        self.penalty = penalty
        self._own = (np.arange(len(rows)), labels)
        self._place: bytes = b""
        self._chances: Array = np.zeros(0)

    def loss(self, flat: Array) -> tuple[float, Array]:
        """The loss and its gradient."""
        unknown = flat.reshape(-1, self.rows.shape[1])
        logs: Array = log_softmax(self.rows @ unknown.T, axis=1)
        wrong = np.exp(logs)
        wrong[self._own] -= 1
        slope = wrong.T @ self.rows / len(self.rows) + self.penalty * unknown
        return float((self.penalty * unknown**2).sum() / 2 - logs[self._own].mean()), slope.ravel()

    def curved(self, flat: Array, direction: Array) -> Array:
        """The Hessian times a direction."""
        if self._place != flat.tobytes():  # many directions are asked for at one place
            unknown = flat.reshape(-1, self.rows.shape[1])
            self._place, self._chances = flat.tobytes(), np.exp(log_softmax(self.rows @ unknown.T, axis=1))
        along = direction.reshape(-1, self.rows.shape[1])
        change = self._chances * (self.rows @ along.T)
        change -= self._chances * change.sum(axis=1, keepdims=True)
        curved: Array = (change.T @ self.rows / len(self.rows) + self.penalty * along).ravel()
        return curved


class _BinaryProblem(_Problem):
    """The same with a binary logistic regression of each class, all solved at once."""

    def __init__(self, rows: Array, labels: NDArray[np.int64], penalty: Array) -> None:
        super().__init__(rows, labels, penalty)
        self._labels = labels

    def loss(self, flat: Array) -> tuple[float, Array]:
        """The loss and its gradient."""
        unknown = flat.reshape(-1, self.rows.shape[1])
        logits: Array = self.rows @ unknown.T
        slope = (expit(logits) - self._labels).T @ self.rows / len(self.rows) + self.penalty * unknown
        loss = _binary_losses(logits, self._labels).sum() / len(self.rows)
        return float((self.penalty * unknown**2).sum() / 2 + loss), slope.ravel()

    def curved(self, flat: Array, direction: Array) -> Array:
        """The Hessian times a direction."""
        unknown, along = (each.reshape(-1, self.rows.shape[1]) for each in (flat, direction))
        chances = expit(self.rows @ unknown.T)
        change = chances * (1 - chances) * (self.rows @ along.T)
        curved: Array = (change.T @ self.rows / len(self.rows) + self.penalty * along).ravel()
        return curved


def _binary_losses(logits: Array, labels: NDArray[np.int64]) -> Array:
    """(clips, classes) in nats."""
    losses: Array = np.logaddexp(0, logits) - labels * logits
    return losses
