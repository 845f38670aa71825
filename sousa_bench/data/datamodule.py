"""Batches: which clips stand together, in which order, as waveforms or as remembered features."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sousa_bench.data import SPLITS
from sousa_bench.task import Task

if TYPE_CHECKING:
    from sousa_bench.data import SousaData
    from sousa_bench.data.cache import Kept


_STRETCH = 2**32 - 1
"""Sets the draw of a clip's stretch apart from augmentation's: no copy of a clip has this number (see `draw_keys`)."""


@dataclass(frozen=True)
class Batch:
    """Clips of one split, as positions in its table.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        index: (clips,) positions in the split's table: this process's part of the batch. In evaluation (pieces,)
            positions in :attr:`Clips.pieces`, which are the same where each clip is one piece.
        members: (global clips,) the whole batch over all processes, from which mixup takes partners.
        copies: (clips,) how often each of ``index`` has come before in this epoch, more than never with balanced
            sampling alone; None: no clip comes twice.
        epoch: From 0.
        step: Optimizer step within the epoch, from 0.
    """

    split: str
    index: np.ndarray
    members: np.ndarray
    epoch: int = 0
    step: int = 0
    copies: np.ndarray | None = None


@dataclass(frozen=True)
class Pieces:
    """What evaluation hears of a split: each clip as one piece, or a long clip as several windows.

    Attributes:
        clip: (pieces,) position of the clip, ascending.
        start: (pieces,) first sample.
        padded: (pieces,) samples, on the grid.
    """

    clip: np.ndarray
    start: np.ndarray
    padded: np.ndarray

    def __len__(self) -> int:
        return len(self.clip)

    @classmethod
    def of(cls, lengths: np.ndarray, most: int, padded: np.ndarray, windows: int | str | None) -> Pieces:
        """Spread windows evenly over clips: from beginning to end, or a single one in the middle.

        Args:
            lengths: (clips,) samples, to the clips' ends.
            most: Samples of a window.
            padded: (clips,) samples of a window of each clip, on the grid.
            windows: A number, of which a clip has no more than it takes to cover it; ``all``: as many as that; None:
                its beginning.
        """
        counts = np.ones(len(lengths), dtype=np.int64)
        if windows is not None:
            cover = np.maximum(-(-lengths // most), 1)
            counts = cover if windows == "all" else np.minimum(cover, int(windows))
        clip = np.repeat(np.arange(len(lengths)), counts)
        number = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
        share = np.where(counts[clip] > 1, number / np.maximum(counts[clip] - 1, 1), 0.0 if windows is None else 0.5)
        start = np.rint(share * np.maximum(lengths - most, 0)[clip]).astype(np.int64)
        return cls(clip, start, padded[clip])

    def mean(self, index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The means over the pieces of each clip: of logits, as what comes after needs them.

        Args:
            index: (some pieces,) which, in any order.
            values: (some pieces, columns).

        Returns:
            The positions of these pieces' clips, ascending, and (clips, columns) of the same kind of number.
        """
        order = np.argsort(index, kind="stable")
        clips, place, counts = np.unique(self.clip[index[order]], return_inverse=True, return_counts=True)
        if (counts == 1).all():
            return clips, values[order]
        sums = np.zeros((len(clips), values.shape[1]))
        np.add.at(sums, place, values[order])
        return clips, (sums / counts[:, None]).astype(values.dtype)


class Clips:
    """One split in memory: labels, lengths on the grid, waveforms on demand.

    ``labels`` are class numbers, (clips,) int64, or where a clip may have several, (clips, classes) int64 of 0 and 1.
    ``lengths`` are the samples of a clip that go through the network at a time, ``pieces`` what evaluation hears of it.

    Args:
        data: The prepared data.
        split: Which split.
        sample_rate: Hz.
        quantum: Seconds; a clip is padded to a whole number of these.
    """

    def __init__(self, data: SousaData, split: str, sample_rate: int, quantum: float) -> None:
        self.split = split
        self.sample_rate = sample_rate
        self._data = data
        self.table = data.rows(split)
        self.store = data.waveforms(split, sample_rate)
        self.task = data.task
        self.labels = _labels(self.table["label"], self.task)
        whole = np.asarray(self.store.lengths, dtype=np.int64)
        most = round(data.max_duration * sample_rate)
        self.lengths = np.minimum(whole, most)
        self.slack = whole - self.lengths
        step = round(quantum * sample_rate)
        self.padded = np.maximum(-(-self.lengths // step), 1) * step
        self.pieces = Pieces.of(whole, most, self.padded, data.windows)
        self.keys = np.array([zlib.crc32(str(name).encode()) for name in self.table["sample_id"]], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def kept(self) -> Kept:
        """Where to keep what networks make of these clips."""
        return self._data.kept(self.split)

    @property
    def cut(self) -> bool:
        """Whether a clip is longer than what goes through the network at a time, and is heard elsewhere too."""
        return bool(self.slack.any())

    def stretches(self, index: np.ndarray, seed: int, epoch: int, keys: np.ndarray) -> np.ndarray:
        """(clips,) int64 first samples of what training hears of clips in one epoch.

        They are drawn as a share of what is left over, so that at all sample rates the same is heard.

        Args:
            index: (clips,) positions.
            seed: The run's seed.
            epoch: From 0.
            keys: (clips,) see :meth:`draw_keys`.
        """
        slack = self.slack[index]
        draws = [np.random.default_rng([seed, epoch, int(key), _STRETCH]).random() for key in keys]
        return np.rint(slack * np.array(draws)).astype(np.int64)

    @property
    def class_counts(self) -> np.ndarray:
        """(classes,) clips that have each class."""
        if self.task.several:
            return self.labels.sum(dim=0).numpy()
        return np.bincount(self.labels.numpy(), minlength=len(self.task.classes))

    @property
    def rarest(self) -> np.ndarray:
        """(clips,) each clip's class, of several the one that fewest clips have; -1 for a clip without any."""
        if not self.task.several:
            return self.labels.numpy()
        held = self.labels.numpy() > 0
        rarest = np.where(held, self.class_counts, np.iinfo(np.int64).max).argmin(axis=1)
        return np.where(held.any(axis=1), rarest, -1)

    def draw_keys(self, batch: Batch) -> np.ndarray:
        """(clips,) int64: what a training batch's random numbers are drawn from; a clip's copies have their own."""
        keys = self.keys[batch.index]
        return keys if batch.copies is None else keys + (batch.copies << 32)  # a clip's key has 32 bits

    def targets(self, index: Sequence[int] | np.ndarray) -> Tensor:
        """(clips, classes) float32 of 0 and 1."""
        labels = self.labels[index]
        return (labels if self.task.several else one_hot(labels, len(self.task.classes))).float()

    def heard(self, piece: int) -> np.ndarray:
        """(samples,) int16 of one of the ``pieces``."""
        clip = int(self.pieces.clip[piece])
        return self.store.read(clip, int(self.pieces.start[piece]), int(self.lengths[clip]))

    def waveform(
        self, index: Sequence[int] | np.ndarray, samples: int | None = None, starts: np.ndarray | None = None
    ) -> Tensor:
        """(clips, samples) int16, padded with zeros to ``samples`` or to the longest clip's place on the grid.

        Args:
            index: Positions of clips.
            samples: Width.
            starts: (clips,) first samples; None: the beginnings.
        """
        width = int(max(self.padded[i] for i in index)) if samples is None else samples
        block = np.zeros((len(index), width), dtype=np.int16)
        for row, i in enumerate(index):
            clip = self.store.read(int(i), 0 if starts is None else int(starts[row]), int(self.lengths[i]))
            block[row, : len(clip)] = clip
        return torch.from_numpy(block)


def _labels(column: pd.Series, task: Task) -> Tensor:
    if not task.several:
        return torch.from_numpy(column.to_numpy(dtype=np.int64, copy=True))
    labels = torch.zeros(len(column), len(task.classes), dtype=torch.int64)
    for row, numbers in enumerate(column):
        labels[row, list(numbers)] = 1
    return labels


class Batches:
    """The batches of one pass over a split, as Lightning's loops read them.

    Args:
        batches: In their order.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class EpochBatches(Batches):
    """The training batches of one epoch, in an order that (seed, epoch) alone decides.

    Clips of like length stand together, so that little of a batch is padding; the batches themselves come shuffled.

    Args:
        clips: The training split.
        batch_size: Clips of one optimizer step, over all processes.
        seed: The run's seed.
        epoch: From 0.
        skip: Batches at the epoch's start that were done before an interruption.
        limit: Use at most this many batches an epoch, one with the longest clips first.
        rank: This process's number.
        world_size: Processes.
        balanced: Draw as many clips of each class (by :attr:`Clips.rarest`); the epoch stays as long as it is.
    """

    def __init__(
        self,
        clips: Clips,
        batch_size: int,
        seed: int,
        epoch: int,
        *,
        skip: int = 0,
        limit: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        balanced: bool = False,
    ) -> None:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(clips))
        if balanced:
            order = rng.permutation(_balanced(order, clips.rarest, rng.random()))
        pools = [chunk[np.argsort(clips.padded[chunk], kind="stable")] for chunk in _cut(order, batch_size * 16)]
        batches = [batch for pool in pools for batch in _cut(pool, batch_size)]
        batches = _limited([batches[i] for i in rng.permutation(len(batches))], clips.padded, limit)
        copies = _copies(batches) if balanced else [None] * len(batches)
        super().__init__(
            [
                Batch(
                    clips.split,
                    part[rank::world_size],
                    part,
                    epoch,
                    step,
                    None if copy is None else copy[rank::world_size],
                )
                for step, (part, copy) in enumerate(zip(batches, copies, strict=True))
            ][skip:]
        )


def _balanced(order: np.ndarray, groups: np.ndarray, offset: float) -> np.ndarray:
    """As many clips as there are, the same number of each group to within one.

    A clip of a group of n comes N / (n · groups) times, rounded down or up: systematic sampling.

    Args:
        order: (N,) positions in the epoch's random order.
        groups: (N,) number of each clip's group.
        offset: From 0 to 1, random.
    """
    by_group = order[np.argsort(groups[order], kind="stable")]
    _, own, sizes = np.unique(groups[by_group], return_inverse=True, return_counts=True)
    ends = np.cumsum(len(order) / (len(sizes) * sizes[own]))
    places = np.searchsorted(ends, offset + np.arange(len(order)), side="right")
    return by_group[np.minimum(places, len(order) - 1)]


def _copies(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """How often each clip of each batch has come before."""
    drawn = pd.Series(np.concatenate(batches))
    copies = drawn.groupby(drawn, sort=False).cumcount().to_numpy(dtype=np.int64)
    return np.split(copies, np.cumsum([len(batch) for batch in batches])[:-1])


class EvalBatches(Batches):
    """Every piece of every clip once, each padded to its own place on the grid whatever the batch it stands in.

    Args:
        clips: The split.
        batch_size: Most pieces of a batch.
        limit: Use at most this many batches, one with the longest clips first.
        rank: This process's number.
        world_size: Processes.
    """

    def __init__(
        self, clips: Clips, batch_size: int, *, limit: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        padded = clips.pieces.padded
        lengths = np.unique(padded)
        batches = [batch for size in lengths for batch in _cut(np.flatnonzero(padded == size), batch_size)]
        batches = _limited(batches, padded, limit)
        # Lightning wants as many batches from each process, and at least one; what lacks is an empty one.
        batches += [np.arange(0)] * (-len(batches) % world_size)
        super().__init__(
            [Batch(clips.split, part, part, 0, step) for step, part in enumerate(batches[rank::world_size])]
        )


def _cut(clips: np.ndarray, size: int) -> list[np.ndarray]:
    return [clips[i : i + size] for i in range(0, len(clips), size)]


def _limited(batches: list[np.ndarray], padded: np.ndarray, limit: int | None) -> list[np.ndarray]:
    """At most `limit` batches, the one that needs the most memory in front: a run of a few shows whether it fits."""
    if limit is None:
        return batches
    longest = max(range(len(batches)), key=lambda i: (padded[batches[i]].max(), len(batches[i])), default=0)
    return (batches[longest : longest + 1] + batches[:longest] + batches[longest + 1 :])[:limit]


class FeatureMemory:
    """Features of pieces of clips that no augmentation precedes, kept from their first computation on.

    Args:
        limit_bytes: Once this much is held, further clips are computed anew each time.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._features: dict[tuple[str, int], tuple[Tensor, Tensor | None]] = {}

    def get(self, split: str, index: np.ndarray) -> list[tuple[Tensor, Tensor | None]] | None:
        """The clips' features (frames, bins) and masks, or None unless every one is held."""
        found = [self._features.get((split, int(i))) for i in index]
        return None if any(item is None for item in found) else found  # type: ignore[return-value]

    def put(self, split: str, index: np.ndarray, features: Tensor, mask: Tensor | None) -> None:
        """Keep the rows of ``features`` (clips, frames, bins) as far as the limit allows."""
        size = features[0].numel() * features.element_size()
        for row, i in enumerate(index):
            key = (split, int(i))
            if key in self._features or self.held_bytes + size > self.limit_bytes:
                continue
            self._features[key] = (features[row].clone(), None if mask is None else mask[row].clone())
            self.held_bytes += size

    def hold(self, split: str, found: Mapping[int, tuple[Tensor, Tensor | None]]) -> None:
        """Keep features and masks that other runs share, of pieces by position, each (1, frames, …) as it stands."""
        for i, (features, mask) in found.items():
            self._features[split, i] = (features[0], None if mask is None else mask[0])
            self.held_bytes += features.numel() * features.element_size()

    def clear(self) -> None:
        """Hold nothing any more."""
        self._features.clear()
        self.held_bytes = 0


class SousaDataModule(pl.LightningDataModule):
    """Hands Lightning the batches of each split.

    Args:
        data: Prepared data.
        sample_rate: The model's, in Hz.
        quantum: Seconds of the length grid.
        batch_size: Clips of one optimizer step, over all processes.
        eval_batch_size: Clips of one batch of validation and test.
        seed: The run's seed.
        train_batches: Most training batches an epoch, or None.
        eval_batches: Most validation and test batches, or None.
        start: (epoch, batches of it done) where an interrupted run goes on.
        balanced: Whether an epoch draws as many clips of each class.
    """

    def __init__(
        self,
        data: SousaData,
        *,
        sample_rate: int,
        quantum: float,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        train_batches: int | None = None,
        eval_batches: int | None = None,
        start: tuple[int, int] = (0, 0),
        balanced: bool = False,
    ) -> None:
        super().__init__()
        self.clips = {split: Clips(data, split, sample_rate, quantum) for split in SPLITS}
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_batches = train_batches
        self.eval_batches = eval_batches
        self.start = start
        self.balanced = balanced

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return len(EpochBatches(self.clips["train"], self.batch_size, self.seed, 0, limit=self.train_batches))

    def goes_through(self, split: str) -> bool:
        """Whether a run takes the whole of a split."""
        return (self.train_batches if split == "train" else self.eval_batches) is None

    def _ranks(self) -> dict[str, int]:
        trainer = self.trainer
        return {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer is not None else {}

    def train_dataloader(self) -> EpochBatches:
        """The present epoch's batches; Lightning asks anew for each epoch."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        skip = self.start[1] if epoch == self.start[0] else 0
        return EpochBatches(
            self.clips["train"],
            self.batch_size,
            self.seed,
            epoch,
            skip=skip,
            limit=self.train_batches,
            balanced=self.balanced,
            **self._ranks(),
        )

    def _evaluation(self, split: str) -> EvalBatches:
        return EvalBatches(self.clips[split], self.eval_batch_size, limit=self.eval_batches, **self._ranks())

    def val_dataloader(self) -> EvalBatches:
        """The validation split."""
        return self._evaluation("val")

    def test_dataloader(self) -> EvalBatches:
        """The test split."""
        return self._evaluation("test")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches hold positions only; the model fetches what it needs."""
        return batch
