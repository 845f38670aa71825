"""Training luck: how far the trainings of one method differ from each other, apart from the clips they are tested on.

Two things vary when a method is tried: who plays the test clips, and how a training falls out (its first weights, the
order of its clips, the clips it learns from). The variance between repeated trainings is pooled over the combinations
of a cohort, as a multiple of p (1 - p), where p is the combination's accuracy: a method that is nearly always right can
vary less than one that is right half the time. What clips and players alone would make of it is taken off: the part by
which trainings differ on some players and not on others, which the variance between players holds already (the two-way
clustering of Cameron, Gelbach and Miller 2011, Journal of Business & Economic Statistics 29).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sousa_bench.results.player_variance import cluster_weights

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Luck:
    """The variance that training luck adds to some estimates (accuracies, differences, contrasts).

    Attributes:
        raw: Variance between trainings as seen, of each estimate, shape (estimates,).
        noise: The part of it that clips and players make, shape (estimates,).
        dof: Degrees of freedom behind ``raw``; 0 where nothing is known of the luck.
        feared: The variance between the method's own trainings where that is more than ``raw``, else ``raw``.
    """

    raw: Array
    noise: Array
    dof: int
    feared: Array

    @staticmethod
    def none(estimates: int) -> Luck:
        """For statements about trained models, whose luck is part of them."""
        return Luck(np.zeros(estimates), np.zeros(estimates), 0, np.zeros(estimates))

    @property
    def cautious(self) -> Luck:
        """With ``feared`` in place of ``raw``: for intervals of accuracies, and for families of comparisons."""
        return replace(self, raw=self.feared)

    @property
    def variance(self) -> Array:
        """What is added to the variance over players, shape (estimates,)."""
        return np.maximum(self.raw - self.noise, 0.0)

    def part(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Luck:
        """Of some of the estimates, by number or by mask."""
        return Luck(self.raw[chosen], self.noise[chosen], self.dof, self.feared[chosen])

    def of(self, coefficients: Array) -> Luck:
        """Of sums of the estimates, which come from trainings of their own.

        Args:
            coefficients: Shape (sums, estimates).
        """
        squared = coefficients**2
        return Luck(squared @ self.raw, squared @ self.noise, self.dof, squared @ self.feared)

    def draws(self, rng: np.random.Generator, count: int) -> Array:
        """Drawn luck of each estimate, shape (count, estimates), as uncertain as ``dof`` leaves its size."""
        if not self.dof:
            return np.zeros((count, len(self.feared)))
        size = self.dof / rng.chisquare(self.dof, (count, 1))
        drawn: Array = np.sqrt(np.maximum(self.feared * size - self.noise, 0.0))
        drawn *= rng.standard_normal(drawn.shape)
        return drawn


@dataclass(frozen=True)
class TrainingLuck:
    """What a cohort's repeated trainings show.

    Attributes:
        raw: Variance between the accuracies of one method's trainings on the same clips, pooled, in units.
        noise: The part of it that clips and players make, in units.
        dof: Degrees of freedom; 0: no training was repeated, so nothing is known.
        units: The unit of each combination, by its row: ``unit`` of its accuracy, 0 where chance has no part in it.
        own: The variance within one combination alone, by its row, in units.
        source: ``seeds`` or ``folds``; empty: nothing is known.
    """

    raw: float = 0.0
    noise: float = 0.0
    dof: int = 0
    units: Mapping[int, float] = field(default_factory=dict)
    own: Mapping[int, float] = field(default_factory=dict)
    source: str = ""

    def deviation(self, index: int) -> float:
        """Standard deviation of the accuracies that trainings of a combination would have on endless clips."""
        return float(np.sqrt(self.of([index], [1]).variance[0]))

    def of(self, indices: Sequence[int], trainings: Sequence[float]) -> Luck:
        """The luck in mean accuracies.

        The variance is the cohort's; what is feared is a method's own where its trainings differ by more, so that one
        whose trainings scatter is not judged by the calm of the others.

        Args:
            indices: Rows of the combinations.
            trainings: Number of trainings that each mean is over.
        """
        if not self.dof:
            return Luck.none(len(indices))
        own = np.array([self.own.get(index, self.raw) for index in indices])
        share = np.array([self.units[index] for index in indices]) / np.asarray(trainings, float)
        return Luck(self.raw * share, self.noise * share, self.dof, np.maximum(self.raw, own) * share)


@dataclass(frozen=True)
class Repeats:
    """Trainings of one combination, tested on the same clips.

    Attributes:
        index: The combination's row.
        clip_set: Number of the set of clips.
        totals: Right clips by training and player, shape (trainings, players).
        sizes: Clips of each player, shape (players,); with several labels a clip, parts of the score.
        clips: All clips.
        seedless: Whether the method is one that no seed changes.
    """

    index: int
    clip_set: int
    totals: Array
    sizes: Array
    clips: int
    seedless: bool = False

    @property
    def varies(self) -> bool:
        """Whether its trainings differ."""
        return bool((self.totals != self.totals[0]).any())


def unit(accuracy: float, clips: float) -> float:
    """What the variance between trainings is a multiple of: p (1 - p).

    The accuracy is moved off 0 and 1 by half a clip, so that a perfect one has a unit, too.
    """
    inside = (accuracy * clips + 0.5) / (clips + 1)
    return inside * (1 - inside)


def training_luck(cells: Sequence[Repeats]) -> TrainingLuck:
    """From seeds where any combination has several, else from how folds and combinations go together.

    With one training a fold, a fold may be hard for all, but what one combination does better in one fold than
    in another, beyond what its players explain, is its trainings' luck.

    Args:
        cells: The trainings of each combination of a cohort on each set of clips.
    """
    units = _units(cells)
    still = {cell.index for cell in cells if cell.seedless} - {cell.index for cell in cells if cell.varies}
    # A method without chance in it (a linear solver) says nothing of the others.
    cells = [cell for cell in cells if cell.index not in still] or list(cells)
    cells = [replace(cell, totals=cell.totals / units[cell.index] ** 0.5) for cell in cells]
    several = [cell for cell in cells if len(cell.totals) > 1]
    varying = [cell for cell in several if cell.varies]
    if len(several) == len(cells):
        varying = varying or several  # nothing varies, so there is no chance in any of them
    if varying:
        parts = [(cell.index, *_spread(cell.totals, cell.sizes), len(cell.totals) - 1) for cell in varying]
        own: dict[int, list[tuple[float, int]]] = {}
        for index, raw, _, dof in parts:
            own.setdefault(index, []).append((raw, dof))
        return TrainingLuck(
            *_pooled([part[1:] for part in parts]),
            units | dict.fromkeys(still, 0.0),
            {index: sum(raw * dof for raw, dof in some) / sum(dof for _, dof in some) for index, some in own.items()},
            "seeds",
        )
    folds = list(_by_fold(cells))
    if len(folds) < 2:
        return TrainingLuck(units=units)
    accuracy = np.stack([fold.sum(axis=1) / sizes.sum() for fold, sizes in folds])
    residual = accuracy - accuracy.mean(axis=0) - accuracy.mean(axis=1, keepdims=True) + accuracy.mean()
    dof = (accuracy.shape[0] - 1) * (accuracy.shape[1] - 1)
    noise = float(np.mean([_spread(fold, sizes)[1] for fold, sizes in folds]))
    return TrainingLuck(float((residual**2).sum()) / dof, noise, dof, units, {}, "folds")


def _units(cells: Sequence[Repeats]) -> dict[int, float]:
    """The unit of each combination, by the accuracy of all its trainings."""
    sums: dict[int, Array] = {}
    for cell in cells:
        accuracy = cell.totals.mean(axis=0).sum() / cell.sizes.sum()
        sums[cell.index] = sums.get(cell.index, np.zeros(2)) + cell.clips * np.array([accuracy, 1.0])
    return {index: unit(right / clips, clips) for index, (right, clips) in sums.items()}


def _by_fold(cells: Sequence[Repeats]) -> Iterator[tuple[Array, Array]]:
    """Totals (combinations, players) and clips of each player, of the sets that all combinations have."""
    by_set: dict[int, list[Repeats]] = {}
    for cell in cells:
        by_set.setdefault(cell.clip_set, []).append(cell)
    whole = len({cell.index for cell in cells})
    if whole > 1:
        for some in by_set.values():
            if len(some) == whole and len(some[0].sizes) > 1:
                yield np.concatenate([cell.totals[:1] for cell in some]), some[0].sizes


def _spread(totals: Array, sizes: Array) -> tuple[float, float]:
    """Variance between the accuracies of the rows, and the part of it that clips and players make."""
    accuracy = totals.sum(axis=1) / sizes.sum()
    raw = float(accuracy.var(ddof=1))
    if len(sizes) < 2:
        return raw, 0.0
    rest = totals - totals.mean(axis=0) - np.outer(accuracy - accuracy.mean(), sizes)
    return raw, float((rest**2 * cluster_weights(sizes)).sum()) / (len(totals) - 1)


def _pooled(parts: Sequence[tuple[float, float, int]]) -> tuple[float, float, int]:
    """Raw variance and noise, weighted by degrees of freedom, and these in all."""
    raw, noise, dof = np.array(parts).T
    return float((raw * dof).sum() / dof.sum()), float((noise * dof).sum() / dof.sum()), int(dof.sum())
