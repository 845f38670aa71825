"""The one LightningModule: trains what PEFT left trainable, and evaluates."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from sousa_bench.data.augmentation import Augmentation
from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory, SousaDataModule
from sousa_bench.errors import UserError
from sousa_bench.results.metrics import Metric, metrics_of, split_metrics
from sousa_bench.training.distributed import copy_from_first_rank, gathered, sum_gradients
from sousa_bench.training.inputs import ClipInputs, Inputs

if TYPE_CHECKING:
    from pytorch_lightning.core.optimizer import LightningOptimizer

    from sousa_bench.peft import Injection
    from sousa_bench.training.teacher import Teacher

NO_LOSS = torch.zeros((), dtype=torch.float64)  # of a rank whose part of a batch is empty


class NonFiniteLossError(UserError):
    """The training or validation loss became NaN or infinite."""


@dataclass(frozen=True)
class Optimization:
    """How the weights move: AdamW with linear warm-up and cosine decay.

    Attributes:
        learning_rate: Peak, per optimizer step.
        head_learning_rate: Peak for the head's last layer.
        weight_decay: Of matrices and kernels; biases and norms have none.
        warmup_fraction: Share of all steps over which the rate rises.
        label_smoothing: Share of a label spread over all classes, the same with and without augmentation.
        gradient_clip: Largest gradient norm, or None.
        total_steps: Optimizer steps of the whole run.
        seed: Where the run's random numbers come from.
        class_weights: ``balanced``, or None: see :func:`class_weights`.
    """

    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    gradient_clip: float | None
    total_steps: int
    seed: int
    class_weights: str | None = None

    def factor(self, step: int) -> float:
        """Share of the peak rate at ``step`` (from 0)."""
        warmup = max(1, round(self.warmup_fraction * self.total_steps))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.total_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass
class EpochSums:
    """What the present epoch has added up so far; part of a mid-epoch checkpoint."""

    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    clips: int = 0
    seconds: float = 0.0

    def mean(self) -> float:
        """The loss so far, of this process's clips; NaN before the first."""
        return self.loss.item() / self.clips if self.clips else math.nan


class Classifier(pl.LightningModule):
    """Waveform clips → logits of the task's classes, under any PEFT method.

    One Lightning batch is one optimizer step. It is cut into micro-batches inside the step, so that the
    effective batch, the schedule and mixup are the same whatever the memory allows.

    Args:
        injection: The model with its adapters, as :func:`sousa_bench.peft.inject` gave it.
        datamodule: Source of clips and labels.
        augmentation: Acts on training clips alone.
        optimization: See :class:`Optimization`.
        micro_batch_size: Most clips of one forward and backward pass.
        memory: Remembered features.
        own_metrics: Those that the config adds to the built-in ones.
        teacher: Whose answers count in the loss, if any's do.
    """

    def __init__(
        self,
        injection: Injection,
        datamodule: SousaDataModule,
        augmentation: Augmentation,
        optimization: Optimization,
        micro_batch_size: int,
        memory: FeatureMemory,
        own_metrics: Sequence[Metric] = (),
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = injection.model
        self.injection = injection
        self.clips: dict[str, Clips] = datamodule.clips
        self.task = self.clips["train"].task
        self.augmentation = augmentation
        self.optimization = optimization
        self.micro_batch_size = micro_batch_size
        self.own_metrics = tuple(own_metrics)
        self.teacher = teacher
        self.inputs = ClipInputs(injection, self.clips, augmentation, memory)
        self.weights = class_weights(self.clips["train"]) if optimization.class_weights else None
        self.steps_done = 0
        self.sums = EpochSums()
        self.history: list[dict[str, Any]] = []
        self.outputs: dict[str, tuple[Tensor, Tensor]] = {}
        self._batch_outputs: list[tuple[np.ndarray, Tensor]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters, without decay for vectors.

        The head's last layer has a peak rate of its own.
        """
        optimization = self.optimization
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        head = {id(p) for p in self.injection.head_parameters()}
        decaying = {id(p) for p in self.injection.decaying_parameters()}
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for p in trainable:
            peak = optimization.head_learning_rate if id(p) in head else optimization.learning_rate
            groups.setdefault((peak, id(p) not in decaying), []).append(p)
        return torch.optim.AdamW(
            [
                {"params": group, "weight_decay": 0.0 if is_vector else optimization.weight_decay, "peak": peak}
                for (peak, is_vector), group in sorted(groups.items(), key=lambda item: item[0])
            ],
            lr=optimization.learning_rate,
            fused=all(p.device.type in ("cpu", "cuda") for p in trainable),
        )

    def on_train_start(self) -> None:
        """What all runs make of the clips alike is there before the first step."""
        self._fill("train")
        self._fill("val")
        if self.teacher is not None and self.trainer.datamodule.goes_through("train"):  # type: ignore[attr-defined]
            with self.trainer.precision_plugin.forward_context(), profiled(self.trainer, "inputs"):
                self.teacher.fill(self.device)

    def on_test_start(self) -> None:
        """Here too; the other splits' features are not needed any more, and leave their place."""
        self.inputs.memory.clear()
        self._fill("test")

    def _fill(self, split: str) -> None:
        if len(self.clips[split]) and self.trainer.datamodule.goes_through(split):  # type: ignore[attr-defined]
            with self.trainer.precision_plugin.forward_context(), profiled(self.trainer, "inputs"):
                self.inputs.fill(split)

    def on_train_epoch_start(self) -> None:
        """Adapters train, frozen normalisation keeps its statistics."""
        self.injection.train_mode()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step over ``batch``."""
        started = time.perf_counter()
        torch.manual_seed(_step_seed(self.optimization.seed, self.steps_done, self.global_rank))
        optimizer = self.optimizers(use_pl_optimizer=True)
        assert not isinstance(optimizer, list)
        inputs = None
        if len(batch.index):
            with profiled(self.trainer, "inputs"):
                inputs = self.training_inputs(batch)
        total = self.update(optimizer, inputs, len(batch.members))
        self.sums.loss = self.sums.loss.to(total.device) + total
        self.sums.clips += len(batch.index)
        self.sums.seconds += time.perf_counter() - started
        if self.device.type == "cpu" or self.steps_done % 50 == 0:
            self._check_training_loss(f"in epoch {batch.epoch + 1}, step {self.steps_done}")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Close an epoch that no validation closes."""
        if self.trainer.is_last_batch and not len(self.clips["val"]):
            self._close_epoch({})

    def training_inputs(self, batch: Batch) -> tuple[Inputs, Tensor, Tensor | None]:
        """Inputs, smoothed soft targets (clips, classes), and a teacher's logits or None, of a training batch.

        With class weights and one label a clip the targets hold the clip's weight (of a mixed clip the mean of both
        labels' weights): cross-entropy is linear in them.
        """
        inputs, targets = self.inputs.training(batch, self.optimization.seed)
        smoothing = self.optimization.label_smoothing
        smoothed = targets * (1 - smoothing) + smoothing / (2 if self.task.several else targets.shape[1])
        if self.weights is not None and not self.task.several:
            smoothed = smoothed * (targets @ self.weights.to(targets))[:, None]
        if self.teacher is None:
            return inputs, smoothed, None
        return inputs, smoothed, self.teacher.logits(batch, self.optimization.seed, self.inputs, self.micro_batch_size)

    def update(
        self,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        inputs: tuple[Inputs, Tensor, Tensor | None] | None,
        clips: int,
    ) -> Tensor:
        """The arithmetic of one optimizer step: forward and backward passes, clipping, new weights.

        Args:
            optimizer: As :meth:`configure_optimizers` made it.
            inputs: See :meth:`training_inputs`; None where no clip of the batch is this process's.
            clips: Of the batch, over all processes.

        Returns:
            The summed loss of this process's clips, a float64 scalar.
        """
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * self.optimization.factor(self.steps_done)
        total = NO_LOSS if inputs is None else self._backward(*inputs, clips)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        sum_gradients(parameters)
        if self.optimization.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.optimization.gradient_clip)
        optimizer.step()
        self.steps_done += 1
        self.injection.after_optimizer_step(self.steps_done)
        optimizer.zero_grad(set_to_none=True)
        return total

    def _backward(self, inputs: Inputs, targets: Tensor, taught: Tensor | None, clips: int) -> Tensor:
        """Accumulate gradients over micro-batches; the loss is a mean over the ``clips`` of all processes."""
        total = torch.zeros((), dtype=torch.float64, device=targets.device)
        for start in range(0, len(inputs), self.micro_batch_size):
            rows = slice(start, start + self.micro_batch_size)
            logits = inputs.logits(rows).float()
            losses = self._losses(logits, targets[rows])
            if self.teacher is not None and taught is not None:
                share = self.teacher.weight
                losses = (1 - share) * losses + share * self.teacher.losses(logits, taught[rows], self.task.several)
            loss = losses.sum() / clips
            if start == 0 and self.global_rank == 0 and (extra := self.injection.extra_loss()) is not None:
                loss = loss + extra
            loss.backward()
            total += losses.detach().sum()
        return total

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(clips,) cross-entropy in nats; with several labels a clip the mean of the classes' binary ones.

        Class weights are there a factor of the loss of the classes that a clip has.
        """
        if self.task.several:
            found = binary_cross_entropy_with_logits(logits, targets, reduction="none")
            if self.weights is not None:
                smoothing = self.optimization.label_smoothing
                held = (targets - smoothing / 2) / (1 - smoothing)  # smoothing gives no clip a class that weighs more
                found = found * (1 + (self.weights.to(logits) - 1) * held)
            return found.mean(dim=1)
        return -(targets * log_softmax(logits, dim=1)).sum(dim=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits; nothing is computed until the end."""
        if len(batch.index):  # else another process has one batch more
            with profiled(self.trainer, "inputs"):
                inputs = self.inputs.plain(batch.split, batch.index)
            self._batch_outputs.append((batch.index, inputs.logits().float()))

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """All ranks evaluate with the first one's batch statistics, where these train."""
        copy_from_first_rank(self.buffers())

    def on_validation_epoch_end(self) -> None:
        """Close the epoch."""
        self._close_epoch(self._split_metrics("val"))

    def _close_epoch(self, metrics: dict[str, float]) -> None:
        """The epoch's losses and metrics enter the history."""
        epoch = self.current_epoch + 1
        self._check_training_loss(f"in epoch {epoch}, step {self.steps_done}")
        if not math.isfinite(metrics.get("val_loss", 0.0)):
            raise self._diverged("validation", metrics["val_loss"], f"after epoch {epoch}")
        loss, clips = self.epoch_loss()
        entry = {
            "epoch": epoch,
            "train_loss": loss / max(clips, 1),
            **metrics,
            "learning_rate": self.optimization.learning_rate * self.optimization.factor(self.steps_done - 1),
            "train_seconds": self.sums.seconds,
        }
        self.history.append(entry)
        self.sums = EpochSums()
        self._log(entry)

    def on_test_epoch_end(self) -> None:
        """Compute the test metrics."""
        self.test_metrics = self._split_metrics("test")
        self._log(self.test_metrics)

    def epoch_loss(self) -> tuple[float, int]:
        """The epoch's summed loss and number of clips so far, over all ranks."""
        losses, clips = zip(*gathered((self.sums.loss.item(), self.sums.clips)), strict=True)
        return sum(losses), sum(clips)

    def _check_training_loss(self, when: str) -> None:
        if not torch.isfinite(self.sums.loss):
            raise self._diverged("training", self.sums.loss.item(), when)

    def _diverged(self, kind: str, loss: float, when: str) -> NonFiniteLossError:
        optimization = self.optimization
        return NonFiniteLossError(
            f"the {kind} loss became {loss} {when}; lower the learning rate (trainer.learning_rate=…, now "
            f"{optimization.learning_rate:g}; the head's trainer.head_learning_rate=…, now "
            f"{optimization.head_learning_rate:g})"
        )

    def _log(self, metrics: dict[str, float]) -> None:
        with profiled(self.trainer, "log"):
            for logger in self.loggers:
                logger.log_metrics(metrics, step=self.steps_done)

    def _split_metrics(self, split: str) -> dict[str, float]:
        """Bring the logits of all processes into the order of the split, a clip's windows as one, and judge them."""
        with profiled(self.trainer, "metrics"):
            mine = [(index, logits.cpu()) for index, logits in self._batch_outputs]
            self._batch_outputs = []
            batches = [batch for part in gathered(mine) for batch in part]
            index = np.concatenate([batch[0] for batch in batches])
            rows = torch.cat([batch[1] for batch in batches]).numpy()
            positions, logits = map(torch.from_numpy, self.clips[split].pieces.mean(index, rows))
            self.outputs[split] = (positions, logits)
            labels = self.clips[split].labels[positions]
            return split_metrics(split, logits, labels, (*metrics_of(self.task), *self.own_metrics))


def class_weights(clips: Clips) -> Tensor:
    """(classes,) float32: what makes the classes of a split weigh alike in the loss; 1 for a class that none has.

    With one label a clip N / (classes with a clip · clips of the class): the mean over clips is 1, so that the loss and
    the learning rate keep their scale. With several, clips without the class / clips with it; 1 where all have it.
    """
    counts = clips.class_counts.astype(np.float64)
    there = counts > 0
    least = np.maximum(counts, 1)
    weights = len(clips) / (there.sum() * least)
    if clips.task.several:
        weights, there = (len(clips) - counts) / least, there & (counts < len(clips))
    return torch.from_numpy(np.where(there, weights, 1.0)).float()


def profiled(trainer: pl.Trainer, action: str) -> AbstractContextManager[str]:
    """Tell the trainer's profiler that what follows is ``action``."""
    return trainer.profiler.profile(action)  # type: ignore[attr-defined]


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout's seed for one optimizer step, so that a resumed run draws what an uninterrupted one would."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
