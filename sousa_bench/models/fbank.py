"""Kaldi log-mel filter banks, batched: the front end of AST and BEATs, and the mel bank of EfficientAT."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance import kaldi

from sousa_bench.errors import DataError

LOG_FLOOR = torch.finfo(torch.float32).eps
"""Kaldi's floor under the logarithm, 1.1920929e-07."""


def mel_bank(bins: int, n_fft: int, sample_rate: int, low_freq: float, high_freq: float) -> Tensor:
    """Kaldi's mel bank: triangles in mel space (1127 ln(1 + f / 700)), no area norm.

    Taken from ``torchaudio`` rather than written anew: at 512 points some triangles touch one bin with a weight near
    zero, where the last bit of the arithmetic shows in the logarithm.

    Args:
        bins: Number of mel bins.
        n_fft: Length of the Fourier transform in samples.
        sample_rate: Hz.
        low_freq: Lower edge of the first triangle, Hz.
        high_freq: Upper edge of the last triangle, Hz.

    Returns:
        (bins, n_fft // 2 + 1) float32; the Nyquist column is zero, as in Kaldi.
    """
    bank, _ = kaldi.get_mel_banks(bins, n_fft, float(sample_rate), low_freq, high_freq, 100.0, -500.0, 1.0)
    return F.pad(bank, (0, 1))


def band_centres(bank: Tensor, sample_rate: int) -> Tensor:
    """(bins,) Hz: where each band's weight lies; one between two points of the transform lies between its neighbours.

    Args:
        bank: (frequencies, bins), from 0 Hz to half the sample rate.
        sample_rate: Hz.
    """
    weights = bank.double().cpu().numpy()
    total = weights.sum(axis=0)
    bins, known = np.arange(weights.shape[1]), total > 0
    moments = np.linspace(0, sample_rate / 2, len(weights)) @ weights
    return torch.from_numpy(np.interp(bins, bins[known], moments[known] / total[known]))


def window(kind: str, length: int) -> Tensor:
    """Analysis window (length,) float32: ``hann`` (symmetric) or ``povey`` (symmetric Hann to the power 0.85)."""
    hann = torch.hann_window(length, periodic=False)
    return {"hann": hann, "povey": hann.pow(0.85)}[kind]


class KaldiFbank(nn.Module):
    """Log-mel filter bank of ``torchaudio.compliance.kaldi.fbank``, for a batch at once and on its device.

    The options that AST's and BEATs' official code leave at their defaults are fixed here: dither 0, DC offset removed
    per frame, pre-emphasis 0.97 within the frame, power spectrum, frames that fit whole (``snip_edges``).

    Args:
        kind: Window, see :func:`window`.
        sample_rate: Hz.
        bins: Number of mel bins.
        frame_length: Samples of a frame (25 ms).
        frame_shift: Samples between frames (10 ms).
        low_freq: Hz.
        high_freq: Hz; None is the Nyquist frequency.
        scale: Factor on the waveform (BEATs: 32768).
    """

    window: Tensor
    bank: Tensor

    def __init__(
        self,
        kind: str,
        sample_rate: int = 16000,
        bins: int = 128,
        frame_length: int = 400,
        frame_shift: int = 160,
        low_freq: float = 20.0,
        high_freq: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.sample_rate, self.bins, self.scale = sample_rate, bins, scale
        self.frame_length, self.frame_shift = frame_length, frame_shift
        self.n_fft = 1 << (frame_length - 1).bit_length()
        self.preemphasis = 0.97
        high = sample_rate / 2 if high_freq is None else high_freq
        bank = mel_bank(bins, self.n_fft, sample_rate, low_freq, high)
        self.register_buffer("window", window(kind, frame_length), persistent=False)
        self.register_buffer("bank", bank.t().contiguous(), persistent=False)

    def frames(self, samples: Tensor | int) -> Tensor:
        """Whole frames in so many samples: ``1 + (samples - frame_length) // frame_shift``, at least 0."""
        counts = torch.as_tensor(samples)
        return (torch.div(counts - self.frame_length, self.frame_shift, rounding_mode="floor") + 1).clamp(min=0)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the filter bank.

        Args:
            waveform: (batch, samples) float32.

        Returns:
            (batch, frames, bins) float32: natural logarithm of the mel energies, floored at :data:`LOG_FLOOR`.

        Raises:
            DataError: There are fewer samples than one frame needs.
        """
        if waveform.shape[-1] < self.frame_length:
            raise DataError(
                f"A clip of {waveform.shape[-1]} samples is shorter than one analysis frame "
                f"({self.frame_length} samples at {self.sample_rate} Hz): leave it out or pad it with silence."
            )
        frames = (waveform * self.scale if self.scale != 1.0 else waveform).unfold(
            -1, self.frame_length, self.frame_shift
        )
        frames = frames - frames.mean(-1, keepdim=True)
        # Inside the frame, the first sample being its own predecessor: not the same as filtering the whole clip.
        previous = torch.cat((frames[..., :1], frames[..., :-1]), -1)
        frames = (frames - self.preemphasis * previous) * self.window
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.bank).clamp(min=LOG_FLOOR).log()
