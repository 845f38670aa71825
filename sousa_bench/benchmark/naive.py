"""The pipeline that people have: each clip decoded, resampled, padded to 10 s and transformed anew in each epoch.

It is an honest one: the same model, adapters, attention kernel, threads, batches and optimizer; worse is only what the
sentence above says. :meth:`NaivePipeline.logits_difference` shows that both sides compute the same function.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import soundfile as sf
import torch
import torchaudio
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config.composing import composed
from sousa_bench.errors import ConfigError
from sousa_bench.training.evaluated_clips import SplitData
from sousa_bench.training.inputs import Inputs

SECONDS = 10.0
"""What the official code of all four models pads a clip to."""


class NaivePipeline:
    """Trains on clips that are read from their files one by one.

    Attributes:
        files: Each clip's file by split (or bytes, for a layout that has no files).

    Args:
        setup: The other side's parts, of which it takes the model, the batches and the optimizer.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.model = setup.module.model
        self.samples = round(SECONDS * self.model.sample_rate)
        self.optimizer = setup.module.configure_optimizers()
        self.files = {split: _files(setup, split) for split in setup.datamodule.clips}

    def features(self, path: Any) -> Tensor:
        """(1, frames, bins) of one file."""
        if hasattr(path, "seek"):
            path.seek(0)
        samples, rate = sf.read(path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples).mean(dim=1)
        return self.transform(torchaudio.transforms.Resample(rate, self.model.sample_rate)(waveform))

    def transform(self, waveform: Tensor) -> Tensor:
        """(1, frames, bins) of (samples,)."""
        waveform = F.pad(waveform, (0, self.samples - len(waveform)))
        return self.model.features(waveform[None].to(self.setup.device))[0]

    def inputs(self, split: str, index: Sequence[int] | np.ndarray) -> Inputs:
        """Some clips as the network takes them."""
        features = torch.cat([self.features(self.files[split][i]) for i in index])
        return Inputs([(np.arange(len(index)), (features, None))], lambda parts: self.model.backbone(*parts))

    def train_epoch(self, epoch: int) -> None:
        """Training and validation, every clip from its file."""
        module, clips = self.setup.module, self.setup.datamodule.clips["train"]
        smoothing, classes = module.optimization.label_smoothing, len(clips.task.classes)
        module.injection.train_mode()
        for batch in self.setup.batches(epoch):
            targets = clips.targets(batch.index).to(self.setup.device)
            targets = targets * (1 - smoothing) + smoothing / classes
            with self.setup.autocast:
                module.update(self.optimizer, (self.inputs("train", batch.index), targets, None), len(batch.index))
        self.evaluate("val")

    def evaluate(self, split: str) -> None:
        """The forward passes of a split, every clip from its file."""
        size = self.setup.settings.eval_batch_size
        for start in range(0, len(self.files[split]), size):
            self.setup.evaluate([self.inputs(split, range(len(self.files[split]))[start : start + size])])

    @torch.inference_mode()
    def logits_difference(self) -> float:
        """Largest difference between the logits that the two sides give for the same 10 s of sound."""
        model, clips = self.model.eval(), self.setup.datamodule.clips["val"]
        largest = 0.0
        for place in range(min(4, len(clips))):
            waveform = clips.waveform([place])[0].float() / 32768
            padded = F.pad(waveform, (0, self.samples - len(waveform)))[None].to(self.setup.device)
            difference = model.backbone(self.transform(waveform), None) - model(padded)
            largest = max(largest, float(difference.abs().max()))
        return largest


def _files(setup: Setup, split: str) -> list[Any]:
    data = SplitData.of(split, OmegaConf.to_container(setup.cfg.data, resolve=True))  # type: ignore[arg-type]
    table = data.chosen()
    return [audio for _, audio in sorted(data.source.audio(table, np.arange(len(table))), key=lambda item: item[0])]


def naive(overrides: Sequence[str], *, repeats: int) -> dict[str, Any]:
    """Take turns: an epoch of the naive pipeline, an epoch of ours.

    Args:
        overrides: What to run; without augmentation, so that both sides see the same clips.
        repeats: Turns.

    Returns:
        Medians of the epochs from the second on, training and validation together: ``naive_seconds``, ``our_seconds``
        and ``ratio``; ``clips``, their mean ``seconds_of_audio`` as our side sees it, and ``logits_difference``.

    Raises:
        ConfigError: Augmentation is on.
    """
    cfg = composed(overrides)
    if cfg.augmentation.name != "off":
        raise ConfigError("benchmark naive: compare with augmentation=off, so that both sides train on the same clips")
    setup = Setup.of(cfg)
    pipeline = NaivePipeline(setup)
    slow, fast = [], []
    _our_epoch(pipeline, 0)  # the first epoch fills the memory of features, and warms both sides up
    for turn in range(1, repeats + 1):
        slow.append(setup.seconds(partial(pipeline.train_epoch, turn)))
        fast.append(setup.seconds(partial(_our_epoch, pipeline, turn)))
    lengths = np.concatenate([setup.datamodule.clips[split].padded for split in ("train", "val")])
    naive_seconds, our_seconds = statistics.median(slow), statistics.median(fast)
    return {
        "setup": " ".join(overrides),
        "clips": len(lengths),
        "seconds_of_audio": float(lengths.mean() / pipeline.model.sample_rate),
        "naive_seconds": naive_seconds,
        "our_seconds": our_seconds,
        "logits_difference": pipeline.logits_difference(),
        "ratio": naive_seconds / our_seconds,
    }


def _our_epoch(pipeline: NaivePipeline, epoch: int) -> None:
    """Training and validation as a run does them, with the same optimizer."""
    setup, module = pipeline.setup, pipeline.setup.module
    module.injection.train_mode()
    for batch in setup.batches(epoch):
        with setup.autocast:
            module.update(pipeline.optimizer, module.training_inputs(batch), len(batch.members))
    setup.evaluate([module.inputs.plain("val", batch.index) for batch in setup.datamodule.val_dataloader()])


def naive_run(overrides: Sequence[str]) -> dict[str, Any]:
    """A whole run of the naive pipeline in this process: all epochs, validation and test, without augmentation."""
    setup = Setup.of(composed(overrides))
    pipeline = NaivePipeline(setup)
    for epoch in range(setup.settings.max_epochs):
        pipeline.train_epoch(epoch)
    pipeline.evaluate("test")
    return {}
