"""What a config says of a run's parts, built: model, batches, optimization, module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig

from sousa_bench.config import distillation, init_from
from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import TrainerSettings
from sousa_bench.data.datamodule import Clips, FeatureMemory, SousaDataModule
from sousa_bench.errors import ConfigError
from sousa_bench.models.download import on_disk
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.weight_files import is_ours
from sousa_bench.models.weights import resolve, take_packed_head
from sousa_bench.peft.adapter import load_run_model
from sousa_bench.peft.options import keeps_features, plain, takes_no_steps
from sousa_bench.peft.precheck import against_balance, official_address
from sousa_bench.results.metrics import own_metrics
from sousa_bench.training.classifier import Classifier, Optimization
from sousa_bench.training.teacher import Teacher

if TYPE_CHECKING:
    from sousa_bench.data import SousaData
    from sousa_bench.models.base import AudioModel
    from sousa_bench.peft import Injection
    from sousa_bench.task import Task


def fetch_weights(cfg: DictConfig) -> None:
    """Download a published checkpoint that isn't here, before data are made for a run that couldn't begin without it.

    Raises:
        WeightsError: It can't be had.
    """
    model = plain(cfg.model)
    published = PUBLISHED.get(str(model.get("name")))
    if published is None or model.get("weights") != "official" or not is_ours(model):
        return
    address, given = official_address(model), model.get("checkpoint")
    if address is not None and (given or on_disk(address) is None):  # one that is here is read and hashed once
        resolve(address, published.source)


def build_model(cfg: DictConfig, task: Task) -> AudioModel:
    """The model with its weights, before any adapter."""
    model: AudioModel = build(cfg.model, num_classes=len(task.classes))
    replaced = takes_no_steps(cfg.peft) or cfg.get(init_from.KEY) is not None or cfg.trainer.get("new_head")
    head = None if replaced or model.packed_head is None else model.packed_head.part_for(task)
    if head is not None:
        take_packed_head(model, head)
    if cfg.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def build_batches(
    cfg: DictConfig,
    settings: TrainerSettings,
    data: SousaData,
    sample_rate: int,
    eval_batch_size: int | None = None,
    start: tuple[int, int] = (0, 0),
) -> SousaDataModule:
    """The batches of prepared data; see :class:`SousaDataModule`."""
    return SousaDataModule(
        data,
        sample_rate=sample_rate,
        quantum=cfg.data.quantum,
        batch_size=settings.batch_size,
        eval_batch_size=eval_batch_size or settings.eval_batch_size,
        seed=cfg.seed,
        train_batches=settings.train_batches,
        eval_batches=settings.eval_batches,
        start=start,
        balanced=settings.sampling == "balanced",
    )


def build_teacher(cfg: DictConfig, data: SousaData) -> Teacher | None:
    """The model that a run learns from, with the training clips at its sample rate; None: from labels alone.

    Raises:
        PeftError: Its weights are gone or damaged.
        WeightsError: The base weights that it was trained on can't be had.
    """
    if (place := distillation.teacher_run(cfg)) is None:
        return None
    with torch.random.fork_rng(devices=[]):
        model = load_run_model(Path(place).expanduser())
    data.prepare((model.sample_rate,))
    clips = Clips(data, "train", model.sample_rate, cfg.data.quantum)
    return Teacher(model, clips, build(cfg.augmentation), cfg.teacher.weight, cfg.teacher.temperature)


def total_steps(settings: TrainerSettings, batches: SousaDataModule) -> int:
    """Optimizer steps of the whole run."""
    return settings.max_epochs * batches.steps_per_epoch


def learning_rates(cfg: DictConfig, settings: TrainerSettings, injection: Injection) -> tuple[float, float]:
    """Peak learning rates of a run, and of its head's last layer.

    Where none is given, a new layer's is 1 / its number of input features (channels of a convolution): a step of Adam
    moves every weight by about the rate, and so the logits by about rate times features (arXiv:2203.03466, table 3).
    A layer that was trained before has the run's. A linear probe has one rate, whichever key gives it; a method without
    steps has none: 0.

    Raises:
        ConfigError: The head has not one matrix, and no rate was given for it.
    """
    if takes_no_steps(injection.node):
        return 0.0, 0.0
    rate, given = settings.learning_rate or cfg.peft.learning_rate, settings.head_learning_rate
    if keeps_features(injection.config):
        return given or rate, given or rate
    if given is not None:
        return rate, given
    if cfg.get(init_from.KEY) is not None or not injection.model.fresh:
        return rate, rate
    matrices = [parameter for parameter in injection.head_parameters() if parameter.ndim > 1]
    if len(matrices) != 1:
        raise ConfigError(
            f"model={injection.model.name}: {', '.join(injection.model.fresh)} holds {len(matrices)} matrices, so that "
            "its width gives no learning rate; give trainer.head_learning_rate"
        )
    return rate, 1 / matrices[0].shape[1]


def build_module(
    cfg: DictConfig,
    settings: TrainerSettings,
    injection: Injection,
    batches: SousaDataModule,
    micro_batch_size: int | None = None,
    teacher: Teacher | None = None,
) -> Classifier:
    """The Lightning module of a prepared model.

    Raises:
        ConfigError: The method can't train with a key of the trainer.
    """
    if reason := against_balance(cfg.peft, cfg.trainer):
        raise ConfigError(reason)
    learning_rate, head_learning_rate = learning_rates(cfg, settings, injection)
    optimization = Optimization(
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        weight_decay=settings.weight_decay,
        warmup_fraction=settings.warmup_fraction,
        label_smoothing=settings.label_smoothing,
        gradient_clip=settings.gradient_clip,
        total_steps=total_steps(settings, batches),
        seed=cfg.seed,
        class_weights=settings.class_weights,
    )
    module = Classifier(
        injection,
        batches,
        build(cfg.augmentation),
        optimization,
        min(micro_batch_size or settings.batch_size, settings.batch_size),
        FeatureMemory(settings.feature_memory_mb * 2**20),
        own_metrics(cfg.get("metrics")),
        teacher,
    )
    module.inputs.compile(settings.compile)
    return module
