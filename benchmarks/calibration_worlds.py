"""The worlds that `benchmarks.calibrate` simulates: what is true of methods, players, clips and trainings.

In training r of method i the clip k of player j is recognised with the probability

    1 / (1 + exp(-(a_i + player_j + taste_ij + clip_k + bias_ik + training_ir + mood_irj)))

so that methods share players and clips, a method's trainings share its taste and its bias, and each training adds a
luck of its own, in all and with each player. Every part is drawn anew in each study and is zero in the mean. ``a_i`` is
solved for such that the method's accuracy, over players, clips and trainings, is the one that the world states: what a
verdict on methods must hold for.

Where a clip may have several labels, a class that it has scores higher than one that it hasn't, in noise:

    (d_i + player_j + taste_ij + training_ir + mood_irj) * has_kc + noise_kc + noise_ikc + noise_irkc

and ``d_i`` is solved for such that the method's mean average precision, with endless clips, is the one that the world
states.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import expit, ndtr, ndtri
from sklearn.metrics import average_precision_score

from tests.analysis.synthetic import MODELS, STRATEGIES, Clips

CLIP, BIAS = 1.0, 0.5  # deviations between clips, on the logit scale
NOISE = (0.5, 0.2, 0.3)  # variances of scores: of the clip, of the method with it, of the training with it
LABELS = np.geomspace(0.05, 0.25, 8)  # share of the clips that have each class
VALIDATION = (10, 20)  # players that are not in the test, and clips of each
QUANTILES = 8192

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What is true, and what is measured of it. Deviations are in percentage points of accuracy.

    Attributes:
        name: What sets it apart within its group.
        group: A heading of the table.
        gains: Points that each method has more than the rest, from the first method; the others 0.
        accuracy: Accuracy of the rest.
        levels: Numbers of models, PEFT methods and settings of augmentation; their product are the methods.
        players: Players of the test clips.
        clips: Test clips, as evenly as possible, or ``uneven``: half of the players have four times as many.
        uneven: See ``clips``.
        seeds: Trainings of each method, in each fold.
        folds: Folds of a cross-validation, each with its own trainings; 0 for one test split.
        training: Deviation between trainings of one method; one number, or one a method in turn.
        player: Deviation between players.
        taste: Deviation between players in what one method gains over another.
        mood: Deviation between a training's players.
        skewed: Whether players have a long tail of the weak rather than a normal distribution.
        collapse: Share of players with whom the first method falls by ``fall`` points; its mean accuracy stays.
        fall: See ``collapse``.
        cost: How many of the table's studies one of this world counts for.
    """

    name: str
    group: str
    gains: tuple[float, ...] = ()
    accuracy: float = 0.6
    levels: tuple[int, int, int] = (3, 2, 1)
    players: int = 19
    clips: int = 2500
    uneven: bool = False
    seeds: int = 3
    folds: int = 0
    training: float | tuple[float, ...] = 2.0
    player: float = 8.0
    taste: float = 2.0
    mood: float = 1.0
    skewed: bool = False
    collapse: float = 0.0
    fall: float = 30.0
    cost: int = 1

    @property
    def key(self) -> str:
        """A name of its own."""
        return f"{self.group}: {self.name}"

    @cached_property
    def methods(self) -> list[tuple[str, str, bool]]:
        """Model, PEFT method and augmentation of each method."""
        models, strategies, settings = self.levels
        return list(itertools.product(MODELS[:models], STRATEGIES[:strategies], (True, False)[:settings]))

    @cached_property
    def truth(self) -> Array:
        """Accuracy of each method, shape (methods,)."""
        gains = np.zeros(len(self.methods))
        gains[: len(self.gains)] = self.gains
        return self.accuracy + gains / 100

    @cached_property
    def trainings(self) -> Array:
        """Deviation between trainings of each method, logits, shape (methods,)."""
        return np.resize(np.atleast_1d(self.training), len(self.methods)).astype(float) * self.logits

    @cached_property
    def logits(self) -> float:
        """Logits of a percentage point, at the world's accuracy and with its clips."""
        spread = np.hypot(CLIP, BIAS) * _normal(QUANTILES)
        middle = brentq(lambda place: expit(place + spread).mean() - self.accuracy, -20, 20)
        chance = expit(middle + spread)
        return float(0.01 / (chance * (1 - chance)).mean())

    @cached_property
    def intercepts(self) -> Array:
        """The ``a_i``, shape (methods,)."""
        return np.array([self._intercept(number) for number in range(len(self.methods))])

    def accuracy_of(self, method: int, place: Array | float) -> Array:
        """Accuracy over players and clips of trainings of ``method`` at ``place`` (``a_i`` plus luck, logits)."""
        return _curve(self, self.collapse > 0 and method == 0)(place)

    def _intercept(self, method: int) -> float:
        luck = self.trainings[method] * _normal(501)
        return float(brentq(lambda a: self.accuracy_of(method, a + luck).mean() - self.truth[method], -15, 15))

    def parts(self, collapsing: bool) -> list[Array]:
        """Quantiles of what varies beside the luck of a training."""
        player = -_exponential(QUANTILES) if self.skewed else _normal(QUANTILES)
        spread = [player * self.player, player * self.taste, _normal(QUANTILES) * self.mood]
        if collapsing:
            spread.append(np.where(np.arange(QUANTILES) < self.collapse * QUANTILES, -self.fall, 0.0))
        return [part * self.logits for part in spread] + [_normal(QUANTILES) * CLIP, _normal(QUANTILES) * BIAS]

    @cached_property
    def test_clips(self) -> Clips:
        """The clips of all players."""
        return Clips.make(self.players, self._sizes())

    def _sizes(self) -> NDArray[np.int64]:
        weights = np.resize([4.0, 1.0] if self.uneven else [1.0], self.players)
        return np.diff(np.round(np.cumsum([0, *weights]) / weights.sum() * self.clips)).astype(int)


@dataclass(frozen=True)
class SeveralLabels(World):
    """Clips that may have several of the classes; points are of mean average precision."""

    @cached_property
    def logits(self) -> float:
        """Distance of scores that makes a point, at the world's mean average precision."""
        middle = brentq(lambda place: _precision(place, 0.0) - self.accuracy, 0, 10)
        return float(0.02 / (_precision(middle + 1, 0.0) - _precision(middle - 1, 0.0)))

    def accuracy_of(self, method: int, place: Array | float) -> Array:
        """Mean average precision of trainings of ``method`` at ``place`` (``d_i`` plus luck)."""
        return _curve_of_precision(self)(place)


@dataclass(frozen=True)
class Study:
    """What one study saw.

    Attributes:
        hits: Whether each training of each method recognised each clip, shape (methods, seeds, clips); in a
            cross-validation a clip's trainings are those of its fold. With several labels a clip the scores, shape
            (methods, seeds, clips, classes).
        validation: Validation accuracy of each training, shape (methods, folds or 1, seeds).
        models: Accuracy over all players and clips of each training, shape (methods, folds or 1, seeds).
        labels: Which classes each clip has, shape (clips, classes), where it may have several; else None.
    """

    hits: NDArray[Any]
    validation: Array
    models: Array
    labels: NDArray[np.bool_] | None = None


def draw(world: World, rng: np.random.Generator) -> Study:
    """Draw one study: players, clips, trainings, and what was recognised."""
    groups, methods = max(world.folds, 1), len(world.methods)
    number_of = np.unique(world.test_clips.player, return_inverse=True)[1]
    luck = rng.normal(0, 1, (methods, groups, world.seeds)) * world.trainings[:, None, None]
    place = world.intercepts[:, None, None] + luck
    models = np.stack([world.accuracy_of(method, place[method]) for method in range(methods)])
    heard, clips = VALIDATION
    there = np.repeat(np.arange(heard), clips)
    if isinstance(world, SeveralLabels):
        labels, scores = _scores(world, number_of, place, number_of % groups, rng)
        tried = [_scores(world, there, place, np.full(len(there), group), rng) for group in range(groups)]
        validation = [[[mean_precision(one, has) for one in seeds] for seeds in some] for has, some in tried]
        return Study(scores, np.stack(validation, axis=1), models, labels)
    chance = _chances(world, number_of, place, number_of % groups, rng)
    validation = [_chances(world, there, place, np.full(len(there), group), rng) for group in range(groups)]
    right = [(rng.random(one.shape) < one).mean(axis=-1) for one in validation]
    return Study(rng.random(chance.shape) < chance, np.stack(right, axis=1), models)


def mean_precision(scores: Array, labels: NDArray[np.bool_]) -> float:
    """Mean average precision of scores (clips, classes), by the library."""
    return float(average_precision_score(labels, scores, average="macro"))


def _chances(
    world: World, player: NDArray[np.int64], place: Array, group: NDArray[np.int64], rng: np.random.Generator
) -> Array:
    """Chance that each clip is recognised, shape (methods, seeds, clips); arguments as ``_strengths``."""
    clip = rng.normal(0, CLIP, len(player)) + rng.normal(0, BIAS, (len(place), len(player)))
    chances: Array = expit(_strengths(world, player, place, group, rng) + clip[:, None, :])
    return chances


def _scores(
    world: World, player: NDArray[np.int64], place: Array, group: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels (clips, classes) and scores (methods, seeds, clips, classes); arguments as ``_strengths``."""
    strengths = _strengths(world, player, place, group, rng)
    labels = rng.random((len(player), len(LABELS))) < LABELS
    methods, seeds, _ = strengths.shape
    shapes = ((1, 1, *labels.shape), (methods, 1, *labels.shape), (methods, seeds, *labels.shape))
    noise = sum(rng.normal(0, share**0.5, shape) for share, shape in zip(NOISE, shapes, strict=True))
    return labels, (strengths[..., None] * labels + noise).astype(np.float32)


def _strengths(
    world: World, player: NDArray[np.int64], place: Array, group: NDArray[np.int64], rng: np.random.Generator
) -> Array:
    """How well each training knows the player of each clip, shape (methods, seeds, clips), by players drawn here.

    Args:
        world: The world.
        player: Player of each clip, shape (clips,).
        place: ``a_i`` plus luck, shape (methods, groups, seeds).
        group: Which of the groups' trainings hears each clip, shape (clips,).
        rng: Draws.
    """
    methods, _, seeds = place.shape
    count = int(player.max()) + 1
    skill = _people(world, (count,), rng) * world.player
    taste = _people(world, (methods, count), rng) * world.taste
    if world.collapse:
        taste[0] -= world.fall * (rng.random(count) < world.collapse)
    mood = rng.normal(0, world.mood, (methods, seeds, count))
    people = (skill + taste)[:, None, :] + mood
    strengths: Array = people[..., player] * world.logits + np.moveaxis(place[:, group], 1, 2)
    return strengths


def _people(world: World, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return 1 - rng.exponential(1, shape) if world.skewed else rng.normal(0, 1, shape)


def _normal(count: int) -> Array:
    """Quantiles of the standard normal distribution."""
    values: Array = ndtri((np.arange(count) + 0.5) / count)
    return values


def _exponential(count: int) -> Array:
    """Quantiles of the exponential distribution, less its mean."""
    values = -np.log1p(-(np.arange(count) + 0.5) / count)
    return values - values.mean()


@lru_cache(maxsize=8)
def _curve(world: World, collapsing: bool) -> CubicSpline:
    """Accuracy against ``a_i`` plus luck: the mean over all that else varies, from shuffled quantiles of each part."""
    rng = np.random.default_rng(0)
    total = np.sum([rng.permutation(part) for part in world.parts(collapsing)], axis=0)
    places = np.linspace(-16, 16, 641)
    return CubicSpline(places, [expit(place + total).mean() for place in places])


@lru_cache(maxsize=8)
def _curve_of_precision(world: SeveralLabels) -> CubicSpline:
    """Mean average precision against ``d_i`` plus luck, over players."""
    spread = float(np.hypot(np.hypot(world.player, world.taste), world.mood)) * world.logits
    places = np.linspace(-8, 16, 481)
    return CubicSpline(places, [_precision(place, spread) for place in places])


def _precision(place: float, spread: float) -> float:
    """Mean average precision with endless clips, where scores of what a clip has lie ``place`` ± ``spread`` higher."""
    width = np.hypot(1, spread)
    at = place + width * _normal(QUANTILES)
    found, others = LABELS[:, None] * ndtr((place - at) / width), (1 - LABELS[:, None]) * ndtr(-at)
    return float((found / (found + others)).mean())


def _world(
    group: str,
    size: tuple[int, int],
    seeds: int = 3,
    training: float = 2.0,
    more: str = "",
    kind: type[World] = World,
    **rest: Any,
) -> World:
    players, clips = size
    name = f"{players} players, {clips:,} clips; {seeds} seed{'s' * (seeds > 1)}; training ± {training:g}"
    made = {"players": players, "clips": clips, "seeds": seeds, "training": training, **rest}
    return kind(name + (f"; {more}" if more else ""), group, **made)


FEW, SOME, MANY = (8, 400), (19, 2500), (50, 400)
SIZES = (FEW, SOME, MANY)
EQUAL, BETTER, SEVERAL = "Six equal methods", "One method better than five equal ones", "Six methods that all differ"
LARGE, FOLDS, FACTORS = "24 methods", "Five folds", "3 × 2 × 2 factors"
LABELLED = "Mean average precision of eight classes, six methods"
ACCURACIES, PLAYERS = "Other accuracies, six equal methods", "Other players and trainings, six equal methods"
UP_TO_98 = "Six methods from 0.60 to 0.98"
POOLED = {"folds": 5, "cost": 2}
RARE = {"player": 2.0, "taste": 0.5, "mood": 0.25}
GAINS_UP_TO_98 = (38, 36, 30, 20, 10)
TRAININGS_UP_TO_98: dict[str, tuple[float, ...]] = {
    "± 2 at 0.60, ± 0.2 at 0.98": (2.0,),  # alike on the logit scale
    "± 2 at 0.60, ± 0.6 at 0.98": (5.8, 4.3, 3.0, 2.4, 2.2, 2.1),  # in units of the root of p (1 - p)
    "± 1 at 0.60, ± 1 at 0.98": (9.9, 5.4, 2.5, 1.5, 1.2, 1.0),  # in points
}
"""``World.training`` of methods with these gains: on the logit scale, what makes so many points at 0.60."""
FIVE_AT_98 = {name: (*each[:1] * 5, each[-1]) for name, each in TRAININGS_UP_TO_98.items() if len(each) > 1}

WORLDS: tuple[World, ...] = (
    *(_world(EQUAL, size, seeds) for size in SIZES for seeds in (1, 2, 3, 5)),
    *(_world(EQUAL, size, seeds, 0.0) for size in SIZES for seeds in (1, 3)),
    *(_world(EQUAL, size, 3, training) for size in (SOME, MANY) for training in (0.7, 4.0)),
    *(_world(EQUAL, size) for size in ((8, 2500), (19, 400), (50, 2500))),
    *(_world(BETTER, size, more=f"by {gain}", gains=(gain,), cost=2) for size in SIZES for gain in (1, 2, 5)),
    *(_world(BETTER, size, 3, 0.7, "by 2", gains=(2,), cost=2) for size in (SOME, MANY)),
    *(_world(BETTER, SOME, seeds, more="by 5", gains=(5,), cost=2) for seeds in (1, 5)),
    _world(SEVERAL, SOME, more="by 1 each", gains=(5, 4, 3, 2, 1)),
    _world(LARGE, MANY, 1, 0.0, "equal", levels=(4, 3, 2)),
    _world(LARGE, SOME, more="equal", levels=(4, 3, 2), cost=2),
    _world(LARGE, SOME, more="one better by 5", levels=(4, 3, 2), gains=(5,), cost=2),
    _world(FOLDS, (100, 10_000), 1, more="equal", **POOLED),
    _world(FOLDS, (100, 10_000), 3, more="equal", **POOLED),
    _world(FOLDS, (100, 10_000), 3, more="one better by 2", gains=(2,), **POOLED),
    _world(FACTORS, SOME, more="equal", levels=(3, 2, 2)),
    _world(FACTORS, MANY, more="one model better by 3", levels=(3, 2, 2), gains=(3, 3, 3, 3)),
    _world(ACCURACIES, SOME, 3, 0.5, "accuracy 0.05", accuracy=0.05, **RARE),
    _world(ACCURACIES, SOME, 3, 2.0, "accuracy 0.50", accuracy=0.5),
    _world(ACCURACIES, SOME, 3, 0.5, "accuracy 0.95", accuracy=0.95, **RARE),
    _world(ACCURACIES, SOME, 3, 0.2, "accuracy 0.99", accuracy=0.99, player=0.5, taste=0.2, mood=0.1),
    *(_world(PLAYERS, size, more="skewed players", skewed=True) for size in SIZES),
    *(_world(PLAYERS, size, more="one method collapses for 1 in 3 players", collapse=1 / 3) for size in SIZES),
    _world(PLAYERS, SOME, more="half of the players have 4 times the clips", uneven=True),
    World(
        "19 players, 2,500 clips; 3 seeds; training ± 4 of one method, ± 1 of the others",
        PLAYERS,
        training=(4, 1, 1, 1, 1, 1),
    ),
    *(
        World(
            f"{players} players, {clips:,} clips; 3 seeds; training {name}{more}",
            UP_TO_98,
            gains,
            players=players,
            clips=clips,
            training=training,
        )
        for gains, trainings, more in (
            (GAINS_UP_TO_98, TRAININGS_UP_TO_98, ""),
            ((38,) * 5, FIVE_AT_98, "; five at 0.98, one at 0.60"),
        )
        for players, clips in (SOME, MANY)
        for name, training in trainings.items()
    ),
    _world(UP_TO_98, (100, 10_000), 1, 2.0, "five folds", gains=GAINS_UP_TO_98, **POOLED),
    *(_world(LABELLED, size, more="equal", kind=SeveralLabels, cost=2) for size in SIZES),
    _world(LABELLED, SOME, 1, more="equal", kind=SeveralLabels),
    _world(LABELLED, SOME, more="one method better by 5", kind=SeveralLabels, gains=(5,), cost=2),
    _world(LABELLED, SOME, more="from 0.60 to 0.98", kind=SeveralLabels, gains=GAINS_UP_TO_98, cost=2),
    _world(LABELLED, (100, 5000), more="equal; five folds", kind=SeveralLabels, folds=5, cost=4),
)
