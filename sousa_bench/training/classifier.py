"""The one LightningModule: trains what PEFT left trainable, evaluates, and keeps the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from sousa_bench.data.augmentation import Augmentation
from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory, SousaDataModule
from sousa_bench.errors import UserError
from sousa_bench.training.distributed import gathered, same_tensors, sum_gradients
from sousa_bench.training.inputs import ClipInputs, Inputs
from sousa_bench.training.metrics import split_metrics

if TYPE_CHECKING:
    from sousa_bench.models.base import AudioModel
    from sousa_bench.peft import Injection


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
    """

    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    gradient_clip: float | None
    total_steps: int
    seed: int

    def way_out(self) -> str:
        """What may help where the loss is no number."""
        return (
            f"lower the learning rate (trainer.learning_rate=…, now {self.learning_rate:g}; the head's "
            f"trainer.head_learning_rate=…, now {self.head_learning_rate:g})"
        )

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


class Classifier(pl.LightningModule):
    """Waveform clips → rudiment logits, under any PEFT method.

    One Lightning batch is one optimizer step. It is cut into micro-batches inside the step, so that the
    effective batch, the schedule and mixup are the same whatever the memory allows.

    Args:
        model: The model with its injected adapters.
        injection: What :func:`sousa_bench.peft.inject` gave.
        datamodule: Source of clips and labels.
        augmentation: Acts on training clips alone.
        optimization: See :class:`Optimization`.
        micro_batch_size: Most clips of one forward and backward pass.
        memory: Remembered features.
    """

    def __init__(
        self,
        model: AudioModel,
        injection: Injection,
        datamodule: SousaDataModule,
        augmentation: Augmentation,
        optimization: Optimization,
        micro_batch_size: int,
        memory: FeatureMemory,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.injection = injection
        self.clips: dict[str, Clips] = datamodule.clips
        self.augmentation = augmentation
        self.optimization = optimization
        self.micro_batch_size = micro_batch_size
        self.inputs = ClipInputs(model, injection, self.clips, augmentation, memory)
        self.steps_done = 0
        self.sums = EpochSums()
        self.history: list[dict[str, Any]] = []
        self.outputs: dict[str, tuple[Tensor, Tensor]] = {}
        self._batch_outputs: list[tuple[np.ndarray, Tensor]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters, without decay for vectors.

        Vectors are also those that a method stores with a second dimension of one, such as IA3's factors, whose
        neutral value is 1 and not 0. The head's last layer has a peak rate of its own.
        """
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        head = {id(p) for p in self.injection.head_parameters()}
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for p in trainable:
            peak = self.optimization.head_learning_rate if id(p) in head else self.optimization.learning_rate
            groups.setdefault((peak, p.numel() == max(p.shape, default=1)), []).append(p)
        return torch.optim.AdamW(
            [
                {
                    "params": groups[key],
                    "weight_decay": 0.0 if key[1] else self.optimization.weight_decay,
                    "peak": key[0],
                }
                for key in sorted(groups)
            ],
            lr=self.optimization.learning_rate,
            fused=all(p.device.type in ("cpu", "cuda") for p in trainable),
        )

    def on_train_epoch_start(self) -> None:
        """Adapters train, frozen normalisation keeps its statistics."""
        self.injection.train_mode()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step over ``batch``."""
        started = time.perf_counter()
        torch.manual_seed(_step_seed(self.optimization.seed, self.steps_done, self.global_rank))
        optimizer = self.optimizers(use_pl_optimizer=True)
        assert not isinstance(optimizer, list)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * self.optimization.factor(self.steps_done)
        total = self._backward(*self._training_inputs(batch), len(batch.members)) if len(batch.index) else NO_LOSS
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.trainer.world_size > 1:
            sum_gradients(parameters)
        if self.optimization.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.optimization.gradient_clip)
        optimizer.step()
        self.steps_done += 1
        self.injection.after_optimizer_step(self.steps_done)
        optimizer.zero_grad(set_to_none=True)
        self.sums.loss = self.sums.loss.to(total.device) + total
        self.sums.clips += len(batch.index)
        self.sums.seconds += time.perf_counter() - started
        if self.device.type == "cpu" or self.steps_done % 50 == 0:
            self._check_finite(batch.epoch)

    def _backward(self, inputs: Inputs, targets: Tensor, batch: int) -> Tensor:
        """Accumulate gradients over micro-batches; return the summed loss of this process's clips, float64."""
        total = torch.zeros((), dtype=torch.float64, device=targets.device)
        for rows in _chunks(len(inputs), self.micro_batch_size):
            logits = inputs.logits(rows)
            losses = -(targets[rows] * log_softmax(logits.float(), dim=1)).sum(dim=1)
            loss = losses.sum() / batch
            if rows.start == 0 and self.global_rank == 0 and (extra := self.injection.extra_loss()) is not None:
                loss = loss + extra
            self.manual_backward(loss)
            total += losses.detach().sum()
        return total

    def _training_inputs(self, batch: Batch) -> tuple[Inputs, Tensor]:
        """Inputs and smoothed soft targets (clips, classes) of a training batch."""
        inputs, targets = self.inputs.training(batch, self.optimization.seed)
        smoothing = self.optimization.label_smoothing
        return inputs, targets * (1 - smoothing) + smoothing / targets.shape[1]

    def _check_finite(self, epoch: int) -> None:
        if not torch.isfinite(self.sums.loss):
            raise NonFiniteLossError(
                f"the training loss became {self.sums.loss.item()} in epoch {epoch + 1}, step {self.steps_done}; "
                f"{self.optimization.way_out()}"
            )

    def _evaluate(self, batch: Batch) -> None:
        if not len(batch.index):  # another process has one batch more
            return
        logits = self.inputs.plain(batch.split, batch.index).logits()
        self._batch_outputs.append((batch.index, logits.float()))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits; nothing is computed until the end."""
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits; nothing is computed until the end."""
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        """All ranks evaluate with the first one's batch statistics, where these train."""
        if self.trainer.world_size > 1:
            same_tensors(self.buffers())

    def on_validation_epoch_end(self) -> None:
        """Close the epoch: its losses and metrics enter the history."""
        metrics = self._split_outputs("val")
        self._check_finite(self.current_epoch)
        if not math.isfinite(metrics["val_loss"]):
            raise NonFiniteLossError(
                f"the validation loss became {metrics['val_loss']} after epoch {self.current_epoch + 1}; "
                f"{self.optimization.way_out()}"
            )
        loss, clips = self.over_processes()
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": loss / max(clips, 1),
                **metrics,
                "learning_rate": self.optimization.learning_rate * self.optimization.factor(self.steps_done - 1),
                "train_seconds": self.sums.seconds,
            }
        )
        self.sums = EpochSums()
        for logger in self.loggers:
            logger.log_metrics({k: v for k, v in self.history[-1].items() if k != "epoch"}, step=self.steps_done)

    def on_test_epoch_end(self) -> None:
        """Compute the test metrics."""
        self.test_metrics = self._split_outputs("test")
        for logger in self.loggers:
            logger.log_metrics(self.test_metrics, step=self.steps_done)

    def over_processes(self) -> tuple[float, int]:
        """The epoch's summed loss and number of clips so far, over all ranks."""
        if self.trainer.world_size == 1:
            return self.sums.loss.item(), self.sums.clips
        parts = gathered((self.sums.loss.item(), self.sums.clips), self.trainer.world_size)
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def _split_outputs(self, split: str) -> dict[str, float]:
        index = np.concatenate([i for i, _ in self._batch_outputs]) if self._batch_outputs else np.zeros(0, np.int64)
        logits = torch.cat([rows for _, rows in self._batch_outputs]).cpu() if self._batch_outputs else torch.zeros(0)
        self._batch_outputs = []
        if self.trainer.world_size > 1:
            parts = [p for p in gathered((index, logits), self.trainer.world_size) if len(p[0])]
            index, logits = np.concatenate([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        order = np.argsort(index, kind="stable")
        positions = torch.from_numpy(index[order])
        self.outputs[split] = (positions, logits[torch.from_numpy(order)])
        return split_metrics(split, self.outputs[split][1], self.clips[split].labels[positions])


def _chunks(size: int, width: int) -> Iterator[slice]:
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout's seed for one optimizer step, so that a resumed run draws what an uninterrupted one would."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
