"""A fit without epochs: ``peft=probe`` and ``peft=knn``, which share the features and all else but what is fitted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch

from sousa_bench.errors import ConfigError
from sousa_bench.peft.nearest_neighbours import handing_on
from sousa_bench.peft.options import trains_nothing
from sousa_bench.training import knn, probe
from sousa_bench.training.classifier import Classifier, EpochSums
from sousa_bench.training.pooled_features import PooledFeatures

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import SousaDataModule


def solve(module: Classifier, batches: SousaDataModule, trainer: pl.Trainer) -> list[str]:
    """Fit what takes the head's place to the training clips' features, and close the run's one epoch.

    What there is to choose the validation loss chooses, and not the accuracy, which on a few hundred clips has ties.

    Args:
        module: A prepared method without steps; its injection keeps what was found.
        batches: The clips, limited as in any run.
        trainer: Validates what was fitted, so that history and loggers get it as they get an epoch.

    Returns:
        Warnings.

    Raises:
        ConfigError: Training clips are to be augmented.
        PeftError: The head's last layer has no bias, or the logits are not linear in it.
    """
    method = module.injection.options.name
    if (name := module.augmentation.name) != "off":
        raise ConfigError(f"peft={method} takes each clip as it is: give augmentation=off, not augmentation={name}")
    started = time.perf_counter()
    module.to(trainer.strategy.root_device).eval()
    module.inputs.compile(False)
    with trainer.precision_plugin.forward_context(), handing_on(module.model):
        train = PooledFeatures.of(module, "train", module.micro_batch_size, batches.train_batches)
        validation = PooledFeatures.of(module, "val", batches.eval_batch_size, batches.eval_batches)
    fit = knn.fit if trains_nothing(module.injection.node) else probe.fit
    fitted = fit(module.injection, train, validation)
    module.injection.fitted = dict(fitted.facts)
    module.steps_done = fitted.steps
    clips = len(train.by_clip()[1])
    module.sums = EpochSums(torch.tensor(fitted.loss * clips), clips, time.perf_counter() - started)
    trainer.validate(module, datamodule=batches, verbose=False)
    if fitted.logits is not None:
        probe.check_linear(module.outputs["val"][1].numpy(), fitted.logits, module.model)
    return fitted.warnings
