"""EfficientAT (Schmid et al. 2023, arXiv 2211.04772): its front end and its official files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sousa_bench.errors import DataError
from sousa_bench.models.base import Frontend
from sousa_bench.models.efficientat_network import EfficientATBackbone
from sousa_bench.models.family import Family
from sousa_bench.models.fbank import band_centres, mel_bank, window
from sousa_bench.models.published import PUBLISHED

# fschmid56/EfficientAT models/preprocess.py (AugmentMelSTFT) in eval mode: fmax is 16000 - 2000 // 2.
PREEMPHASIS = 0.97
N_FFT, WINDOW, HOP = 1024, 800, 320
FMIN, FMAX = 0.0, 15000.0
LOG_OFFSET = 1e-5
SHIFT, DIVISOR = 4.5, 5.0


class EfficientATFrontend(Frontend):
    """Log-mel with 128 Kaldi bins at 100 frames a second, ``(ln(mel + 1e-5) + 4.5) / 5``."""

    sample_rate = 32000
    bins = 128
    pad_value = (math.log(LOG_OFFSET) + SHIFT) / DIVISOR

    window: Tensor
    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        # torch.stft would centre the window itself; done here since the frames are cut by hand.
        side = (N_FFT - WINDOW) // 2
        self.register_buffer("window", F.pad(window("hann", WINDOW), (side, side)), persistent=False)
        bank = mel_bank(self.bins, N_FFT, self.sample_rate, FMIN, FMAX)
        self.register_buffer("bank", bank.t().contiguous(), persistent=False)

    def centres(self) -> Tensor:
        """As :meth:`sousa_bench.models.base.Frontend.centres`."""
        return band_centres(self.bank, self.sample_rate)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """Compute features.

        With ``lengths`` each clip is mirrored at its own end and silent afterwards, so that its frames are those that
        it has alone; the later ones hold ``pad_value``.

        Args:
            waveform: (batch, samples) float32 in -1..1.
            lengths: (batch,) int64 true sample counts, or None when every clip fills its row.

        Returns:
            Features (batch, 1 + (samples - 1) // 320, 128) float32, and None: the model takes no mask.

        Raises:
            DataError: A clip is shorter than half a Fourier frame (514 samples), so that it can't be mirrored.
        """
        shortest = waveform.shape[1] if lengths is None else int(lengths.min())
        if shortest < N_FFT // 2 + 2:
            raise DataError(
                f"EfficientAT needs clips of at least {N_FFT // 2 + 2} samples at {self.sample_rate} Hz (0.016 s); "
                f"one has {shortest}: leave it out or pad it with silence."
            )
        # A valid convolution with (-0.97, 1): one sample shorter than the clip.
        signal = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]
        ends = None if lengths is None else lengths.to(waveform.device)[:, None] - 1
        features = self._log_mel(mirror(signal, ends))
        if ends is not None:
            frame = torch.arange(features.shape[1], device=features.device)
            features = features.masked_fill((frame > ends // HOP).unsqueeze(-1), self.pad_value)
        return features, None

    def _log_mel(self, padded: Tensor) -> Tensor:
        """Mirrored signal (batch, samples + 1024) → features (batch, 1 + samples // 320, 128)."""
        spectrum = torch.fft.rfft(padded.unfold(-1, N_FFT, HOP) * self.window)
        power = spectrum.real.square() + spectrum.imag.square()
        return ((power @ self.bank + LOG_OFFSET).log() + SHIFT) / DIVISOR


def mirror(signal: Tensor, ends: Tensor | None) -> Tensor:
    """Extend a signal by half a Fourier frame at both sides, mirrored, the last one at each clip's own end.

    Args:
        signal: (batch, samples).
        ends: (batch, 1) samples of each clip's signal, or None when all fill their row.

    Returns:
        (batch, samples + 1024); zeros after the mirrored end of a clip.
    """
    half = N_FFT // 2
    if ends is None:
        return F.pad(signal, (half, half), mode="reflect")
    beyond = torch.arange(signal.shape[1], device=signal.device) >= ends
    padded = F.pad(F.pad(signal.masked_fill(beyond, 0.0), (half, 0), mode="reflect"), (0, half))
    # In the padded row a clip ends at half + ends; its mirror axis is the last sample before that.
    step = torch.arange(1, half + 1, device=signal.device)
    axis = ends + half - 1
    return padded.scatter(1, axis + step, padded.gather(1, axis - step))


@dataclass(frozen=True)
class Width:
    """What a variant is (``conf/model/efficientat.yaml``).

    Attributes:
        width: Channel multiplier: 1.0 is ``mn10``, 0.4 is ``mn04``.
        checkpoint: Address of its official file, or None.
    """

    width: float
    checkpoint: str | None = None


class EfficientAT(Family):
    """EfficientAT in all published widths; ``conf/model/efficientat.yaml``."""

    numbers = Width
    source = PUBLISHED["efficientat"].source

    def frontend(self, numbers: Width) -> EfficientATFrontend:
        """See :class:`Family`."""
        return EfficientATFrontend()

    def backbone(self, numbers: Width, num_classes: int) -> EfficientATBackbone:
        """See :class:`Family`."""
        return EfficientATBackbone(float(numbers.width), num_classes)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of an official file, which numbers the parts of a block."""
        own: dict[str, Tensor] = {}
        for key, tensor in state.items():
            if match := re.fullmatch(r"(features\.\d+\.block)\.(\d+)\.(?:conc_se_layers\.0\.)?(.+)", key):
                block, place, rest = match.groups()
                key = f"{block}.{_parts(state, block).get(int(place), place)}.{rest}"
            own[key] = tensor
        return own


def _parts(state: Mapping[str, Tensor], block: str) -> dict[int, str]:
    """Number in the file → name of a block's part; not every block has an expansion and a squeeze-excitation."""
    first = state.get(f"{block}.0.0.weight")
    parts = ["depthwise"]
    if first is not None and first.shape[-1] == 1:  # Depthwise kernels are 3 or 5 wide.
        parts.insert(0, "expand")
    if f"{block}.{len(parts)}.conc_se_layers.0.fc1.weight" in state:
        parts.append("squeeze_excitation")
    return dict(enumerate([*parts, "project"]))


build = EfficientAT().build
