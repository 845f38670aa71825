"""Augmentations of the training clips, each with its own switch.

Every random number comes from (seed, epoch, clip): the same clip in the same epoch is augmented alike whatever the
batch, the micro-batch, the number of processes, and however often the run was interrupted (mixup's partner alone comes
from the batch). Mixup, gain and noise act on the waveform; time stretch and SpecAugment on the features, so that one
code serves all models.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from sousa_bench.errors import ConfigError

FULL_SCALE = 32768.0
_NOISE_SAMPLES = 2**21


@dataclass(frozen=True)
class Part:
    """One augmentation.

    Attributes:
        enabled: The switch.
    """

    enabled: bool = True


@dataclass(frozen=True)
class ChancePart(Part):
    """One that acts on some clips only.

    Attributes:
        probability: Share of the clips it acts on.
    """

    probability: float = 0.5


@dataclass(frozen=True)
class Gain(ChancePart):
    """Scale the waveform by a level drawn evenly in dB.

    Attributes:
        min_db: Lowest level, dB.
        max_db: Highest level, dB.
    """

    min_db: float = -9.0
    max_db: float = 6.0


@dataclass(frozen=True)
class Noise(ChancePart):
    """Add white noise at a signal-to-noise ratio drawn evenly in dB.

    Attributes:
        min_snr_db: Loudest noise, dB below the clip's mean power.
        max_snr_db: Softest noise.
    """

    min_snr_db: float = 10.0
    max_snr_db: float = 40.0


@dataclass(frozen=True)
class TimeStretch(ChancePart):
    """Play the clip faster or slower at the same pitch, by resampling its feature frames linearly.

    The number of frames stays: what a slower clip pushes past the end is cut, what a faster one leaves is padding.

    Attributes:
        min_rate: Slowest rate (0.9: a tenth slower).
        max_rate: Fastest rate.
    """

    min_rate: float = 0.9
    max_rate: float = 1.1


@dataclass(frozen=True)
class SpecAugment(Part):
    """Mask bands of time and frequency with the clip's mean (Park et al. 2019, arXiv:1904.08779, without warping).

    Attributes:
        time_masks: Bands along time in each clip.
        max_time_fraction: Widest band, as a share of the frames.
        frequency_masks: Bands along frequency in each clip.
        max_frequency_fraction: Widest band, as a share of the bins.
    """

    time_masks: int = 2
    max_time_fraction: float = 0.08
    frequency_masks: int = 2
    max_frequency_fraction: float = 0.12


@dataclass(frozen=True)
class Mixup(ChancePart):
    """Blend the waveforms and labels of two clips of a batch (Zhang et al. 2018, arXiv:1710.09412).

    Attributes:
        probability: Share of the clips that get a partner.
        alpha: Both parameters of the Beta distribution that the weight is drawn from.
    """

    probability: float = 0.3
    alpha: float = 0.3


CHANCES = ("mixup", "gain", "noise", "time_stretch")
"""The parts that act on some clips only, in the order in which it is drawn whether they do."""


@dataclass(frozen=True)
class Draws:
    """What was drawn for the clips of one batch; every array has one row a clip."""

    partner_weight: np.ndarray
    partner_rank: np.ndarray
    gain_db: np.ndarray
    snr_db: np.ndarray
    noise_offset: np.ndarray
    rate: np.ndarray
    time_masks: np.ndarray
    frequency_masks: np.ndarray

    def of(self, rows: np.ndarray) -> Draws:
        """The draws of some of the clips."""
        return Draws(*(getattr(self, column.name)[rows] for column in fields(self)))

    def partners(self, index: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """With whom each clip is mixed, and by which weight: always with another clip of the batch.

        Args:
            index: (clips,) positions of the clips.
            members: (global clips,) those of the whole batch, in which each of them stands once.

        Returns:
            (clips,) positions of the partners, and their weights: 0 for a clip that is alone in its batch.
        """
        others = len(members) - 1
        if not others:
            return index, np.zeros_like(self.partner_weight)
        chosen = (self.partner_rank * others).astype(np.int64)
        own = (members == index[:, None]).argmax(axis=1)
        return members[chosen + (chosen >= own)], self.partner_weight


@dataclass
class Augmentation:
    """The augmentations of one run; ``conf/augmentation/on.yaml`` builds it.

    Attributes:
        name: ``on`` or ``off``; the result file's ``augmentation`` is true for ``on``.
        gain: See :class:`Gain`.
        noise: See :class:`Noise`.
        time_stretch: See :class:`TimeStretch`.
        spec_augment: See :class:`SpecAugment`.
        mixup: See :class:`Mixup`.
    """

    name: str = "on"
    gain: Gain = field(default_factory=Gain)
    noise: Noise = field(default_factory=Noise)
    time_stretch: TimeStretch = field(default_factory=TimeStretch)
    spec_augment: SpecAugment = field(default_factory=SpecAugment)
    mixup: Mixup = field(default_factory=Mixup)

    def __post_init__(self) -> None:
        self._noise = torch.empty(0)
        stretch, spec = self.time_stretch, self.spec_augment
        rules = [
            *((f"{part}.probability", 0 <= getattr(self, part).probability <= 1, "from 0 to 1") for part in CHANCES),
            ("gain.min_db", self.gain.min_db <= self.gain.max_db, "at most gain.max_db"),
            ("noise.min_snr_db", self.noise.min_snr_db <= self.noise.max_snr_db, "at most noise.max_snr_db"),
            (
                "time_stretch.min_rate",
                0 < stretch.min_rate <= stretch.max_rate,
                "above 0, at most time_stretch.max_rate",
            ),
            ("spec_augment.time_masks", spec.time_masks >= 0, "0 or more"),
            ("spec_augment.frequency_masks", spec.frequency_masks >= 0, "0 or more"),
            ("spec_augment.max_time_fraction", 0 <= spec.max_time_fraction <= 1, "from 0 to 1"),
            ("spec_augment.max_frequency_fraction", 0 <= spec.max_frequency_fraction <= 1, "from 0 to 1"),
            ("mixup.alpha", self.mixup.alpha > 0, "above 0"),
        ]
        for key, good, what in rules:
            if not good:
                raise ConfigError(f"augmentation.{key}={attrgetter(key)(self)} can't be: it must be {what}.")

    @property
    def changes_waveform(self) -> bool:
        """Whether features must be computed anew in each epoch."""
        return self.mixup.enabled or self.gain.enabled or self.noise.enabled

    def draw(self, seed: int, epoch: int, keys: np.ndarray) -> Draws:
        """Draw every random number for clips with the integer ``keys`` (one a clip) in one epoch."""
        rows = [self._draw_one(np.random.default_rng([seed, epoch, int(key)])) for key in keys]
        return Draws(*(np.stack(column) for column in zip(*rows, strict=True)))

    def _draw_one(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        # Everything is drawn whether it is enabled or not, so that one switch leaves the other draws as they were.
        chance = rng.random(4)
        weight = rng.beta(self.mixup.alpha, self.mixup.alpha)
        rank = rng.random()
        gain = rng.uniform(self.gain.min_db, self.gain.max_db)
        snr = rng.uniform(self.noise.min_snr_db, self.noise.max_snr_db)
        offset = rng.integers(_NOISE_SAMPLES)
        rate = rng.uniform(self.time_stretch.min_rate, self.time_stretch.max_rate)
        spec = self.spec_augment
        bands_t, bands_f = rng.random((spec.time_masks, 2)), rng.random((spec.frequency_masks, 2))
        hit = {
            name: getattr(self, name).enabled and chance[i] < getattr(self, name).probability
            for i, name in enumerate(CHANCES)
        }
        values = (
            min(weight, 1 - weight) if hit["mixup"] else 0.0,
            rank,
            gain if hit["gain"] else 0.0,
            snr if hit["noise"] else np.inf,
            offset,
            rate if hit["time_stretch"] else 1.0,
            bands_t * (1, spec.max_time_fraction) if spec.enabled else bands_t * 0,
            bands_f * (1, spec.max_frequency_fraction) if spec.enabled else bands_f * 0,
        )
        return tuple(np.asarray(value) for value in values)

    def on_waveform(self, waveform: Tensor, lengths: Tensor, draws: Draws, partner: Tensor | None) -> Tensor:
        """Mixup, gain and noise.

        Args:
            waveform: (batch, samples) float32 in -1..1.
            lengths: (batch,) int64 samples of each clip (of the longer one of a mixed pair).
            draws: What :meth:`draw` gave for these clips.
            partner: (batch, samples) the clips to mix in, or None when no clip has one.
        """
        device = waveform.device
        if partner is not None:
            weight = torch.as_tensor(draws.partner_weight, dtype=waveform.dtype, device=device)[:, None]
            waveform = (1 - weight) * waveform + weight * partner
        gain = torch.as_tensor(10.0 ** (draws.gain_db / 20), dtype=waveform.dtype, device=device)
        waveform = waveform * gain[:, None]
        if np.isfinite(draws.snr_db).any():
            waveform = self._add_noise(waveform, lengths, draws)
        return waveform

    def _add_noise(self, waveform: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
        samples = waveform.shape[1]
        inside = torch.arange(samples, device=waveform.device) < lengths[:, None]
        power = waveform.square().sum(dim=1) / lengths.clamp(min=1)
        scale = (power.sqrt() * torch.as_tensor(10.0 ** (-draws.snr_db / 20), device=waveform.device)).to(waveform)
        bank = self._white_noise(waveform.device, _NOISE_SAMPLES + samples)
        noise = torch.stack([bank[int(offset) : int(offset) + samples] for offset in draws.noise_offset])
        return waveform + scale[:, None] * noise * inside

    def _white_noise(self, device: torch.device, samples: int) -> Tensor:
        """(samples or more,) of unit variance, the same on every machine; each clip reads it from its own offset."""
        if self._noise.device != device or len(self._noise) < samples:
            self._noise = torch.from_numpy(np.random.default_rng(0).standard_normal(samples, dtype=np.float32)).to(
                device
            )
        return self._noise

    def on_features(
        self, features: Tensor, mask: Tensor | None, draws: Draws, pad_value: float
    ) -> tuple[Tensor, Tensor | None]:
        """Time stretch, then SpecAugment.

        Args:
            features: (batch, frames, bins).
            mask: (batch, frames) bool, True on padding, or None.
            draws: What :meth:`draw` gave for these clips.
            pad_value: Feature value of padding.

        Returns:
            Features and mask of the same shapes.
        """
        frames = _own_frames(features, mask, pad_value)
        if (draws.rate != 1).any():
            features, mask = _stretch(features, mask, draws.rate, frames, pad_value)
        if self.spec_augment.enabled:
            features = _mask_bands(features, frames, draws.time_masks, draws.frequency_masks)
        return features, mask


class NoAugmentation(Augmentation):
    """Every switch off; ``conf/augmentation/off.yaml`` builds it."""

    def __init__(self, name: str = "off") -> None:
        parts = {"gain": Gain, "noise": Noise, "time_stretch": TimeStretch, "spec_augment": SpecAugment, "mixup": Mixup}
        super().__init__(name, **{key: part(enabled=False) for key, part in parts.items()})


def _own_frames(features: Tensor, mask: Tensor | None, pad_value: float) -> Tensor:
    """(batch,) int64: how many frames of each clip come before its padding, at least one."""
    inside = (features != pad_value).any(dim=2) if mask is None else ~mask
    index = torch.arange(1, features.shape[1] + 1, device=features.device)
    return (inside * index).amax(dim=1).clamp(min=1)


def _stretch(
    features: Tensor, mask: Tensor | None, rate: np.ndarray, frames: Tensor, pad_value: float
) -> tuple[Tensor, Tensor | None]:
    index = torch.arange(features.shape[1], device=features.device)
    position = index * torch.as_tensor(rate, dtype=torch.float32, device=features.device)[:, None]
    last = (frames - 1)[:, None]
    beyond = (position > last) | (index > last)
    low = torch.minimum(position.floor().long(), last)
    high = torch.minimum(low + 1, last)
    share = (position - low).clamp(0, 1).to(features.dtype)[:, :, None]
    rows = torch.arange(len(features), device=features.device)[:, None]
    stretched = torch.lerp(features[rows, low], features[rows, high], share)
    stretched = stretched.masked_fill(beyond[:, :, None], pad_value)
    return stretched, None if mask is None else mask[rows, low] | beyond


def _mask_bands(features: Tensor, frames: Tensor, time_masks: np.ndarray, frequency_masks: np.ndarray) -> Tensor:
    device = features.device
    inside = (torch.arange(features.shape[1], device=device) < frames[:, None])[:, :, None]
    own = frames.cpu().numpy()
    bins = np.full(len(features), features.shape[2])
    hidden = torch.as_tensor(_bands(time_masks, own, features.shape[1]), device=device)[:, :, None]
    hidden = hidden | torch.as_tensor(_bands(frequency_masks, bins, features.shape[2]), device=device)[:, None, :]
    mean = (features * inside).sum(dim=(1, 2)) / (frames * features.shape[2])
    return torch.where(hidden & inside, mean[:, None, None].to(features.dtype), features)


def _bands(bands: np.ndarray, sizes: np.ndarray, length: int) -> np.ndarray:
    """(batch, bands, [place, width] as shares of each size) → (batch, length) bool, True inside a band."""
    width = np.round(bands[:, :, 1] * sizes[:, None])
    start = np.floor(bands[:, :, 0] * (sizes[:, None] - width + 1))
    index = np.arange(length)
    inside = (index >= start[:, :, None]) & (index < (start + width)[:, :, None])
    return inside.any(axis=1)
