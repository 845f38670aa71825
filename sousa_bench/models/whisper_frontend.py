"""The front end of Whisper: logarithms of a mel spectrogram, as transformers' ``WhisperFeatureExtractor`` has them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sousa_bench.models.base import Frontend
from sousa_bench.models.fbank import band_centres
from sousa_bench.models.htsat_frontend import LogMel

RATE, N_FFT, HOP = 16000, 400, 160
FRAMES_A_TOKEN = 2
SILENCE = -10.0
"""The logarithm of digital silence."""


class WhisperFrontend(Frontend):
    """Logarithms of a mel spectrogram, of silence after a clip's end; of a longer clip the beginning is heard.

    The last step of the official front end, which looks for a clip's loudest value, is the network's first
    (:meth:`WhisperBackbone.embed`), so that augmentation meets features whose silence is always the same.
    """

    sample_rate = RATE
    pad_value = SILENCE

    def __init__(self, bins: int, tokens: int) -> None:
        super().__init__()
        self.longest: int = tokens * FRAMES_A_TOKEN * HOP
        self.mel = LogMel(RATE, HOP, bins, 0.0, RATE / 2, N_FFT)

    def centres(self) -> Tensor:
        """As :meth:`sousa_bench.models.base.Frontend.centres`."""
        return band_centres(self.mel.bank, RATE)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, bins), as many as have to do with the batch, and the mask of the frames."""
        heard = waveform[:, : self.longest]
        # Officially silence follows up to the longest clip's end: here as much as a frame of the clip can reach.
        padded = F.pad(heard, (0, N_FFT))
        ends = torch.full((padded.shape[0],), padded.shape[1], device=waveform.device).clamp(max=self.longest)
        features = self.mel(padded, ends)[:, : self.longest // HOP] / 10.0
        if lengths is None:
            lengths = torch.full((len(heard),), heard.shape[1], device=waveform.device)
        frame = torch.arange(features.shape[1], device=waveform.device)
        return features, frame * HOP >= lengths.clamp(min=1)[:, None]
