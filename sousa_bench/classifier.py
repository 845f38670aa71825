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
from torch.nn.functional import log_softmax, one_hot, pad

from sousa_bench.augmentation import FULL_SCALE, Augmentation
from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory, SousaDataModule
from sousa_bench.distributed import gathered, same_tensors, sum_gradients
from sousa_bench.errors import UserError
from sousa_bench.metrics import split_metrics
from sousa_bench.rudiments import RUDIMENTS

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
        weight_decay: Of matrices and kernels; biases and norms have none.
        warmup_fraction: Share of all steps over which the rate rises.
        label_smoothing: Share of a label spread over all classes, the same with and without augmentation.
        gradient_clip: Largest gradient norm, or None.
        total_steps: Optimizer steps of the whole run.
        seed: Where the run's random numbers come from.
    """

    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    gradient_clip: float | None
    total_steps: int
    seed: int

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
        self.memory = memory
        self.steps_done = 0
        self.sums = EpochSums()
        self.history: list[dict[str, Any]] = []
        self.outputs: dict[str, tuple[Tensor, Tensor]] = {}
        self._batch_outputs: list[tuple[np.ndarray, Tensor]] = []
        self._frames_of: dict[int, int] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters, without decay for vectors.

        Vectors are also those that a method stores with a second dimension of one, such as IA3's factors, whose
        neutral value is 1 and not 0.
        """
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        vectors = [p for p in trainable if p.numel() == max(p.shape, default=1)]
        matrices = [p for p in trainable if p.numel() > max(p.shape, default=1)]
        groups = [
            {"params": matrices, "weight_decay": self.optimization.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
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
            group["lr"] = self.optimization.learning_rate * self.optimization.factor(self.steps_done)
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

    def _backward(self, features: Tensor, mask: Tensor | None, targets: Tensor, batch: int) -> Tensor:
        """Accumulate gradients over micro-batches; return the summed loss of this process's clips, float64."""
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        for rows in _chunks(len(features), self.micro_batch_size):
            logits = self.model.backbone(features[rows], None if mask is None else mask[rows])
            losses = -(targets[rows] * log_softmax(logits.float(), dim=1)).sum(dim=1)
            loss = losses.sum() / batch
            if rows.start == 0 and self.global_rank == 0 and (extra := self.injection.extra_loss()) is not None:
                loss = loss + extra
            self.manual_backward(loss)
            total += losses.detach().sum()
        return total

    def _training_inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features, mask and soft targets (clips, classes) of a training batch."""
        clips = self.clips[batch.split]
        classes = len(RUDIMENTS)
        targets = one_hot(clips.labels[batch.index], classes).to(self.device, torch.float32)
        if self.augmentation.name == "off":
            features, mask = self.clip_features(batch.split, batch.index, batch.members)
        else:
            draws = self.augmentation.draw(self.optimization.seed, batch.epoch, clips.keys[batch.index])
            if self.augmentation.changes_waveform:
                partners = batch.members[(draws.partner_rank * len(batch.members)).astype(np.int64)]
                samples = self._augmented_samples(clips, batch, partners, draws)
                features, mask = self._augmented_features(clips, batch.index, partners, draws, samples)
                weight = torch.as_tensor(draws.partner_weight, dtype=torch.float32, device=self.device)[:, None]
                mixed = one_hot(clips.labels[partners], classes).to(self.device, torch.float32)
                targets = (1 - weight) * targets + weight * mixed
            else:
                features, mask = self.clip_features(batch.split, batch.index, batch.members)
            features, mask = self.augmentation.on_features(features, mask, draws, self.model.frontend.pad_value)
        smoothing = self.optimization.label_smoothing
        return features, mask, targets * (1 - smoothing) + smoothing / classes

    def _augmented_samples(self, clips: Clips, batch: Batch, partners: np.ndarray, draws: Any) -> int:
        """Samples of the longest clip of the whole batch, mixup's partners included."""
        index = batch.index
        if len(batch.members) > len(index):
            index = batch.members
            draws = self.augmentation.draw(self.optimization.seed, batch.epoch, clips.keys[index])
            partners = index[(draws.partner_rank * len(index)).astype(np.int64)]
        longer = np.maximum(clips.padded[index], clips.padded[partners])
        return int(np.where(draws.partner_weight > 0, longer, clips.padded[index]).max())

    def _augmented_features(
        self, clips: Clips, index: np.ndarray, partners: np.ndarray, draws: Any, samples: int
    ) -> tuple[Tensor, Tensor | None]:
        mixed = draws.partner_weight > 0
        lengths = np.where(mixed, np.maximum(clips.lengths[index], clips.lengths[partners]), clips.lengths[index])
        waveform = self._floats(clips.waveform(index, samples))
        partner = None
        if mixed.any():
            partner = torch.zeros_like(waveform)
            partner[torch.from_numpy(mixed).to(self.device)] = self._floats(clips.waveform(partners[mixed], samples))
        sizes = torch.from_numpy(lengths).to(self.device)
        return self.model.features(self.augmentation.on_waveform(waveform, sizes, draws, partner), sizes)

    def _floats(self, samples: Tensor) -> Tensor:
        return samples.to(self.device, non_blocking=True).to(torch.float32) / FULL_SCALE

    def clip_features(
        self, split: str, index: np.ndarray, members: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features (clips, frames, bins) and mask of clips as they are, from memory where it holds them.

        Each clip is computed at its own place on the length grid and then padded to the longest. A batch of
        validation or test holds clips of one place, so that what the model sees of a clip there does not depend on
        which clips stand beside it; a training batch may hold neighbouring places, and the shorter clips then end in
        padding.

        Args:
            split: ``train``, ``val`` or ``test``.
            index: (clips,) positions.
            members: The whole batch where ``index`` is one rank's part of it: its longest clip counts.
        """
        rows = self.memory.get(split, index)
        if rows is None:
            rows = self._computed_rows(split, index)
        frames = max(len(features) for features, _ in rows)
        if members is not None and len(members) > len(index):
            frames = max(frames, self._frames(int(self.clips[split].padded[members].max())))
        value = self.model.frontend.pad_value
        features = torch.stack([pad(row, (0, 0, 0, frames - len(row)), value=value) for row, _ in rows])
        if all(mask is None for _, mask in rows):
            return features.to(self.device), None
        masks = [pad(mask, (0, frames - len(mask)), value=True) for _, mask in rows if mask is not None]
        return features.to(self.device), torch.stack(masks).to(self.device)

    def _frames(self, samples: int) -> int:
        """Feature frames of a clip of so many samples."""
        if samples not in self._frames_of:
            silence = torch.zeros(1, samples, device=self.device)
            features, _ = self.model.features(silence, torch.tensor([samples], device=self.device))
            self._frames_of[samples] = features.shape[1]
        return self._frames_of[samples]

    def _computed_rows(self, split: str, index: np.ndarray) -> list[tuple[Tensor, Tensor | None]]:
        clips = self.clips[split]
        rows: dict[int, tuple[Tensor, Tensor | None]] = {}
        for samples in np.unique(clips.padded[index]):
            places = np.flatnonzero(clips.padded[index] == samples)
            same = index[places]
            waveform = self._floats(clips.waveform(same, int(samples)))
            features, mask = self.model.features(waveform, torch.from_numpy(clips.lengths[same]).to(self.device))
            self.memory.put(split, same, features, mask)
            rows |= {int(p): (features[r], None if mask is None else mask[r]) for r, p in enumerate(places)}
        return [rows[place] for place in range(len(index))]

    def _check_finite(self, epoch: int) -> None:
        if not torch.isfinite(self.sums.loss):
            raise NonFiniteLossError(
                f"the training loss became {self.sums.loss.item()} in epoch {epoch + 1}, step {self.steps_done}; "
                f"lower the learning rate (now {self.optimization.learning_rate:g}, peft.learning_rate=…)"
            )

    def _evaluate(self, batch: Batch) -> None:
        if not len(batch.index):  # another process has one batch more
            return
        logits = self.model.backbone(*self.clip_features(batch.split, batch.index))
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
                f"the validation loss became {metrics['val_loss']} after epoch {self.current_epoch + 1}; lower the "
                f"learning rate (now {self.optimization.learning_rate:g}, peft.learning_rate=…)"
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
