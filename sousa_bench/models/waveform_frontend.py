"""The front end of HuBERT and WavLM, the waveform as transformers prepares it, and a norm over a clip's own frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.models.base import Frontend

SHORTEST = 400
"""Samples of one token (25 ms): to as many a shorter clip, or what a time stretch leaves of one, is filled up."""

VARIANCE_FLOOR = 1e-7
"""Of the normalisation in transformers' ``Wav2Vec2FeatureExtractor``."""


class WaveformFrontend(Frontend):
    """The waveform itself, as one bin at the rate of the samples, normalised over the clip's own samples if asked."""

    sample_rate = 16000
    pad_value = 0.0
    exact = False  # sums over a whole clip add up in an order that the number of rows decides

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Features (batch, samples, 1) and the mask of the samples; see :class:`Frontend`."""
        own = torch.ones_like(waveform, dtype=torch.bool)
        if lengths is not None:
            own = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        if self.normalize:
            count = own.sum(dim=1, keepdim=True)
            centred = (waveform - (waveform * own).sum(dim=1, keepdim=True) / count) * own
            waveform = centred / (centred.square().sum(dim=1, keepdim=True) / count + VARIANCE_FLOOR).sqrt()
        missing = max(0, SHORTEST - waveform.shape[1])
        features = F.pad(waveform, (0, missing))[:, :, None]
        mask = F.pad(~own, (0, missing), value=True)
        mask[:, :SHORTEST] = False
        return features, None if lengths is None else mask


class ClipNorm(nn.GroupNorm):
    """GroupNorm with a group for each channel, over a clip's own frames alone."""

    def forward(self, input: Tensor, own: Tensor | None = None) -> Tensor:
        """(batch, channels, frames) → the same; ``own`` (batch, 1, frames) is True on a clip's frames; None: on all."""
        if own is None:
            return super().forward(input)
        x = input.float()
        count = own.sum(dim=2, keepdim=True)
        centred = x - (x * own).sum(dim=2, keepdim=True) / count
        variance = (centred * own).square().sum(dim=2, keepdim=True) / count
        return centred * (variance + self.eps).rsqrt() * self.weight[:, None] + self.bias[:, None]
