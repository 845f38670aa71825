"""One training setup of the benchmark: a composed config and what is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import TrainerSettings
from sousa_bench.data.datamodule import Batch, EpochBatches, SousaDataModule
from sousa_bench.peft import inject
from sousa_bench.training import hardware
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.recipe import build_batches, build_model, build_module, total_steps


@dataclass
class Setup:
    """The parts of a run without the run: data, model, adapters, batches.

    Attributes:
        cfg: Its config.
        settings: Its ``trainer`` node.
        module: The Lightning module, used for its parts only.
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
        """Build the parts as a run does."""
        torch.manual_seed(cfg.seed)
        settings: TrainerSettings = build(cfg.trainer)
        accelerator = hardware.choose_accelerator(settings.accelerator)
        device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        model = build_model(cfg)
        data = build(cfg.data)
        data.prepare((model.sample_rate,))
        batches = build_batches(cfg, settings, data, model.sample_rate)
        injection = inject(model, cfg.peft, total_steps(settings, batches))
        module = build_module(cfg, settings, injection, batches)
        return cls(cfg, settings, module.to(device), batches, device)

    @property
    def autocast(self) -> Any:
        """The run's precision, as a context."""
        kind = "cuda" if self.device.type == "cuda" else "cpu"
        mixed = hardware.choose_precision(self.settings.precision, "gpu" if kind == "cuda" else "cpu")
        return torch.autocast(kind, torch.bfloat16, enabled=mixed == "bf16-mixed")

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of an epoch (from 0)."""
        clips = self.datamodule.clips["train"]
        return list(
            EpochBatches(clips, self.settings.batch_size, self.cfg.seed, epoch, limit=self.settings.train_batches)
        )

    def optimizer(self) -> torch.optim.Optimizer:
        """The run's own."""
        return self.module.configure_optimizers()

    def synchronize(self) -> None:
        """Wait until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
