"""What the network takes of a batch: features from waveforms or from memory, augmented ones, or a remembered prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from sousa_bench.data.augmentation import FULL_SCALE, Augmentation
from sousa_bench.rudiments import RUDIMENTS
from sousa_bench.training.frozen_part import FrozenPrefix, frozen_prefix

if TYPE_CHECKING:
    from sousa_bench.data.augmentation import Draws
    from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory
    from sousa_bench.models.base import State
    from sousa_bench.peft import Injection


@dataclass(frozen=True)
class Inputs:
    """A batch as the network takes it.

    Attributes:
        parts: Features (clips, frames, bins) and padding mask, or the state after the frozen part of the network.
        network: What makes logits (clips, classes) of them.
    """

    parts: State
    network: Callable[[State], Tensor]

    def __len__(self) -> int:
        return 0 if self.parts[0] is None else len(self.parts[0])

    def logits(self, rows: slice = slice(None)) -> Tensor:
        """(clips, classes) of some of the clips."""
        return self.network(tuple(None if part is None else part[rows] for part in self.parts))


class ClipInputs:
    """Makes the inputs of batches.

    Args:
        injection: The model with its adapters, as :func:`sousa_bench.peft.inject` gave it.
        clips: The splits.
        augmentation: Acts on training clips alone.
        memory: Remembered features; its limit holds for the remembered states of a frozen part too.
    """

    def __init__(
        self,
        injection: Injection,
        clips: dict[str, Clips],
        augmentation: Augmentation,
        memory: FeatureMemory,
    ) -> None:
        self.model = injection.model
        self.clips = clips
        self.augmentation = augmentation
        self.memory = memory
        self._frames_of: dict[int, int] = {}
        self._compiled: Callable[..., Tensor] | None = None
        unremembered = partial(self.features, remember=False)  # what the frozen part makes of them is kept instead
        self.prefix: FrozenPrefix | None = frozen_prefix(
            injection, clips, unremembered, self.frames, memory.limit_bytes
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def plain(self, split: str, index: np.ndarray, members: np.ndarray | None = None) -> Inputs:
        """Inputs of clips as they are.

        Args:
            split: ``train``, ``val`` or ``test``.
            index: (clips,) positions.
            members: The whole batch where ``index`` is one rank's part of it: its longest clip counts.
        """
        frames = self._frames_of_longest(split, index if members is None else members)
        if self.prefix is not None:
            return Inputs(self.prefix.states(self.clips[split], index, frames), self.prefix.onward)
        return Inputs(self.features(split, index, frames), self._network)

    def training(self, batch: Batch, seed: int) -> tuple[Inputs, Tensor]:
        """Inputs and soft targets (clips, classes) of a training batch."""
        clips = self.clips[batch.split]
        targets = one_hot(clips.labels[batch.index], len(RUDIMENTS)).to(self.device, torch.float32)
        if self.augmentation.name == "off":
            return self.plain(batch.split, batch.index, batch.members), targets
        draws = self.augmentation.draw(seed, batch.epoch, clips.keys[batch.index])
        if self.augmentation.changes_waveform:
            partners = batch.members[(draws.partner_rank * len(batch.members)).astype(np.int64)]
            samples = self._augmented_samples(clips, batch, partners, draws, seed)
            features, mask = self._augmented_features(clips, batch.index, partners, draws, samples)
            weight = torch.as_tensor(draws.partner_weight, dtype=torch.float32, device=self.device)[:, None]
            mixed = one_hot(clips.labels[partners], len(RUDIMENTS)).to(self.device, torch.float32)
            targets = (1 - weight) * targets + weight * mixed
        else:
            frames = self._frames_of_longest(batch.split, batch.members)
            features, mask = self.features(batch.split, batch.index, frames)
        parts = self.augmentation.on_features(features, mask, draws, self.model.frontend.pad_value)
        return Inputs(parts, self._network), targets

    def features(
        self, split: str, index: np.ndarray, frames: int, *, remember: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Features (clips, frames, bins) and mask of clips as they are, from memory where it holds them.

        Each clip is computed at its own place on the length grid and then padded. A batch of validation or test holds
        clips of one place, so that what the model sees of a clip there does not depend on which clips stand beside it;
        a training batch may hold neighbouring places, and the shorter clips then end in padding.

        Args:
            split: ``train``, ``val`` or ``test``.
            index: (clips,) positions.
            frames: Length to pad to, at least that of the longest.
            remember: Whether to keep what is computed.
        """
        rows = self.memory.get(split, index)
        if rows is None:
            rows = self._computed_rows(split, index, remember)
        value = self.model.frontend.pad_value
        features = torch.stack([pad(row, (0, 0, 0, frames - len(row)), value=value) for row, _ in rows])
        if all(mask is None for _, mask in rows):
            return features.to(self.device), None
        masks = [pad(mask, (0, frames - len(mask)), value=True) for _, mask in rows if mask is not None]
        return features.to(self.device), torch.stack(masks).to(self.device)

    def frames(self, samples: int) -> int:
        """Feature frames of a clip of so many samples."""
        if samples not in self._frames_of:
            silence = torch.zeros(1, samples, device=self.device)
            features, _ = self.model.features(silence, torch.tensor([samples], device=self.device))
            self._frames_of[samples] = features.shape[1]
        return self._frames_of[samples]

    def compile(self, wanted: bool) -> None:
        """Let the network's passes be compiled ones from now on, or plain ones again."""
        self._compiled = torch.compile(self.model.backbone) if wanted else None

    def _network(self, parts: State) -> Tensor:
        network = self.model.backbone if self._compiled is None else self._compiled  # a module may have a length
        return network(*parts)

    def _frames_of_longest(self, split: str, index: np.ndarray) -> int:
        return self.frames(int(self.clips[split].padded[index].max()))

    def _computed_rows(self, split: str, index: np.ndarray, remember: bool) -> list[tuple[Tensor, Tensor | None]]:
        clips = self.clips[split]
        rows: dict[int, tuple[Tensor, Tensor | None]] = {}
        for samples in np.unique(clips.padded[index]):
            places = np.flatnonzero(clips.padded[index] == samples)
            same = index[places]
            waveform = self._floats(clips.waveform(same, int(samples)))
            features, mask = self.model.features(waveform, torch.from_numpy(clips.lengths[same]).to(self.device))
            if remember:
                self.memory.put(split, same, features, mask)
            rows |= {int(p): (features[r], None if mask is None else mask[r]) for r, p in enumerate(places)}
        return [rows[place] for place in range(len(index))]

    def _augmented_samples(self, clips: Clips, batch: Batch, partners: np.ndarray, draws: Draws, seed: int) -> int:
        """Samples of the longest clip of the whole batch, mixup's partners included."""
        index = batch.index
        if len(batch.members) > len(index):
            index = batch.members
            draws = self.augmentation.draw(seed, batch.epoch, clips.keys[index])
            partners = index[(draws.partner_rank * len(index)).astype(np.int64)]
        longer = np.maximum(clips.padded[index], clips.padded[partners])
        return int(np.where(draws.partner_weight > 0, longer, clips.padded[index]).max())

    def _augmented_features(
        self, clips: Clips, index: np.ndarray, partners: np.ndarray, draws: Draws, samples: int
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
