"""Features of clips for one front end: as they are, from memory or computed, or as training hears them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sousa_bench.data.augmentation import Augmentation
from sousa_bench.training.augmented_clips import AugmentedClips, floats
from sousa_bench.training.frozen_part import Features, Passes

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import Batch, Clips, FeatureMemory
    from sousa_bench.models.base import AudioModel


class ClipFeatures:
    """What a model's front end makes of clips.

    Args:
        model: The model.
        clips: The splits, at its sample rate.
        augmentation: Acts on training clips alone.
        memory: Remembered features.
    """

    def __init__(
        self, model: AudioModel, clips: dict[str, Clips], augmentation: Augmentation, memory: FeatureMemory
    ) -> None:
        self.model = model
        self.clips = clips
        self.augmentation = augmentation
        self.memory = memory

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

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
        return self._computed(split, index, remember) if found is None else stacked_passes(found, self.device)

    def augmented(self, batch: Batch, seed: int, noise_of: AugmentedClips | None = None) -> AugmentedClips | None:
        """A training batch whose waveforms are augmented; None where none are."""
        if not self.augmentation.changes_waveform:
            return None
        return AugmentedClips(self.clips[batch.split], self.augmentation, batch, seed, self.device, noise_of)

    def training_features(self, batch: Batch, seed: int, heard: AugmentedClips | None) -> Passes:
        """Features and masks of a training batch.

        Args:
            batch: The batch.
            seed: The run's.
            heard: What :meth:`augmented` made of it.
        """
        clips = self.clips[batch.split]
        keys = clips.draw_keys(batch)
        if heard is not None:
            passes = self._place_by_place(heard.padded, partial(self._of_augmented, heard))
        elif clips.cut:
            starts = clips.stretches(batch.index, seed, batch.epoch, keys)
            passes = self._of_stretches(clips, batch.index, starts)
        else:
            passes = self.features(batch.split, batch.index)
        if self.augmentation.name == "off":
            return passes
        draws = self.augmentation.draw(seed, batch.epoch, keys) if heard is None else heard.draws
        value = self.model.frontend.pad_value
        return [(rows, self.augmentation.on_features(*features, draws.of(rows), value)) for rows, features in passes]

    def _of_augmented(self, heard: AugmentedClips, rows: np.ndarray, samples: int) -> Features:
        return self.model.features(heard.waveform(rows, samples), heard.sizes(rows))

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
            waveform = floats(clips.waveform(same, samples, None if starts is None else starts[rows]), self.device)
            features, mask = self.model.features(waveform, torch.from_numpy(clips.lengths[same]).to(self.device))
            if then is not None:
                then(rows, features, mask)
            return features, mask

        return self._place_by_place(clips.padded[index], compute)

    def _place_by_place(self, padded: np.ndarray, compute: Callable[[np.ndarray, int], Features]) -> Passes:
        """What ``compute`` makes of the rows of each place on the length grid; those of as many frames as one."""
        found: dict[int, Features] = {}
        for rows in alike(padded):
            features, mask = compute(rows, int(padded[rows[0]]))
            found |= {int(row): (features[i], None if mask is None else mask[i]) for i, row in enumerate(rows)}
        return stacked_passes([found[row] for row in range(len(padded))], self.device)


def alike(sizes: np.ndarray) -> list[np.ndarray]:
    """Positions of each distinct size, ascending."""
    return [np.flatnonzero(sizes == size) for size in np.unique(sizes)]


def stacked_passes(clips: Sequence[Features], device: torch.device) -> Passes:
    """Features and masks of single clips, stacked where they have as many frames."""
    stacked = []
    for rows in alike(np.array([len(features) for features, _ in clips])):
        features = torch.stack([clips[row][0] for row in rows]).to(device)
        masks = [mask for row in rows if (mask := clips[row][1]) is not None]
        stacked.append((rows, (features, torch.stack(masks).to(device) if masks else None)))
    return stacked
