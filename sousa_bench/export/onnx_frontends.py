"""The front ends as ONNX has them: each short-time Fourier transform is one convolution with fixed kernels.

ONNX knows no complex numbers, and few of its runtimes know its DFT operator; every one knows a convolution. The frame's
linear steps before the transform (offset, pre-emphasis, window) are folded into the kernels, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.models.base import Frontend
from sousa_bench.models.efficientat import (
    DIVISOR,
    HOP,
    LOG_OFFSET,
    N_FFT,
    PREEMPHASIS,
    SHIFT,
    EfficientATFrontend,
    mirror,
)
from sousa_bench.models.fbank import LOG_FLOOR, KaldiFbank
from sousa_bench.models.htsat_frontend import POWER_FLOOR, LogMel, reflect_ends


def fourier(length: int, n_fft: int) -> Tensor:
    """Cosines, then minus sines, of a real Fourier transform: (n_fft + 2, length) float64."""
    turns = torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(length)) % n_fft
    angle = turns.double() * (2 * torch.pi / n_fft)
    return torch.cat((angle.cos(), -angle.sin()))


class PowerSpectrum(nn.Module):
    """Frames of a waveform → their power spectra, as one convolution.

    Args:
        kernels: (2 * frequencies, frame length) float64: real parts, then imaginary parts.
        hop: Samples between frames.
    """

    kernels: Tensor

    def __init__(self, kernels: Tensor, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("kernels", kernels.float()[:, None], persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (batch, samples) → (batch, frames, frequencies)."""
        real, imaginary = F.conv1d(waveform[:, None], self.kernels, stride=self.hop).chunk(2, dim=1)
        return (real.square() + imaginary.square()).transpose(1, 2)


class ConvolvedFbank(nn.Module):
    """:class:`KaldiFbank` of clips that have at least one frame."""

    def __init__(self, source: KaldiFbank) -> None:
        super().__init__()
        self.frame_length, self.frame_shift, self.frames = source.frame_length, source.frame_shift, source.frames
        size = source.frame_length
        centred = torch.eye(size, dtype=torch.float64) - 1 / size
        previous = torch.cat((centred[:1], centred[:-1]))
        frame = (centred - source.preemphasis * previous) * source.window.double()[:, None] * source.scale
        self.power = PowerSpectrum(fourier(size, source.n_fft) @ frame, source.frame_shift)
        self.register_buffer("bank", source.bank, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """As :meth:`KaldiFbank.forward`."""
        return (self.power(waveform) @ self.bank).clamp(min=LOG_FLOOR).log()


class ConvolvedLogMel(nn.Module):
    """:class:`LogMel` with the same calls."""

    def __init__(self, source: LogMel) -> None:
        super().__init__()
        self.frames, self.pad = source.frames, len(source.window) // 2
        size = len(source.window)
        self.power = PowerSpectrum(fourier(size, size) * source.window.double(), source.hop)
        self.register_buffer("bank", source.bank, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As :meth:`LogMel.forward`."""
        power = self.power(reflect_ends(waveform, lengths, self.pad))
        return 10.0 * (power @ self.bank).clamp(min=POWER_FLOOR).log10()


class ConvolvedEfficientATFrontend(Frontend):
    """:class:`EfficientATFrontend`, without its look at the shortest clip, which a graph can't have."""

    def __init__(self, source: EfficientATFrontend) -> None:
        super().__init__()
        self.sample_rate, self.pad_value = source.sample_rate, source.pad_value
        self.power = PowerSpectrum(fourier(N_FFT, N_FFT) * source.window.double(), HOP)
        self.register_buffer("bank", source.bank, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """As :meth:`EfficientATFrontend.forward`."""
        assert lengths is not None
        ends = lengths[:, None] - 1
        signal = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]
        mel = self.power(mirror(signal, ends)) @ self.bank
        features = ((mel + LOG_OFFSET).log() + SHIFT) / DIVISOR
        frame = torch.arange(features.shape[1], device=features.device)
        return features.masked_fill((frame > ends // HOP).unsqueeze(-1), self.pad_value), None
