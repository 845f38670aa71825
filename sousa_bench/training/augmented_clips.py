"""What training hears of a batch's clips in one epoch: which stretch, blended with whom, how loud, in which noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import resample

from sousa_bench.data.augmentation import FULL_SCALE

if TYPE_CHECKING:
    from sousa_bench.data.augmentation import Augmentation
    from sousa_bench.data.datamodule import Batch, Clips


class AugmentedClips:
    """The clips of a training batch whose waveforms are augmented, at one sample rate.

    Attributes:
        draws: What was drawn for them, the same at every rate.
        partners: (clips,) positions of those that are mixed in.
        padded: (clips,) samples on the length grid, of a mixed pair those of the longer clip.

    Args:
        clips: The training split.
        augmentation: What acts on them.
        batch: Which of the clips.
        seed: The run's.
        device: Where the waveforms go.
        noise_of: The same batch at another rate whose very noise is heard here: white noise drawn at one rate is
            another noise at the next, while stretches, partners and gain are the same at each.
    """

    def __init__(
        self,
        clips: Clips,
        augmentation: Augmentation,
        batch: Batch,
        seed: int,
        device: torch.device,
        noise_of: AugmentedClips | None = None,
    ) -> None:
        self._clips = clips
        self._augmentation = augmentation
        self._device = device
        self._noise_of = noise_of
        keys = clips.draw_keys(batch)
        draws = augmentation.draw(seed, batch.epoch, keys)
        self.partners, weights = draws.partners(batch.index, batch.members)
        self.draws = replace(draws, partner_weight=weights)
        self._index = batch.index
        self._mixed = weights > 0
        self._lengths, self.padded = (
            np.where(self._mixed, np.maximum(sizes[batch.index], sizes[self.partners]), sizes[batch.index])
            for sizes in (clips.lengths, clips.padded)
        )
        self._starts = self._partner_starts = None
        if clips.cut:
            self._starts = clips.stretches(batch.index, seed, batch.epoch, keys)
            self._partner_starts = clips.stretches(self.partners, seed, batch.epoch, clips.keys[self.partners])

    def sizes(self, rows: np.ndarray) -> Tensor:
        """(rows,) int64 samples of the clips, of a mixed pair those of the longer one."""
        return torch.from_numpy(self._lengths[rows]).to(self._device)

    def waveform(self, rows: np.ndarray, samples: int) -> Tensor:
        """(rows, samples) float32 of some of the batch's clips, as they are heard."""
        if self._noise_of is None:
            return self._heard(rows, samples, noise=True)
        noise = self._noise_of.noise(rows, self._clips.sample_rate)[:, :samples]
        return self._heard(rows, samples, noise=False) + pad(noise, (0, samples - noise.shape[1]))

    def noise(self, rows: np.ndarray, sample_rate: int) -> Tensor:
        """(rows, samples) float32, brought to ``sample_rate``: what noise alone adds to the clips."""
        width = int(self.padded[rows].max())
        added = self._heard(rows, width, noise=True) - self._heard(rows, width, noise=False)
        return resample(added, self._clips.sample_rate, sample_rate)

    def _heard(self, rows: np.ndarray, samples: int, noise: bool) -> Tensor:
        starts, partner_starts = self._starts, self._partner_starts
        index, draws = self._index[rows], self.draws.of(rows)
        waveform = floats(self._clips.waveform(index, samples, None if starts is None else starts[rows]), self._device)
        partner, chosen = None, self._mixed[rows]
        if chosen.any():
            partner = torch.zeros_like(waveform)
            first = None if partner_starts is None else partner_starts[rows][chosen]
            mates = self._clips.waveform(self.partners[rows][chosen], samples, first)
            partner[torch.from_numpy(chosen).to(self._device)] = floats(mates, self._device)
        if not noise:
            draws = replace(draws, snr_db=np.full_like(draws.snr_db, np.inf))
        return self._augmentation.on_waveform(waveform, self.sizes(rows), draws, partner)


def floats(samples: Tensor, device: torch.device) -> Tensor:
    """int16 samples as float32 in -1..1 on a device."""
    return samples.to(device, non_blocking=True).to(torch.float32) / FULL_SCALE
