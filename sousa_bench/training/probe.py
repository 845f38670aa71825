"""``peft=probe``: the head's last layer solved for, on features of the frozen network that are computed once a clip.

Logistic regression with its penalty chosen on validation clips is how linear probes of frozen networks are commonly
fitted (Kornblith et al. 2019, arXiv:1805.08974). It is convex: no seed, rate or number of epochs changes its outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from sousa_bench.errors import PeftError
from sousa_bench.models.base import AudioModel
from sousa_bench.peft.injection import Injection
from sousa_bench.peft.targets import last_layer
from sousa_bench.training.logistic_regression import Array, Solution, solutions
from sousa_bench.training.pooled_features import Fitted, PooledFeatures, Split

PATIENCE = 2
"""Strengths in a row at which the validation loss is above its lowest, before weaker ones are left out."""
TOLERANCE = 5e-2
"""Of the network's logits against the solution's, relative to the largest: half precision is no closer."""


def fit(injection: Injection, train: PooledFeatures, validation: PooledFeatures) -> Fitted:
    """Fill the head's last layer, its penalty chosen by the validation loss.

    Args:
        injection: A prepared ``peft=probe``.
        train: Features of the training clips.
        validation: Features of the validation clips.

    Raises:
        PeftError: The head's last layer has no bias.
    """
    place = last_layer(injection.model)
    layer = injection.model.backbone.get_submodule(place)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    if layer.bias is None:
        raise PeftError(f"peft=probe on model={injection.model.name}: {place} has no bias")
    known, asked = train.by_clip(), validation.by_clip()
    path = _path(known, asked, len(layer.bias), injection.config.l2)  # type: ignore[union-attr]
    best, _ = min(path, key=lambda each: each[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(best.weight).view_as(layer.weight))
        layer.bias.copy_(torch.from_numpy(best.bias))
    tried = [{"l2": each.l2, "val_loss": loss, "steps": each.steps} for each, loss in path]
    return Fitted(
        best.loss(*known),
        {"probe": {"l2": best.l2, "features": best.weight.shape[1], "path": tried}},
        sum(each.steps for each, _ in path),
        list(_warnings(best, [each.l2 for each, _ in path])),
        best.logits(asked[0]),
    )


def _path(train: Split, validation: Split, classes: int, strengths: Sequence[float]) -> list[tuple[Solution, float]]:
    """Solutions with their validation losses, from the strongest penalty on until the loss is past its minimum."""
    path: list[tuple[Solution, float]] = []
    for solution in solutions(*train, classes, strengths):
        path.append((solution, solution.loss(*validation)))
        losses = [loss for _, loss in path]
        if len(losses) - 1 - losses.index(min(losses)) == PATIENCE:
            break
    return path


def check_linear(logits: Array, expected: Array, model: AudioModel) -> None:
    """Hold a network's logits of clips against those of the solution.

    Raises:
        PeftError: They differ, so that the network's logits are not linear in the layer that was solved for.
    """
    difference = float(np.abs(logits - expected).max() / max(np.abs(expected).max(), 1e-12))
    if not difference <= TOLERANCE:  # NaN too
        raise PeftError(
            f"peft=probe on model={model.name}: the logits are not linear in {last_layer(model)}, the last layer of "
            f"the head (by {difference:.1e} of the largest): take peft=head"
        )


def _warnings(best: Solution, tried: Sequence[float]) -> Iterator[str]:
    if not best.converged:
        yield f"peft=probe: no minimum was reached at l2={best.l2:g}, in {best.steps} steps"
    if len(tried) > 1 and best.l2 in (tried[0], tried[-1]):
        yield f"peft=probe: the validation loss is lowest at the end of peft.l2, {best.l2:g}: try values beyond it"
