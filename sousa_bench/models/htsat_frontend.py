"""Log-mel spectrogram in decibels, and the bicubic stretch of HTS-AT's and CLAP's clips to 1024 frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from sousa_bench.errors import ConfigError
from sousa_bench.models.base import Frontend
from sousa_bench.models.fbank import band_centres

if TYPE_CHECKING:
    from sousa_bench.models.htsat import Shape

N_FFT = 1024
POWER_FLOOR = 1e-10
MODES = ("stretch", "repeat", "repeatpad")
CLAP_SECONDS = 10.0
_CUBIC = -0.75  # The constant of torch's bicubic interpolation


def cubic_taps(share: Tensor) -> Tensor:
    """Weights of the four neighbours -1, 0, 1, 2 at a share (…) in 0..1 between the middle two: (…, 4).

    Cubic convolution (Keys, 1981) with the constant of torch's bicubic interpolation.
    """

    def near(x: Tensor) -> Tensor:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC

    return torch.stack((far(share + 1), near(share), near(1 - share), far(2 - share)), dim=-1)


def stretch(x: Tensor, counts: Tensor, repeats: Tensor, target: int) -> Tensor:
    """Stretch every clip's own frames to ``target`` frames, all clips at once.

    The same as ``interpolate(mode="bicubic", align_corners=True)`` on each clip's frames, repeated so many times.

    Args:
        x: (batch, frames, bins).
        counts: (batch,) int64, frames that belong to the clip, at least 1.
        repeats: (batch,) int64, how often they are repeated before the stretch.
        target: Frames of the result.

    Returns:
        (batch, target, bins).
    """
    total = (counts * repeats)[:, None]
    position = torch.arange(target, device=x.device) * ((total - 1).to(x.dtype) / (target - 1))
    below = position.floor()
    taps = cubic_taps(position - below)
    clips = torch.arange(x.shape[0], device=x.device)[:, None]
    out = torch.zeros(1, dtype=x.dtype, device=x.device)
    for tap in range(4):
        frame = (below.long() + tap - 1).clamp(min=0).minimum(total - 1) % counts[:, None]
        out = out + taps[..., tap, None] * x[clips, frame]
    return out


def reflect_ends(waveform: Tensor, lengths: Tensor | None, pad: int) -> Tensor:
    """Reflect each clip at its own two ends: (batch, samples) → (batch, samples + 2 * pad).

    Past the reflection of a clip's end follow values that no frame of that clip reads.
    """
    samples = waveform.shape[1]
    if lengths is None and samples > pad:
        return F.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
    last = (torch.full((len(waveform),), samples, device=waveform.device) if lengths is None else lengths)[:, None] - 1
    place = torch.arange(-pad, samples + pad, device=waveform.device).abs() % (2 * last).clamp(min=1)
    return waveform.gather(1, torch.minimum(place, 2 * last - place).clamp(min=0))


class LogMel(nn.Module):
    """Power spectrogram (periodic Hann), mel bank, decibels.

    Args:
        sample_rate: Hz.
        hop: Samples between frames.
        bins: Mel bins.
        low_freq: Hz.
        high_freq: Hz.
        n_fft: Samples of a frame, and points of its Fourier transform.
        mel: ``slaney``, with Slaney's area norm, or ``htk``, without one.
    """

    window: Tensor
    bank: Tensor

    def __init__(
        self,
        sample_rate: int,
        hop: int,
        bins: int,
        low_freq: float,
        high_freq: float,
        n_fft: int = N_FFT,
        mel: str = "slaney",
    ) -> None:
        super().__init__()
        self.hop, self.n_fft = hop, n_fft
        norm = "slaney" if mel == "slaney" else None
        bank = melscale_fbanks(n_fft // 2 + 1, low_freq, high_freq, bins, sample_rate, norm=norm, mel_scale=mel)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("bank", bank, persistent=False)

    def frames(self, samples: Tensor) -> Tensor:
        """Frames of so many samples: ``1 + samples // hop``."""
        return 1 + samples // self.hop

    def power(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Power spectrogram (batch, frames, frequencies); the first and last frame are centred on the clip's ends."""
        framed = reflect_ends(waveform, lengths, self.n_fft // 2).unfold(-1, self.n_fft, self.hop)
        spectrum = torch.fft.rfft(framed * self.window)
        return spectrum.real.square() + spectrum.imag.square()

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform (batch, samples) → (batch, frames, bins) dB, floored at -100."""
        return 10.0 * (self.power(waveform, lengths) @ self.bank).clamp(min=POWER_FLOOR).log10()


class HtsatFrontend(Frontend):
    """Log-mel front end with the three ways of HTS-AT and CLAP to fill 1024 frames (``length_mode``).

    ``stretch`` (HTS-AT, training and validation), ``repeat`` (HTS-AT's inference mode: the frames are repeated as often
    as they fit, then stretched) or ``repeatpad`` (CLAP: the waveform is repeated as often as it fits into 10 s, then
    followed by silence).

    Args:
        shape: The variant's numbers.
    """

    pad_value = -100.0

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.length_mode not in MODES:
            raise ConfigError(f"model.length_mode={shape.length_mode} is unknown; choose one of: {', '.join(MODES)}.")
        self.sample_rate, self.target, self.mode = shape.sample_rate, shape.frames, shape.length_mode
        self.samples = round(CLAP_SECONDS * shape.sample_rate)
        self.logmel = LogMel(shape.sample_rate, shape.hop, shape.bins, shape.low_freq, shape.high_freq)

    def centres(self) -> Tensor:
        """As :meth:`sousa_bench.models.base.Frontend.centres`."""
        return band_centres(self.logmel.bank, self.sample_rate)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features; see :class:`sousa_bench.models.base.Frontend`.

        With ``lengths`` the result has the model's 1024 frames, each clip stretched from its own (of a longer clip the
        first 1024). Without, it has the frames of the input, which the backbone stretches, or cuts into overlapping
        crops where they are more than 1024, as the authors do.
        """
        if self.mode == "repeatpad":
            return self.logmel(self.repeat_and_pad(waveform, lengths)), None
        x = self.logmel(waveform, lengths)
        if lengths is None:
            return x.repeat(1, max(1, self.target // x.shape[1]), 1) if self.mode == "repeat" else x, None
        counts = self.logmel.frames(lengths).clamp(max=min(self.target, x.shape[1]))
        repeats = torch.full_like(counts, self.target) // counts if self.mode == "repeat" else torch.ones_like(counts)
        return stretch(x, counts, repeats, self.target), None

    def repeat_and_pad(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        """Each clip repeated as often as it fits into CLAP's input, then silence; a longer one is cut at the end."""
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        own = lengths.clamp(min=1, max=self.samples)[:, None]
        place = torch.arange(self.samples, device=waveform.device)
        filled = waveform.gather(1, place % own)
        return filled.masked_fill(place >= torch.full_like(own, self.samples) // own * own, 0.0)
