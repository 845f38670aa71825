"""From which probability on an answer counts as confident: a threshold that the validation clips gave. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.errors import UserError
from sousa_bench.system.foreign import is_share

TARGET = 0.9
"""Share of confident answers that were right on the validation clips, at least."""
LEAST = 20
"""Fewer answers than these set no threshold: nine of ten right may be luck."""
LIKELY = 0.5
"""Where a clip may have several labels, it has those of a higher probability."""

Answers = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""The probability of each answer, and whether it is right."""


@dataclass(frozen=True)
class Confidence:
    """When an answer of a model counts as confident.

    Attributes:
        threshold: Least probability of a confident answer; None where no answer counts as one, since above no
            threshold `target` of the validation clips' answers were right.
        target: Share of right answers, at least, that the threshold was chosen for.
    """

    threshold: float | None
    target: float

    def holds(self, probability: float) -> bool:
        """Whether an answer of this probability is confident."""
        return self.threshold is not None and bool(probability >= self.threshold)

    @property
    def text(self) -> str:
        """What a reader of marked answers must know, in one sentence."""
        target = f"{100 * self.target:g} %"
        if self.threshold is None:
            return f"No answer is confident: at no threshold were {target} right on the validation clips."
        return (
            f"Confident: a probability from {self.threshold:.2f} on, above which {target} or more were right on the "
            "validation clips."
        )

    @classmethod
    def of(cls, content: Mapping[str, Any], origin: object) -> Confidence | None:
        """The block `confidence` of a result or a package, which may be foreign; None where there is none.

        Raises:
            UserError: It holds no such numbers.
        """
        block = content.get("confidence")
        if block is None:
            return None
        found = [block.get(key) for key in ("threshold", "target")] if isinstance(block, Mapping) else [0, None]
        if not all(is_share(value) or (value is None and place == 0) for place, value in enumerate(found)):
            raise UserError(f"{origin}: its block confidence holds no threshold and target from 0 to 1; copy it again")
        return cls(*found)


def answers(probabilities: NDArray[np.floating], labels: NDArray[Any], several: bool) -> Answers:
    """The answers that a model gives to clips: one each, or where a clip may have several labels, all accepted ones.

    Args:
        probabilities: (clips, classes).
        labels: (clips,) numbers of classes, or (clips, classes) 0 and 1.
        several: Whether a clip may have several labels.
    """
    if several:
        accepted = probabilities > LIKELY
        return probabilities[accepted].astype(np.float64), labels[accepted] > 0
    return probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels


def fitted_threshold(given: Answers) -> float | None:
    """The lowest threshold, in hundredths, from which on at least `TARGET` of the answers are right.

    Args:
        given: On clips that were not trained on.

    Returns:
        Raised as far as it leaves out no answer more; None where fewer than `LEAST` answers would be left.
    """
    scores, right = given
    for hundredths in range(101):
        above = scores >= hundredths / 100
        if above.sum() < LEAST:
            return None
        if right[above].mean() >= TARGET:
            return max(hundredths, math.floor(100 * scores[above].min())) / 100
    return None


def counted_answers(given: Answers, threshold: float | None) -> dict[str, Any]:
    """How many answers there are, how many of them are confident, and the share of these that are right."""
    scores, right = given
    above = np.zeros(len(scores), dtype=bool) if threshold is None else scores >= threshold
    precision = float(right[above].mean()) if above.any() else None
    return {"answers": len(scores), "confident": int(above.sum()), "precision": precision}


def confidence(validation: Answers, test: Answers) -> dict[str, Any]:
    """The block `confidence` of a result: the threshold from the validation clips, and how it does on the test clips.

    Args:
        validation: The tested weights' answers to the validation clips.
        test: Their answers to the test clips.
    """
    threshold = fitted_threshold(validation)
    return {
        "target": TARGET,
        "threshold": threshold,
        "validation": counted_answers(validation, threshold),
        "test": counted_answers(test, threshold),
    }
