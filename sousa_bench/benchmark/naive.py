"""The pipeline that people have: each clip decoded, resampled, padded to 10 s and transformed anew in each epoch.

It is an honest one: the same model, adapters, attention kernel, threads, batches and optimizer; worse is only what the
sentence above says. :func:`logits_difference` shows that both sides compute the same function.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile as sf
import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F

from sousa_bench.benchmark.compute import evaluate, train_step
from sousa_bench.benchmark.setup import Setup
from sousa_bench.config.composing import composed
from sousa_bench.errors import ConfigError
from sousa_bench.rudiments import RUDIMENTS
from sousa_bench.training.inputs import Inputs

SECONDS = 10.0
"""What the official code of all four models pads a clip to."""


@dataclass(frozen=True)
class Naive:
    """Seconds of an epoch of training and validation, medians from the second epoch on, on the same clips.

    Attributes:
        setup: What was run.
        clips: Of training and validation.
        seconds_of_audio: Mean length of a clip as our side sees it.
        naive_seconds: Of the naive pipeline.
        our_seconds: Of ours.
        logits_difference: Largest absolute difference of the logits of both sides for the same input.
    """

    setup: str
    clips: int
    seconds_of_audio: float
    naive_seconds: float
    our_seconds: float
    logits_difference: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.naive_seconds / self.our_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain fields."""
        return {**asdict(self), "ratio": self.ratio}


class NaiveLoader:
    """Clips read from their files one by one.

    Args:
        setup: The other side's parts, of which it takes the model and the list of clips.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.model = setup.module.model
        self.samples = round(SECONDS * self.model.sample_rate)

    def features(self, path: Any) -> Tensor:
        """(1, frames, bins) of one file."""
        if hasattr(path, "seek"):
            path.seek(0)
        samples, rate = sf.read(path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples).mean(dim=1)
        waveform = torchaudio.transforms.Resample(rate, self.model.sample_rate)(waveform)
        return self.transform(waveform)

    def transform(self, waveform: Tensor) -> Tensor:
        """(1, frames, bins) of (samples,)."""
        waveform = F.pad(waveform, (0, self.samples - len(waveform)))
        return self.model.features(waveform[None].to(self.setup.device))[0]

    def inputs(self, paths: Sequence[Any]) -> Inputs:
        """A batch as the network takes it."""
        features = torch.cat([self.features(path) for path in paths])
        return Inputs((features, None), lambda parts: self.model.backbone(*parts))


def naive(overrides: Sequence[str], *, repeats: int) -> Naive:
    """Take turns: an epoch of the naive pipeline, an epoch of ours.

    Args:
        overrides: What to run; without augmentation, so that both sides see the same clips.
        repeats: Turns.

    Raises:
        ConfigError: Augmentation is on.
    """
    cfg = composed(overrides)
    if cfg.augmentation.name != "off":
        raise ConfigError("benchmark naive: compare with augmentation=off, so that both sides train on the same clips")
    setup = Setup.of(cfg)
    loader, files = NaiveLoader(setup), {split: clip_files(setup, split) for split in ("train", "val")}
    optimizer = setup.optimizer()
    slow, fast = [], []
    ours_epoch(setup, optimizer, 0)  # the first epoch fills the memory of features, and warms both sides up
    for turn in range(1, repeats + 1):
        slow.append(_seconds(setup, lambda turn=turn: naive_epoch(setup, loader, files, optimizer, turn)))
        fast.append(_seconds(setup, lambda turn=turn: ours_epoch(setup, optimizer, turn)))
    clips = setup.datamodule.clips
    lengths = np.concatenate([clips[split].padded for split in ("train", "val")])
    return Naive(
        " ".join(overrides),
        len(lengths),
        float(lengths.mean() / setup.module.model.sample_rate),
        statistics.median(slow),
        statistics.median(fast),
        logits_difference(setup, loader),
    )


def clip_files(setup: Setup, split: str) -> list[Any]:
    """Each clip's file (or bytes, for a layout that has no files)."""
    from sousa_bench.config.instantiate import build

    data = build(setup.cfg.data)
    data.prepare((setup.module.model.sample_rate,))
    table = data._split(split)
    return [audio for _, audio in sorted(data.source.audio(table, np.arange(len(table))), key=lambda item: item[0])]


def naive_epoch(
    setup: Setup, loader: NaiveLoader, files: dict[str, list[Any]], optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    """Training and validation, every clip from its file."""
    labels = setup.datamodule.clips["train"].labels
    setup.module.injection.train_mode()
    for batch in setup.batches(epoch):
        inputs = loader.inputs([files["train"][i] for i in batch.index])
        train_step(setup, optimizer, (inputs, _targets(setup, labels[batch.index])))
    naive_evaluation(setup, loader, files["val"])


def naive_evaluation(setup: Setup, loader: NaiveLoader, files: Sequence[Any]) -> None:
    """The forward passes of a split, every clip from its file."""
    size = setup.settings.eval_batch_size
    for start in range(0, len(files), size):
        evaluate(setup, [loader.inputs(files[start : start + size])])


def ours_epoch(setup: Setup, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Training and validation as a run does them."""
    module = setup.module
    module.injection.train_mode()
    for batch in setup.batches(epoch):
        train_step(setup, optimizer, module.training_inputs(batch))
    for batch in setup.datamodule.val_dataloader():
        evaluate(setup, [module.inputs.plain("val", batch.index)])


def logits_difference(setup: Setup, loader: NaiveLoader) -> float:
    """Largest difference between the logits that the two sides give for the same 10 s of sound."""
    model = setup.module.model.eval()
    clips = setup.datamodule.clips["val"]
    largest = 0.0
    with torch.inference_mode():
        for place in range(min(4, len(clips))):
            waveform = clips.waveform([place])[0].float() / 32768
            there = model.backbone(loader.transform(waveform), None)
            padded = F.pad(waveform, (0, loader.samples - len(waveform)))[None].to(setup.device)
            here = model(padded)
            largest = max(largest, float((there - here).abs().max()))
    return largest


def _targets(setup: Setup, labels: Tensor) -> Tensor:
    smoothing, classes = setup.module.optimization.label_smoothing, len(RUDIMENTS)
    return F.one_hot(labels, classes).float().to(setup.device) * (1 - smoothing) + smoothing / classes


def _seconds(setup: Setup, work: Any) -> float:
    setup.synchronize()
    started = time.perf_counter()
    work()
    setup.synchronize()
    return time.perf_counter() - started


def naive_run(overrides: Sequence[str]) -> None:
    """A whole run of the naive pipeline in this process: all epochs, validation and test.

    With augmentation, features are masked as ours are and waveforms left alone, which is less work than ours.
    """
    setup = Setup.of(composed(overrides))
    loader = NaiveLoader(setup)
    files = {split: clip_files(setup, split) for split in ("train", "val", "test")}
    optimizer = setup.optimizer()
    for epoch in range(setup.settings.max_epochs):
        naive_epoch(setup, loader, files, optimizer, epoch)
    naive_evaluation(setup, loader, files["test"])
