"""BEATs' preprocessing: waveform → normalised Kaldi filter bank and its padding mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sousa_bench.errors import DataError
from sousa_bench.models.base import Frontend
from sousa_bench.models.fbank import LOG_FLOOR, KaldiFbank

# microsoft/unilm beats/BEATs.py, preprocess(): mean and standard deviation over the pre-training data.
MEAN, STD = 15.41663, 6.55582
WAVEFORM_SCALE = 32768.0


class BeatsFrontend(Frontend):
    """Filter bank with 128 bins at 100 frames a second, povey window, normalised by ``(x - mean) / (2 std)``.

    Args:
        min_frames: Fewest frames that the backbone can take: one row of patches.
    """

    sample_rate = 16000
    bins = 128

    def __init__(self, min_frames: int = 16) -> None:
        super().__init__()
        self.min_frames = min_frames
        self.fbank = KaldiFbank("povey", self.sample_rate, self.bins, scale=WAVEFORM_SCALE)
        self.mean, self.divisor = MEAN, 2 * STD
        self.pad_value = (math.log(LOG_FLOOR) - self.mean) / self.divisor

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features and, with ``lengths``, the frame mask of the official ``forward_padding_mask``.

        Frames that begin after a clip's end hold ``pad_value``, since the padding is zeros.

        Args:
            waveform: (batch, samples) float32 in -1..1, padded with zeros at the end.
            lengths: (batch,) int64 true sample counts, at least 1, or None when every clip fills its row.

        Returns:
            Features (batch, 1 + (samples - 400) // 160, 128) float32, and the mask (batch, frames) bool with True on
            padding, or None without ``lengths``.

        Raises:
            DataError: The rows are too short for one patch.
        """
        features = (self.fbank(waveform) - self.mean) / self.divisor
        frames = features.shape[1]
        if frames < self.min_frames:
            raise DataError(
                f"BEATs needs clips of at least {self.min_frames} frames (0.175 s); these have {frames} "
                f"({waveform.shape[1]} samples at {self.sample_rate} Hz): leave them out or pad them with silence."
            )
        if lengths is None:
            return features, None
        # Officially the sample mask is cut evenly into one chunk per frame, and a frame is padding when its whole
        # chunk is: when its first sample is.
        chunk = waveform.shape[1] // frames
        first_sample = torch.arange(frames, device=waveform.device) * chunk
        return features, first_sample >= lengths.to(waveform.device)[:, None]
