"""One training setup of the benchmark: a composed config and what is built from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from sousa_bench import hardware
from sousa_bench.build import build
from sousa_bench.classifier import Classifier, Optimization
from sousa_bench.data.datamodule import Batch, EpochBatches, FeatureMemory, SousaDataModule
from sousa_bench.peft import inject
from sousa_bench.rudiments import RUDIMENTS
from sousa_bench.settings import TrainerSettings


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config of one run.

    Raises:
        ConfigError: It can't be composed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from sousa_bench.errors import ConfigError
    from sousa_bench.paths import conf_folder
    from sousa_bench.sweep.config_errors import explain, is_config_error

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return compose("config", list(overrides))
    except Exception as error:
        if is_config_error(error):
            raise ConfigError(explain(error)) from error
        raise


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
    def of(cls, cfg: DictConfig, *, feature_memory: bool = True) -> Setup:
        """Build the parts as a run does."""
        torch.manual_seed(cfg.seed)
        settings: TrainerSettings = build(cfg.trainer)
        accelerator = hardware.choose_accelerator(settings.accelerator)
        device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        model = build(cfg.model, num_classes=len(RUDIMENTS))
        data = build(cfg.data)
        data.prepare((model.sample_rate,))
        datamodule = SousaDataModule(
            data,
            sample_rate=model.sample_rate,
            quantum=cfg.data.quantum,
            batch_size=settings.batch_size,
            eval_batch_size=settings.eval_batch_size,
            seed=cfg.seed,
            train_batches=settings.train_batches,
            eval_batches=settings.eval_batches,
        )
        total = settings.max_epochs * datamodule.steps_per_epoch
        injection = inject(model, cfg.peft, total)
        optimization = Optimization(
            learning_rate=settings.learning_rate or cfg.peft.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_fraction=settings.warmup_fraction,
            label_smoothing=settings.label_smoothing,
            gradient_clip=settings.gradient_clip,
            total_steps=total,
            seed=cfg.seed,
        )
        memory = FeatureMemory(settings.feature_memory_mb * 2**20 if feature_memory else 0)
        module = Classifier(
            model, injection, datamodule, build(cfg.augmentation), optimization, settings.batch_size, memory
        )
        return cls(cfg, settings, module.to(device), datamodule, device)

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
