"""``peft=probe``: the head's last layer solved for, on features of the frozen network that are computed once a clip.

Logistic regression with its penalty chosen on validation clips is how linear probes of frozen networks are commonly
fitted (Kornblith et al. 2019, arXiv:1805.08974). It is convex: no seed, rate or number of epochs changes its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import nn

from sousa_bench.data.datamodule import EvalBatches
from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.peft.targets import last_layer
from sousa_bench.training.classifier import Classifier, EpochSums
from sousa_bench.training.logistic_regression import Array, Solution, solutions

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import SousaDataModule

PATIENCE = 2
"""Strengths in a row at which the validation loss is above its lowest, before weaker ones are left out."""
TOLERANCE = 5e-2
"""Of the network's logits against the solution's, relative to the largest: half precision is no closer."""

Split = tuple[Array, NDArray[np.int64]]


def solve(module: Classifier, batches: SousaDataModule, trainer: pl.Trainer) -> list[str]:
    """Fill the head's last layer, its penalty chosen by the validation loss, and close the run's one epoch.

    The loss chooses and not the accuracy, which on a few hundred clips has ties.

    Args:
        module: A prepared ``peft=probe``; its injection keeps what was found.
        batches: The clips, limited as in any run.
        trainer: Validates the solution, so that history and loggers get it as they get an epoch.

    Returns:
        Warnings.

    Raises:
        ConfigError: Training clips are to be augmented.
        PeftError: The head's last layer has no bias, or the logits are not linear in it.
    """
    if (name := module.augmentation.name) != "off":
        raise ConfigError(f"peft=probe takes each clip as it is: give augmentation=off, not augmentation={name}")
    started = time.perf_counter()
    place, pair = last_layer(module.model), f"peft=probe on model={module.model.name}"
    layer = module.model.backbone.get_submodule(place)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    if layer.bias is None:
        raise PeftError(f"{pair}: {place} has no bias")
    module.to(trainer.strategy.root_device).eval()
    module.inputs.compile(False)
    with trainer.precision_plugin.forward_context(), _handing_on(layer):
        train = _features(module, "train", module.micro_batch_size, batches.train_batches)
        validation = _features(module, "val", batches.eval_batch_size, batches.eval_batches)
    path = _path(train, validation, len(layer.bias), module.injection.config.l2)  # type: ignore[union-attr]
    best, _ = min(path, key=lambda each: each[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(best.weight).view_as(layer.weight))
        layer.bias.copy_(torch.from_numpy(best.bias))
    tried = [{"l2": each.l2, "val_loss": loss, "steps": each.steps} for each, loss in path]
    module.injection.probe = {"l2": best.l2, "features": best.weight.shape[1], "path": tried}
    module.steps_done = sum(each.steps for each, _ in path)
    clips = len(train[0])
    module.sums = EpochSums(torch.tensor(best.loss(*train) * clips), clips, time.perf_counter() - started)
    trainer.validate(module, datamodule=batches, verbose=False)
    _check_linear(module.outputs["val"][1].numpy(), best.logits(validation[0]), f"{pair}: the logits", place)
    return list(_warnings(best, [each.l2 for each, _ in path]))


def _path(train: Split, validation: Split, classes: int, strengths: Sequence[float]) -> list[tuple[Solution, float]]:
    """Solutions with their validation losses, from the strongest penalty on until the loss is past its minimum."""
    path: list[tuple[Solution, float]] = []
    for solution in solutions(*train, classes, strengths):
        path.append((solution, solution.loss(*validation)))
        losses = [loss for _, loss in path]
        if len(losses) - 1 - losses.index(min(losses)) == PATIENCE:
            break
    return path


def _check_linear(logits: Array, expected: Array, what: str, place: str) -> None:
    difference = float(np.abs(logits - expected).max() / max(np.abs(expected).max(), 1e-12))
    if not difference <= TOLERANCE:  # NaN too
        raise PeftError(
            f"{what} are not linear in {place}, the last layer of the head (by {difference:.1e} of the largest): "
            "take peft=head"
        )


def _warnings(best: Solution, tried: Sequence[float]) -> Iterator[str]:
    if not best.converged:
        yield f"peft=probe: no minimum was reached at l2={best.l2:g}, in {best.steps} steps"
    if len(tried) > 1 and best.l2 in (tried[0], tried[-1]):
        yield f"peft=probe: the validation loss is lowest at the end of peft.l2, {best.l2:g}: try values beyond it"


@contextmanager
def _handing_on(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> Iterator[None]:
    """Let a layer hand on its inputs (of a convolution, all those under its kernel) in place of its outputs.

    What the network then gives as logits are the features in which its real logits are linear: whatever mean over time
    or tokens follows the layer is in them.
    """
    weight, bias = layer.weight, layer.bias
    size = weight[0].numel()
    layer.weight = nn.Parameter(torch.eye(size, device=weight.device, dtype=weight.dtype).view(size, *weight.shape[1:]))
    layer.bias = None
    try:
        yield
    finally:
        layer.weight, layer.bias = weight, bias


@torch.no_grad()
def _features(module: Classifier, split: str, size: int, limit: int | None) -> Split:
    """Features (clips, features) and labels of a split, in its order; at most ``limit`` batches of ``size`` pieces.

    Of a clip of several windows they are the mean, whose logits are the mean of the windows' logits.
    """
    batches = EvalBatches(module.clips[split], size, limit=limit)
    rows = [module.inputs.plain(split, batch.index).logits().double().cpu().numpy() for batch in batches]
    clips = module.clips[split]
    index, features = clips.pieces.mean(np.concatenate([batch.index for batch in batches]), np.concatenate(rows))
    return features, clips.labels.numpy()[index]
