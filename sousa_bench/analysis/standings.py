"""The standings of each cohort: its combinations in order, the leader, its lead on each other one, names and digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.digits import decimals
from sousa_bench.analysis.labels import short_labels
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.stats.comparisons import leads_of
from sousa_bench.analysis.study import Study

ROWS = 10
"""Combinations that the first screen shows of a cohort."""
MOST_COHORTS = 8
"""Cohorts that have a picture and a table in the answer; of more there is the verdict."""
MOST_COMBINATIONS = 200
"""Combinations of a cohort that its picture knows, and so a filter's verdict."""


@dataclass(frozen=True, eq=False)
class Standings:
    """One cohort, whose runs alone are ranked together.

    Attributes:
        study: The study.
        cohort: Its letter.
        rows: Its rows of ``study.combinations``, best first by the study's metric.
    """

    study: Study
    cohort: str
    rows: pd.DataFrame

    @property
    def title(self) -> str:
        """What sets the cohort apart, where there are several: ``Cohort A: epochs 5``."""
        words = self.study.cohorts.get(self.cohort, "")
        return f"Cohort {self.cohort}: {words}" if words else ""

    @cached_property
    def leader(self) -> pd.Series:
        """The combination of the highest test accuracy."""
        return best_first(self.rows, "test_acc").iloc[0]

    @property
    def leading(self) -> pd.DataFrame:
        """The first ``MOST_COMBINATIONS`` of ``rows``."""
        return self.rows.head(MOST_COMBINATIONS)

    @cached_property
    def leads(self) -> Mapping[str, Mapping[str, Any]]:
        """The leader's comparisons, leader minus other, by the other's ``combination``; only those that there are."""
        first = str(self.leader["combination"])
        found = leads_of(self.study.pairs, self.cohort, first)
        return {name: found[name] for name in map(str, self.rows["combination"]) if name in found}

    @cached_property
    def names(self) -> dict[str, str]:
        """A short name of each combination, which holds only what differs in the cohort."""
        return short_labels(self.rows, self.study.factors)

    @cached_property
    def full_name(self) -> str:
        """The leader's name with its model and strategy."""
        named = short_labels(self.rows, self.study.factors, ("model", "strategy"))
        return named[str(self.leader["combination"])]

    @cached_property
    def digits(self) -> int:
        """Decimals of the percentages, see ``digits.decimals``."""
        return decimals((self.rows["acc_high"] - self.rows["acc_low"]).to_numpy(float))

    @property
    def untested(self) -> bool:
        """Whether there are others and no test could be made against the leader."""
        return len(self.rows) > 1 and not self.rows["p_best"].notna().any()

    @property
    def tied(self) -> pd.DataFrame:
        """The others that can't be told from the leader."""
        return self.rows[self.rows["best_set"] & (self.rows["combination"] != self.leader["combination"])]

    @property
    def of_models_only(self) -> bool:
        """Whether nothing is known of training luck, so that what is said holds for the trained models alone."""
        return not self.study.luck[self.cohort].dof

    @cached_property
    def chance(self) -> float | None:
        """The accuracy of always naming the most frequent class of the test clips; None where it is not known."""
        place = int(self.leader["shared_clips"])
        if place < 0 or self.study.task.several:
            return None
        clips = self.study.shared_clips[place].clips
        if clips.label.ndim != 1 or not len(clips.label):
            return None
        named = float(np.bincount(clips.label.astype(int)).max()) / len(clips.label)
        return max(named, 1 / len(clips.task.classes)) if clips.task.classes else named


def standings(study: Study) -> list[Standings]:
    """Those of each cohort with a completed run that was tested, the largest cohort first."""
    frame = study.combinations
    cohorts = sorted(frame.loc[frame["test_acc"].notna(), "cohort"].unique(), key=lambda name: (len(name), name))
    return [Standings(study, str(cohort), frame[frame["cohort"] == cohort]) for cohort in cohorts]
