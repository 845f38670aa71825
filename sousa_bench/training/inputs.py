"""What the network takes of a batch: features from waveforms or from memory, augmented ones, or a remembered prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sousa_bench.data.augmentation import FULL_SCALE, Augmentation
from sousa_bench.training.frozen_part import Features, FrozenPrefix, Passes, frozen_prefix, groups
from sousa_bench.training.kept_states import KeptStates, state_bytes

if TYPE_CHECKING:
    from sousa_bench.data.augmentation import Draws
    from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory
    from sousa_bench.models.base import State
    from sousa_bench.peft import Injection


Stretches = tuple[np.ndarray, np.ndarray | None]
"""(clips,) positions of clips, and (clips,) their first samples; None: their beginnings."""


@dataclass(frozen=True)
class Inputs:
    """A batch as the network takes it: clips of one length go through together, so that none sees another's.

    Attributes:
        passes: Rows of the batch, ascending, and what the network takes of them: features (clips, frames, bins) and
            padding mask, or the state after the frozen part of the network.
        network: What makes logits (clips, classes) of that.
    """

    passes: Sequence[tuple[np.ndarray, State]]
    network: Callable[[State], Tensor]

    def __len__(self) -> int:
        return sum(len(rows) for rows, _ in self.passes)

    def logits(self, rows: slice = slice(None)) -> Tensor:
        """(clips, classes) of some of the clips, in the batch's order."""
        first, last, _ = rows.indices(len(self))
        taken, logits = [], []
        for members, parts in self.passes:
            own = slice(*np.searchsorted(members, (first, last)))
            if own.start < own.stop:
                taken.append(members[own])
                logits.append(self.network(tuple(None if part is None else part[own] for part in parts)))
        return logits[0] if len(logits) == 1 else torch.cat(logits)[np.argsort(np.concatenate(taken))]


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
        unremembered = partial(self._computed, remember=False)  # what the frozen part makes of them is kept instead
        self.prefix: FrozenPrefix | None = frozen_prefix(injection, clips, unremembered, memory.limit_bytes)
        model = injection.model
        self._kept = KeptStates(
            model, f"the features for {model.name} ({model.variant})", lambda *features: features, lambda: ["backbone"]
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def fill(self, split: str) -> None:
        """Remember what no training changes of a whole split, where it fits: what other runs have kept, and the rest.

        Features are kept on the CPU alone, and of exact front ends: see :class:`sousa_bench.models.base.Frontend`.
        """
        clips = self.clips[split]
        if split == "train" and (clips.cut or self.augmentation.changes_waveform):
            return
        self.model.eval()
        if self.prefix is not None:
            if split != "train" or self.augmentation.name == "off":  # else training goes through the whole network
                self.prefix.fill(clips)
            return
        if self.device.type != "cpu" or not self.model.frontend.exact:
            return
        size = self._feature_bytes(clips)
        if self.memory.held_bytes + size > self.memory.limit_bytes:
            return

        def compute(members: np.ndarray) -> State:
            [(_, features)] = self._computed(split, members, remember=False)
            return features

        found = self._kept.of(clips, groups(clips.pieces.padded), compute, size)
        self.memory.hold(split, found)  # type: ignore[arg-type]

    def plain(self, split: str, index: np.ndarray) -> Inputs:
        """Inputs of pieces of clips as they are.

        Args:
            split: ``train``, ``val`` or ``test``.
            index: (pieces,) positions in the split's ``pieces``.
        """
        clips = self.clips[split]
        if self.prefix is None:
            return Inputs(self.features(split, index), self._network)
        frames = np.array([self.frames(int(samples)) for samples in clips.pieces.padded[index]])
        passes = [(rows, self.prefix.states(clips, index[rows])) for rows in _alike(frames)]
        return Inputs(passes, self.prefix.onward)

    def training(self, batch: Batch, seed: int) -> tuple[Inputs, Tensor]:
        """Inputs and soft targets (clips, classes) of a training batch."""
        clips = self.clips[batch.split]
        targets = clips.targets(batch.index).to(self.device)
        if self.augmentation.name == "off" and not clips.cut:  # each clip is one piece
            return self.plain(batch.split, batch.index), targets
        keys = clips.draw_keys(batch)
        starts = clips.stretches(batch.index, seed, batch.epoch, keys) if clips.cut else None
        if self.augmentation.name == "off":
            return Inputs(self._of_stretches(clips, batch.index, starts), self._network), targets
        draws = self.augmentation.draw(seed, batch.epoch, keys)
        if self.augmentation.changes_waveform:
            partners, weights = draws.partners(batch.index, batch.members)
            draws = replace(draws, partner_weight=weights)
            others = clips.stretches(partners, seed, batch.epoch, clips.keys[partners]) if clips.cut else None
            passes = self._augmented_features(clips, (batch.index, starts), (partners, others), draws)
            weight = torch.as_tensor(weights, dtype=torch.float32, device=self.device)[:, None]
            mixed = clips.targets(partners).to(self.device)
            targets = (1 - weight) * targets + weight * mixed
        elif clips.cut:
            passes = self._of_stretches(clips, batch.index, starts)
        else:
            passes = self.features(batch.split, batch.index)
        value = self.model.frontend.pad_value
        augmented = [
            (rows, self.augmentation.on_features(*features, draws.of(rows), value)) for rows, features in passes
        ]
        return Inputs(augmented, self._network), targets

    def features(self, split: str, index: np.ndarray, *, remember: bool = True) -> Passes:
        """Features and masks of pieces of clips as they are, from memory where it holds them.

        Args:
            split: ``train``, ``val`` or ``test``.
            index: (pieces,) positions in the split's ``pieces``.
            remember: Whether to keep what is computed.

        Returns:
            Rows, and their features (clips, frames, bins) and masks, each clip as it is at its own place on the length
            grid: what the model sees of it doesn't depend on which clips stand beside it.
        """
        found = self.memory.get(split, index)
        return self._computed(split, index, remember) if found is None else _passes(found, self.device)

    def frames(self, samples: int) -> int:
        """Feature frames of a clip of so many samples."""
        if samples not in self._frames_of:
            self._frames_of[samples] = self._of_silence(samples)[0].shape[1]
        return self._frames_of[samples]

    def _feature_bytes(self, clips: Clips) -> int:
        """Bytes that the features and masks of all pieces of a split take."""
        sizes, counts = np.unique(clips.pieces.padded, return_counts=True)
        of_one = [state_bytes(self._of_silence(int(samples))) for samples in sizes]
        return int(np.dot(of_one, counts))

    def _of_silence(self, samples: int) -> Features:
        silence = torch.zeros(1, samples, device=self.device)
        return self.model.features(silence, torch.tensor([samples], device=self.device))

    def compile(self, wanted: bool) -> None:
        """Let the network's passes be compiled ones from now on, or plain ones again."""
        self._compiled = torch.compile(self.model.backbone) if wanted else None

    def _network(self, parts: State) -> Tensor:
        network = self.model.backbone if self._compiled is None else self._compiled  # a module may have a length
        return network(*parts)

    def _computed(self, split: str, index: np.ndarray, remember: bool) -> Passes:
        clips = self.clips[split]
        pieces = clips.pieces

        def keep(rows: np.ndarray, features: Tensor, mask: Tensor | None) -> None:
            if remember:
                self.memory.put(split, index[rows], features, mask)

        return self._of_stretches(clips, pieces.clip[index], pieces.start[index], keep)

    def _of_stretches(
        self, clips: Clips, index: np.ndarray, starts: np.ndarray | None, then: Callable[..., None] | None = None
    ) -> Passes:
        """Features and masks of clips from some sample on; ``then`` gets rows, features and mask of each pass."""

        def compute(rows: np.ndarray, samples: int) -> Features:
            same = index[rows]
            waveform = self._floats(clips.waveform(same, samples, None if starts is None else starts[rows]))
            features, mask = self.model.features(waveform, torch.from_numpy(clips.lengths[same]).to(self.device))
            if then is not None:
                then(rows, features, mask)
            return features, mask

        return self._place_by_place(clips.padded[index], compute)

    def _augmented_features(self, clips: Clips, own: Stretches, others: Stretches, draws: Draws) -> Passes:
        (index, starts), (partners, partner_starts) = own, others
        mixed = draws.partner_weight > 0
        lengths, padded = (
            np.where(mixed, np.maximum(sizes[index], sizes[partners]), sizes[index])
            for sizes in (clips.lengths, clips.padded)
        )

        def compute(rows: np.ndarray, samples: int) -> Features:
            waveform = self._floats(clips.waveform(index[rows], samples, None if starts is None else starts[rows]))
            partner, chosen = None, mixed[rows]
            if chosen.any():
                partner = torch.zeros_like(waveform)
                first = None if partner_starts is None else partner_starts[rows][chosen]
                mates = clips.waveform(partners[rows][chosen], samples, first)
                partner[torch.from_numpy(chosen).to(self.device)] = self._floats(mates)
            sizes = torch.from_numpy(lengths[rows]).to(self.device)
            return self.model.features(self.augmentation.on_waveform(waveform, sizes, draws.of(rows), partner), sizes)

        return self._place_by_place(padded, compute)

    def _place_by_place(self, padded: np.ndarray, compute: Callable[[np.ndarray, int], Features]) -> Passes:
        """What ``compute`` makes of the rows of each place on the length grid; those of as many frames as one."""
        found: dict[int, Features] = {}
        for rows in _alike(padded):
            features, mask = compute(rows, int(padded[rows[0]]))
            found |= {int(row): (features[i], None if mask is None else mask[i]) for i, row in enumerate(rows)}
        return _passes([found[row] for row in range(len(padded))], self.device)

    def _floats(self, samples: Tensor) -> Tensor:
        return samples.to(self.device, non_blocking=True).to(torch.float32) / FULL_SCALE


def _alike(sizes: np.ndarray) -> list[np.ndarray]:
    """Positions of each distinct size, ascending."""
    return [np.flatnonzero(sizes == size) for size in np.unique(sizes)]


def _passes(clips: Sequence[Features], device: torch.device) -> Passes:
    """Features and masks of single clips, stacked where they have as many frames."""
    stacked = []
    for rows in _alike(np.array([len(features) for features, _ in clips])):
        features = torch.stack([clips[row][0] for row in rows]).to(device)
        masks = [mask for row in rows if (mask := clips[row][1]) is not None]
        stacked.append((rows, (features, torch.stack(masks).to(device) if masks else None)))
    return stacked
