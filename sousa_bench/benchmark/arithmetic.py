"""The parts of a run without the run, and the seconds of their arithmetic: what every epoch can't do without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig

from sousa_bench.config.composing import composed
from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import TrainerSettings
from sousa_bench.data.datamodule import Batch, EpochBatches, SousaDataModule
from sousa_bench.peft import inject
from sousa_bench.training import hardware
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.inputs import Inputs
from sousa_bench.training.recipe import build_batches, build_model, build_module, build_teacher, total_steps
from sousa_bench.training.run import SAMPLE_RATES


@dataclass
class Setup:
    """Data, model, adapters and batches, built as a run builds them.

    Attributes:
        cfg: The composed config.
        settings: Its ``trainer`` node.
        module: The Lightning module, without a trainer.
        datamodule: The batches.
        device: Where it computes.
    """

    cfg: DictConfig
    settings: TrainerSettings
    module: Classifier
    datamodule: SousaDataModule
    device: torch.device

    @classmethod
    def of(cls, cfg: DictConfig) -> Setup:
        """Build the parts."""
        torch.manual_seed(cfg.seed)
        settings: TrainerSettings = build(cfg.trainer)
        gpu = hardware.choose_accelerator(settings.accelerator) == "gpu"
        device = torch.device("cuda" if gpu else "cpu")
        data = build(cfg.data)
        model = build_model(cfg, data.task)
        data.prepare((model.sample_rate,))
        batches = build_batches(cfg, settings, data, model.sample_rate)
        injection = inject(model, cfg.peft, total_steps(settings, batches))
        module = build_module(cfg, settings, injection, batches, teacher=build_teacher(cfg, data))
        return cls(cfg, settings, module.to(device), batches, device)

    @property
    def autocast(self) -> torch.autocast:
        """The run's precision, as a context."""
        accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        mixed = hardware.choose_precision(self.settings.precision, accelerator) == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of an epoch (from 0)."""
        clips, settings = self.datamodule.clips["train"], self.settings
        return list(EpochBatches(clips, settings.batch_size, self.cfg.seed, epoch, limit=settings.train_batches))

    @torch.inference_mode()
    def evaluate(self, batches: Sequence[Inputs]) -> None:
        """Forward passes in evaluation mode."""
        self.module.model.eval()
        with self.autocast:
            for batch in batches:
                batch.logits()

    def seconds(self, work: Callable[[], Any]) -> float:
        """Wall time of some work on the device."""
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def own_seconds(self, work: Callable[[], Any]) -> float:
        """Processor seconds of all threads on a CPU, which its other work lengthens less; wall time on a GPU."""
        if self.device.type == "cuda":
            return self.seconds(work)
        started = time.process_time()
        work()
        return time.process_time() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def bare(overrides: Sequence[str]) -> dict[str, Any]:
    """Train, validate and test on inputs that already lie in memory.

    With augmentation, reading the decoded clips, drawing, applying it and the features of its result count.

    Returns:
        ``epochs``: seconds of training and validation of each; ``test``: of the test split's forward passes.
    """
    setup = Setup.of(composed(overrides))
    module, optimizer = setup.module, setup.module.configure_optimizers()
    loaders = {"val": setup.datamodule.val_dataloader(), "test": setup.datamodule.test_dataloader()}
    ready = {split: [module.inputs.plain(split, batch.index) for batch in loaders[split]] for split in loaders}

    def train(batches: Sequence[Batch], inputs: Sequence[Any]) -> None:
        for batch, known in zip(batches, inputs, strict=True):
            with setup.autocast:
                module.update(optimizer, known or module.training_inputs(batch), len(batch.members))

    epochs = []
    for epoch in range(setup.settings.max_epochs):
        batches = setup.batches(epoch)
        plain = module.augmentation.name == "off"
        inputs = [module.training_inputs(batch) if plain else None for batch in batches]
        module.injection.train_mode()
        taken = setup.seconds(partial(train, batches, inputs))
        epochs.append(taken + setup.seconds(lambda: setup.evaluate(ready["val"])))
    return {"epochs": epochs, "test": setup.seconds(lambda: setup.evaluate(ready["test"]))}


def prepare(overrides: Sequence[str]) -> dict[str, Any]:
    """Fill the cache of decoded clips, so that no measurement pays for it."""
    build(composed(overrides).data).prepare(SAMPLE_RATES)
    return {}


@torch.inference_mode()
def inference(overrides: Sequence[str], *, repeats: int, seconds: float = 5.0, batch: int = 16) -> dict[str, Any]:
    """Time a model with its adapters in place, waveform to logits, as ``evaluate`` and ``predict`` use it.

    Args:
        overrides: Which model.
        repeats: Passes that the medians are of, after one that warms up.
        seconds: Length of the clips.
        batch: Clips of a batch.

    Returns:
        ``latency_ms``: of a single clip; ``clips_per_second``: in batches; ``seconds_of_audio`` and ``batch``.
    """
    setup = Setup.of(composed(overrides))
    model = setup.module.model.eval()
    samples = round(seconds * model.sample_rate)
    noise = torch.rand(batch, samples, generator=torch.Generator().manual_seed(0)).sub(0.5).to(setup.device)

    def median(clips: torch.Tensor) -> float:
        lengths = torch.full((len(clips),), samples, device=setup.device)
        with setup.autocast:
            return statistics.median([setup.seconds(lambda: model(clips, lengths)) for _ in range(repeats + 1)][1:])

    return {
        "setup": " ".join(overrides),
        "seconds_of_audio": seconds,
        "batch": batch,
        "latency_ms": 1e3 * median(noise[:1]),
        "clips_per_second": batch / median(noise),
    }
