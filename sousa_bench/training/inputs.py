"""What the network takes of a batch: features from waveforms or from memory, augmented ones, or a remembered prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sousa_bench.data.augmentation import Augmentation
from sousa_bench.training.clip_features import ClipFeatures, alike
from sousa_bench.training.frozen_part import Features, FrozenPrefix, frozen_prefix, groups
from sousa_bench.training.kept_states import KeptStates, state_bytes

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory
    from sousa_bench.models.base import State
    from sousa_bench.peft import Injection


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


class ClipInputs(ClipFeatures):
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
        model = injection.model
        super().__init__(model, clips, augmentation, memory)
        self._frames_of: dict[int, int] = {}
        self._compiled: Callable[..., Tensor] | None = None
        unremembered = partial(self._computed, remember=False)  # what the frozen part makes of them is kept instead
        self.prefix: FrozenPrefix | None = frozen_prefix(injection, clips, unremembered, memory.limit_bytes)
        self._kept = KeptStates(
            model, f"the features for {model.name} ({model.variant})", lambda *features: features, lambda: ["backbone"]
        )

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
        passes = [(rows, self.prefix.states(clips, index[rows])) for rows in alike(frames)]
        return Inputs(passes, self.prefix.onward)

    def training(self, batch: Batch, seed: int) -> tuple[Inputs, Tensor]:
        """Inputs and soft targets (clips, classes) of a training batch."""
        clips = self.clips[batch.split]
        targets = clips.targets(batch.index).to(self.device)
        if self.augmentation.name == "off" and not clips.cut:  # each clip is one piece
            return self.plain(batch.split, batch.index), targets
        if (heard := self.augmented(batch, seed)) is not None:
            weight = torch.as_tensor(heard.draws.partner_weight, dtype=torch.float32, device=self.device)[:, None]
            mixed = clips.targets(heard.partners).to(self.device)
            targets = (1 - weight) * targets + weight * mixed
        return Inputs(self.training_features(batch, seed, heard), self._network), targets

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
