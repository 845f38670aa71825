"""What a cohort's tests reach: the smallest difference that they find, and what would let them find a smaller one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.stats.comparisons import Measured, pair_of
from sousa_bench.analysis.stats.sample_size import ASSUMED_LUCK, Components, Design
from sousa_bench.analysis.study import Study

DIFFERENCES = (0.01, 0.02, 0.05)
FOLDS = 5


@dataclass(frozen=True)
class Reach:
    """What the tests of one cohort reach, for the leader against those that can't be told from it.

    Attributes:
        cohort: Its letter.
        components: Of the difference between the leader and another, the mean over those it is compared with.
        design: What was compared on what.
        quantile: Standard errors that a difference must exceed to be clear among all comparisons; NaN: unknown.
        known: Whether training luck was measured, or is assumed (``ASSUMED_LUCK``).
        everyone: Players of the data, those of the training and validation clips among them; 0: unknown.
    """

    cohort: str
    components: Components
    design: Design
    quantile: float
    known: bool
    everyone: int

    @property
    def cross_validated(self) -> Design | None:
        """A cross-validation in place of one split, so that every player is tested; None where it is one already."""
        if self.design.folds > 1 or self.everyone < max(FOLDS, self.design.players + 1):
            return None
        return replace(self.design, players=self.everyone, folds=FOLDS)

    def seeds(self, difference: float, quantile: float | None = None) -> int | None:
        """Seeds that find a difference with these players."""
        return self.components.seeds_for(difference, self.design, quantile)

    def players(self, difference: float, quantile: float | None = None) -> int | None:
        """Players that find a difference with these seeds; None, too, where the trainings' luck stays unknown."""
        return self.components.players_for(difference, self.design, quantile) if self.design.training_dof else None

    def seeds_in_folds(self, difference: float, quantile: float | None = None) -> int | None:
        """Seeds of each fold that find a difference with every player of the data."""
        design = self.cross_validated
        return None if design is None else self.components.seeds_for(difference, design, quantile)

    def cheapest_first(self, margin: float, fresh: bool) -> list[str]:
        """``seeds``, ``players`` and ``folds`` by the trainings that each needs to find a difference of ``margin``.

        Where no training was repeated, seeds come first: without them no verdict is on methods.

        Args:
            margin: Difference of accuracies.
            fresh: Whether there are other players without another training.
        """
        if not self.known:
            return ["seeds", "players", "folds"]
        seeds, folds = self.seeds(margin, self.quantile), self.seeds_in_folds(margin, self.quantile)
        cost = {
            "seeds": seeds - self.design.seeds if seeds else inf,
            "players": 0 if fresh and self.players(margin, self.quantile) else inf,
            "folds": FOLDS * folds if folds else inf,
        }
        return sorted(cost, key=lambda name: cost[name])

    def enough(self, margin: float) -> bool:
        """Whether a difference of ``margin`` is found as it is."""
        return self.known and self.components.least(self.design, self.quantile) <= margin

    def rows(self) -> list[dict[str, Any]]:
        """What it takes to find each of ``DIFFERENCES``: of one comparison alone, and among all."""
        asked = {"seeds": self.seeds, "players": self.players, "seeds_in_folds": self.seeds_in_folds}
        quantiles = {"": None, "_all": self.quantile}
        return [
            {"difference": size}
            | {
                f"{key}{kind}": number(size, quantile)
                for kind, quantile in quantiles.items()
                for key, number in asked.items()
            }
            for size in DIFFERENCES
        ]


def reaches(study: Study) -> Iterator[Reach]:
    """The reach of each cohort that has a leader with another beside it and intervals between them."""
    for cohort in dict.fromkeys(study.combinations["cohort"]):
        rows = study.combinations[study.combinations["cohort"] == cohort]
        if (found := _reach(study, str(cohort), rows)) is not None:
            yield found


def _reach(study: Study, cohort: str, rows: pd.DataFrame) -> Reach | None:
    ranked = best_first(rows, "test_acc")
    leader, *others = ranked.to_dict("records")
    rivals = [row for row in others if row["best_set"]] or others[:1]
    pairs = [pair_of(study.pairs, cohort, leader["combination"], row["combination"]) for row in rivals]
    found = [pair for pair in pairs if pair is not None and pair["simultaneous_high"] == pair["simultaneous_high"]]
    if not found:
        return None
    luck = study.luck[cohort]
    measured = _measured(study)
    own = {str(name): measured.get(index) for name, index in zip(rows["combination"], rows.index, strict=True)}
    parts = [_components(study, cohort, pair, own) for pair in found]
    pair = found[0]
    folds = max(int(pair["folds"]), 1)
    players = int(pair["players"])
    player, training, both = np.mean(parts, axis=0)
    half = [(pair["simultaneous_high"] - pair["difference"]) / pair["error"] for pair in found if pair["error"] > 0]
    return Reach(
        cohort,
        Components(float(player), float(training), float(both)),
        Design(players, max(int(min(pair["seeds_first"], pair["seeds_second"])), 1), folds, len(rows), luck.dof),
        float(np.mean(half)) if half else np.nan,
        bool(luck.dof),
        _everyone(study, leader),
    )


def _measured(study: Study) -> dict[int, Measured]:
    """Each combination on the clips where it meets most runs, by its row."""
    return {item.index: item for shared in reversed(study.shared_clips) for item in shared.measured}


def _components(
    study: Study, cohort: str, pair: Mapping[str, Any], measured: Mapping[str, Measured | None]
) -> tuple[float, float, float]:
    """A comparison's variances, as ``Components`` has them: of one player, of one training of each, of both.

    Where trainings were not repeated, all of the variance over players counts as the players' own.
    """
    two = [item for key in ("first", "second") if (item := measured[pair[key]]) is not None]
    known = study.luck[cohort]
    indices = [item.index for item in two]
    luck = known.of(indices, [item.trainings for item in two]).of(np.ones((1, len(two))))
    training = float(known.of(indices, [1] * len(two)).variance.sum()) if known.dof else 2 * ASSUMED_LUCK**2
    whole = max(float(pair["error"]) ** 2 - float(luck.variance[0]), 0.0) * float(pair["players"])
    shrinks = min(float(luck.noise[0]) * float(pair["players"]), whole) if known.source == "seeds" else 0.0
    return whole - shrinks, training, shrinks * min(pair["seeds_first"], pair["seeds_second"])


def _everyone(study: Study, leader: Mapping[Any, Any]) -> int:
    """Players of all splits of the leader's data; 0 where its results don't say.

    Those of before 30 November 2026 say it split by split alone, and none is taken to be in two.
    """
    key = study.task.groups_key
    counts = [f"data.distinct_{key}", *(f"data.{key}.{split}" for split in ("train", "val", "test"))]
    numbers = study.table.reindex(index=leader["rows"], columns=counts).apply(pd.to_numeric, errors="coerce")
    found = numbers[counts[0]].fillna(numbers[counts[1:]].sum(axis=1, min_count=3))
    return int(found.max()) if found.notna().any() else 0
