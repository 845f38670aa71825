"""The front end of CED and Dasheng: mel bins in decibels. CED's original code is no source of it."""

from __future__ import annotations

import torch
from torch import Tensor

from sousa_bench.errors import DataError
from sousa_bench.models.base import Frontend
from sousa_bench.models.fbank import band_centres
from sousa_bench.models.htsat_frontend import LogMel

HOP = 160
"""Samples between frames."""

TOP_DB = 120.0
"""How far below a clip's loudest value its quietest one may lie."""


class CedFrontend(Frontend):
    """HTK mel bins in decibels at 100 frames a second, not normalised: the network has a BatchNorm for that.

    Args:
        bins: Mel bins.
        least: Fewest frames that the network can take: those of a patch.
    """

    sample_rate = 16000
    pad_value = -100.0

    def __init__(self, bins: int, least: int) -> None:
        super().__init__()
        self.least = least
        self.logmel = LogMel(self.sample_rate, HOP, bins, 0.0, 8000.0, n_fft=512, mel="htk")

    def centres(self) -> Tensor:
        """As :meth:`sousa_bench.models.base.Frontend.centres`."""
        return band_centres(self.logmel.bank, self.sample_rate)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features; see :class:`sousa_bench.models.base.Frontend`.

        Each clip is held against its own loudest value. (The official code takes that of the whole batch, by which a
        clip's features change with its neighbours.)

        Raises:
            DataError: The rows are too short for one patch.
        """
        x = self.logmel(waveform, lengths)
        if x.shape[1] < self.least:
            raise DataError(
                f"A clip of {x.shape[1]} frames ({waveform.shape[1]} samples at {self.sample_rate} Hz) is shorter than "
                f"one patch of {self.least}: leave it out or pad it with silence."
            )
        padding = None
        if lengths is not None:
            frame = torch.arange(x.shape[1], device=x.device)
            x = x.masked_fill((frame >= self.logmel.frames(lengths)[:, None]).unsqueeze(-1), self.pad_value)
            padding = frame >= self.own_frames(lengths)[:, None]
        return torch.maximum(x, x.amax((1, 2), keepdim=True) - TOP_DB), padding

    def own_frames(self, lengths: Tensor) -> Tensor:
        """(batch,) int64: the frames before a clip's padding."""
        return self.logmel.frames(lengths)
