"""Sample size: how small a difference of two methods a test finds, and how many seeds or players it takes to find one.

The variance of a difference comes from the players, from the trainings, and from what a training does better with some
players' clips than with others. The first shrinks with players alone, the second with trainings alone, the third with
both (variance components: Searle, Casella and McCulloch 1992). Degrees of freedom follow from the parts as in the
intervals (Satterthwaite 1946, Biometrics Bulletin 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtrit

POWER = 0.8
LEVEL = 0.95
MOST_SEEDS = 100
MOST_PLAYERS = 10_000
ASSUMED_LUCK = 0.007
"""Standard deviation between trainings of one method where none was repeated: that of ``experiment=comparison``."""


@dataclass(frozen=True)
class Design:
    """What is compared on what.

    Attributes:
        players: Players of the test clips, over all folds.
        seeds: Trainings of each method on each fold.
        folds: Folds of a cross-validation; 1 where there is none.
        methods: Methods whose trainings tell the training luck.
        known_dof: Degrees of freedom with which it is known already, from whatever trainings.
    """

    players: int
    seeds: int
    folds: int = 1
    methods: int = 2
    known_dof: int = 0

    @property
    def training_dof(self) -> int:
        """Degrees of freedom of the training luck; 0: it stays unknown, so the verdict is on trained models."""
        if self.seeds > 1:
            return max(self.methods * self.folds * (self.seeds - 1), self.known_dof)
        return max((self.methods - 1) * (self.folds - 1), self.known_dof)


@dataclass(frozen=True)
class Components:
    """Variances of the difference of two methods' accuracies.

    Attributes:
        player: Between players, of whom each has some clips; what no further training changes.
        training: Between trainings: the variance between the accuracies of one method's trainings, summed over the two.
        both: Of one training of either method with one player's clips.
    """

    player: float
    training: float
    both: float = 0.0

    def parts(self, design: Design) -> tuple[float, float]:
        """The variance over players and that over trainings; the second is 0 where the verdict is on trained models."""
        over_players = self.player / design.players + self.both / design.players / design.seeds
        return over_players, self.training / design.seeds / design.folds if design.training_dof else 0.0

    def error(self, design: Design) -> float:
        """Standard error of the difference."""
        return float(sum(self.parts(design)) ** 0.5)

    def least(self, design: Design, quantile: float | None = None) -> float:
        """The smallest true difference that is found with ``POWER``.

        Args:
            design: What is compared on what.
            quantile: Standard errors that a difference must exceed where that is more than t's; None: a single
                comparison.
        """
        players, trainings = self.parts(design)
        dof = float(design.players - 1)
        if trainings:
            seen = trainings + self.both / design.players / design.seeds
            dof = (players + trainings) ** 2 / (players**2 / dof + seen**2 / design.training_dof)
        must = max(float(stdtrit(dof, (1 + LEVEL) / 2)), quantile or 0.0)
        return (must + float(stdtrit(dof, POWER))) * self.error(design)

    def seeds_for(self, difference: float, design: Design, quantile: float | None = None) -> int | None:
        """The smallest number of seeds that finds a difference between methods; None: more than ``MOST_SEEDS``."""
        start = 1 if design.folds > 1 else 2
        return _first(lambda seeds: self.least(replace(design, seeds=seeds), quantile) <= difference, start, MOST_SEEDS)

    def players_for(self, difference: float, design: Design, quantile: float | None = None) -> int | None:
        """The smallest number of players, with as many clips each; None: more than ``MOST_PLAYERS``."""
        return _first(
            lambda players: self.least(replace(design, players=players), quantile) <= difference, 2, MOST_PLAYERS
        )


@dataclass(frozen=True)
class Contrast:
    """Variances of a difference to be expected before any training, of a single player and a single clip.

    Attributes:
        name: What is compared.
        player: Between players' true differences.
        clip: Between a player's clips; what no further training changes.
        both: Of one training of either with one clip.
    """

    name: str
    player: float
    clip: float
    both: float

    def components(self, sizes: Sequence[int], luck: float = ASSUMED_LUCK) -> Components:
        """The components on test clips of which each player has a number.

        Args:
            sizes: Clips of each player; players of many clips weigh more, so they count for fewer.
            luck: Standard deviation between the accuracies of one method's trainings.
        """
        players, clips = len(sizes), sum(sizes)
        uneven = players * sum(size**2 for size in sizes) / clips**2
        return Components(self.player * uneven + self.clip * players / clips, 2 * luck**2, self.both * players / clips)


CONTRASTS = (
    Contrast("two methods of one model", 0.02**2, 0.01, 0.05),
    Contrast("two models", 0.065**2, 0.165, 0.115),
)
"""Measured on ``data=synthetic``: LoRA and IA3 of BEATs and EfficientAT, three seeds (docs/data.md)."""


def _first(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from ``low`` to ``high`` that is enough, where all above it are."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
