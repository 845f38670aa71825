"""The arithmetic of a run and nothing else: what every epoch can't do without."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from sousa_bench.benchmark.setup import Setup
from sousa_bench.training.inputs import Inputs

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import Batch, Clips


@dataclass
class Compute:
    """Seconds of bare arithmetic.

    Attributes:
        epochs: Training and validation, of each epoch.
        test: The forward passes of the test split.
    """

    epochs: list[float]
    test: float


def bare(setup: Setup) -> Compute:
    """Train, validate and test on batches that already lie in memory.

    With augmentation, drawing and applying it and the features of its result count; reading the clips does not.
    """
    module, optimizer = setup.module, setup.optimizer()
    for clips in setup.datamodule.clips.values():
        _read_from_memory(clips)
    validation = _evaluation(setup, "val")
    test = _evaluation(setup, "test")
    epochs = []
    for epoch in range(setup.settings.max_epochs):
        batches = setup.batches(epoch)
        augmented = module.augmentation.name != "off"
        ready = [_inputs(setup, batch) for batch in batches]  # with augmentation: only to have the clips in memory
        module.injection.train_mode()
        setup.synchronize()
        started = time.perf_counter()
        for step, batch in enumerate(batches):
            train_step(setup, optimizer, _inputs(setup, batch) if augmented else ready[step])
        evaluate(setup, validation)
        setup.synchronize()
        epochs.append(time.perf_counter() - started)
    started = time.perf_counter()
    evaluate(setup, test)
    setup.synchronize()
    return Compute(epochs, time.perf_counter() - started)


def train_step(setup: Setup, optimizer: torch.optim.Optimizer, inputs: tuple[Inputs, Tensor]) -> None:
    """Forward, backward and optimizer step over one batch."""
    module, (batch, targets) = setup.module, inputs
    with setup.autocast:
        logits = batch.logits()
    loss = -(targets * log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
    if (extra := module.injection.extra_loss()) is not None:
        loss = loss + extra
    loss.backward()
    if module.optimization.gradient_clip is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, module.optimization.gradient_clip)
    optimizer.step()
    module.steps_done += 1
    module.injection.after_optimizer_step(module.steps_done)
    optimizer.zero_grad(set_to_none=True)


@torch.inference_mode()
def evaluate(setup: Setup, batches: list[Inputs]) -> None:
    """Forward passes in evaluation mode."""
    setup.module.model.eval()
    with setup.autocast:
        for batch in batches:
            batch.logits()


def _inputs(setup: Setup, batch: Batch) -> tuple[Inputs, Tensor]:
    return setup.module.training_inputs(batch)


def _evaluation(setup: Setup, split: str) -> list[Inputs]:
    return [setup.module.inputs.plain(split, batch.index) for batch in setup.datamodule._evaluation(split)]


def _read_from_memory(clips: Clips) -> None:
    """Let each block of clips that is read a second time come from memory."""
    held: dict[tuple[bytes, int | None], Tensor] = {}
    read = clips.waveform

    def remembered(index: Any, samples: int | None = None) -> Tensor:
        key = (np.asarray(index).tobytes(), samples)
        if key not in held:
            held[key] = read(index, samples)
        return held[key]

    clips.waveform = remembered  # type: ignore[method-assign]
