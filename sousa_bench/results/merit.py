"""The one rule by which a run, or a combination, is the best: for every command and every page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LOSSES = ("best_val_loss", "final_val_loss")
"""Validation loss of the tested epoch, or of the last one where a result doesn't have it."""

LOWER_IS_BETTER = ("loss", "_ece", "time", "seconds", "memory", "params", "param_efficiency")
"""What such names hold."""


def merit(
    score: Any, validation: Any, loss: Any, parameters: Any, name: str, *, lower: bool = False
) -> tuple[float, float, float, float, str]:
    """What the best one has the least of, to sort by: of equal scores the validation accuracy decides.

    Of equal ones of these it is the validation loss, then fewer trainable parameters, then the name. What is unknown
    comes last.

    Args:
        score: Of the metric that ranks.
        validation: Validation accuracy, or what else ranks on the validation clips.
        loss: Validation loss.
        parameters: Number of trainable parameters.
        name: The run's id, or the combination.
        lower: Whether less of the metric is better.
    """
    return (_least(score, 1 if lower else -1), _least(validation, -1), _least(loss), _least(parameters), name)


def _least(value: Any, sign: int = 1) -> float:
    known = isinstance(value, (int, float)) and not math.isnan(value)
    return sign * float(value) if known else math.inf


def lower_by_name(key: str) -> bool:
    """Whether a smaller value of what is called so is the better one: of losses, times and sizes."""
    return any(word in key for word in LOWER_IS_BETTER)


def loss_of(values: Mapping[str, Any]) -> Any:
    """The validation loss that decides between equals, from a run's metrics."""
    return next((values[key] for key in LOSSES if values.get(key) is not None), None)
