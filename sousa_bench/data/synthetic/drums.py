"""Snare drums: membrane modes, snare-wire noise and stick attack, synthesised once into tables of one-shots.

The membrane's modes are those of an ideal circular membrane (Bessel zeros, Fletcher & Rossing, "The Physics of Musical
Instruments", table 3.1), the lowest pulled down by the air in the shell; a strike off centre weakens the axisymmetric
modes. The wires rattle a few milliseconds after the hit, in a band of their own, and longer than the head. Harder
strokes are brighter: each velocity layer has its own low-pass cut-off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.synthetic import DOMAINS, SAMPLE_RATE, check_domain, filters
from sousa_bench.data.synthetic.filters import Float32

LAYERS = 6
"""Velocity layers of a bank."""

VARIATIONS = 4
"""Round-robin variations of each layer and hand: no two neighbouring strokes are the same samples."""

# Bessel zeros j_mn / j_01 of the modes (m, n), and whether a mode is axisymmetric (m = 0).
_RATIOS = np.array([1.0, 1.593, 2.135, 2.295, 2.653, 2.917, 3.155, 3.500, 3.598, 4.230])
_AXIAL = np.array([True, False, False, True, False, False, False, False, True, False])


@dataclass(frozen=True)
class Drum:
    """One drum with its tuning.

    Attributes:
        name: As in the column `soundfont`.
        fundamental_hz: Lowest mode of the batter head.
        stretch: Exponent on the mode ratios: below 1 for a loose head, above for a stiff one.
        body: Level of the head.
        body_s: Time constant of the lowest mode's decay.
        damping: How much faster the higher modes die.
        wires: Level of the snare wires.
        wires_hz: Band of the wires' noise.
        wires_s: Time constant of their decay.
        attack: Level of the stick.
        attack_hz: Centre of the stick's click.
        cutoff_hz: Low-pass cut-off of the hardest stroke.
        softness: Octaves by which the softest stroke's cut-off lies lower.
        tone: Level of a sustained harmonic tone (0: none): what a drum with its snares off, or a pitched sample in
            place of a drum, adds. SOUSA's FluidR3 clips are of this kind: partials every 73.4 Hz (MIDI note 38).
        tone_hz: Its fundamental.
        tone_s: Its length.
        bloom_s: When it swells a second time, by 5 dB (0: never). Each stroke of SOUSA's clips does so after 45 ms.
    """

    name: str
    fundamental_hz: float
    stretch: float
    body: float
    body_s: float
    damping: float
    wires: float
    wires_hz: tuple[float, float]
    wires_s: float
    attack: float
    attack_hz: float
    cutoff_hz: float
    softness: float
    tone: float
    tone_hz: float
    tone_s: float
    bloom_s: float

    @property
    def code(self) -> str:
        """Short name as in a sample id."""
        return self.name.lower().replace("_", "")


DRAWN = 18
"""Drums of the source domain beside those with a name: drawn at random, half of them with a tone."""

PITCHED = 24
"""And those that are hardly a drum but a low note, as SOUSA's snare is (MIDI note 38)."""


Range = tuple[float, float]
_RANGES: dict[str, dict[str, Range | tuple[Range, Range]]] = {
    "drum": {
        "fundamental_hz": (105, 300),
        "stretch": (0.9, 1.06),
        "body": (0.3, 1.0),
        "body_s": (0.03, 0.11),
        "damping": (0.4, 1.2),
        "wires": (0.08, 1.1),
        "wires_hz": ((450, 2100), (2400, 10000)),
        "wires_s": (0.045, 0.12),
        "attack": (0.15, 1.2),
        "attack_hz": (1400, 5000),
        "cutoff_hz": (2400, 12000),
        "softness": (0.4, 1.5),
    },
    "note": {
        "fundamental_hz": (105, 300),
        "stretch": (0.95, 1.05),
        "body": (0.05, 0.4),
        "body_s": (0.05, 0.12),
        "damping": (0.4, 0.9),
        "wires": (0.0, 0.12),
        "wires_hz": ((450, 1000), (2000, 4000)),
        "wires_s": (0.05, 0.12),
        "attack": (0.05, 0.3),
        "attack_hz": (1200, 3000),
        "cutoff_hz": (2000, 4500),
        "softness": (0.1, 0.8),
        "tone": (0.7, 1.15),
        "tone_hz": (60, 130),
        "tone_s": (0.12, 0.3),
    },
}
"""Of each attribute of a drum at random the range, or the ranges of its two ends.

Fundamental, stick and tone stay below those of the target's most extreme drum."""


def log_between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number at random, uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _at_random(rng: np.random.Generator, ranges: Mapping[str, Range | tuple[Range, Range]]) -> dict[str, Any]:
    """A value from each range, in their order: frequencies uniform in the logarithm, all else as it is."""

    def draw(key: str, between: Any) -> Any:
        if isinstance(between[0], tuple):
            return tuple(draw(key, each) for each in between)
        return log_between(rng, *between) if key.endswith("_hz") else float(rng.uniform(*between))

    return {key: draw(key, between) for key, between in ranges.items()}


def _drawn(number: int) -> Drum:
    """A drum at random, so that what is learnt on the source domain doesn't hang on a few sounds."""
    rng = np.random.default_rng([0xD5, number])
    tone = float(rng.uniform(0.1, 1.1)) if number % 2 else 0.0
    return Drum(
        name=f"Drawn_{number:02d}",
        **_at_random(rng, _RANGES["drum"]),
        tone=tone,
        tone_hz=log_between(rng, 65, 130 if tone > 0.5 else 900) if tone else 0.0,
        tone_s=float(rng.uniform(0.1, 0.16)) if tone else 0.0,
        bloom_s=float(rng.uniform(0.025, 0.05)) if number % 4 == 1 else 0.0,
    )


def _pitched(number: int) -> Drum:
    """A low note at random in place of a drum: hardly a head, next to no wires, a soft stick and a long tone."""
    rng = np.random.default_rng([0xD7, number])
    return Drum(
        name=f"Pitched_{number:02d}",
        **_at_random(rng, _RANGES["note"]),
        bloom_s=float(rng.uniform(0.025, 0.06)) if number % 2 else 0.0,
    )


# fmt: off
DRUMS: dict[str, tuple[Drum, ...]] = {
    "target": (
        # name, head: Hz, stretch, level, decay, damping, wires: level, band, decay, stick: level, Hz,
        # cut-off, softness, tone: level, Hz, length, bloom
        Drum("Concert_14x5", 148, .95, .8, .075, .5, 1.1, (600, 2400), .09, .5, 1900, 3000, .7, .2, 441, .12, 0),
        Drum("Dark_14x6", 140, .9, .9, .09, .5, .9, (500, 2000), .11, .35, 1500, 2400, .8, .15, 366, .15, 0),
        Drum("Studio_14x5", 186, 1.0, .8, .06, .8, .9, (900, 7000), .09, .7, 3500, 8000, 1.4, 0, 0, 0, 0),
        Drum("Piccolo_13x3", 262, 1.02, .7, .06, .7, 1.0, (1500, 9000), .07, .9, 4200, 11000, 1.5, .1, 880, .1, 0),
        Drum("Kevlar_14x12", 330, 1.05, .9, .03, 1.2, .6, (2000, 10000), .045, 1.3, 5200, 12500, 1.0, 0, 0, 0, 0),
        Drum("Snares_Off_D2", 147, 1.0, .3, .1, .5, .05, (600, 2400), .09, .15, 1500, 3000, .3, 1.2, 73.4, .15, .045),
        Drum("Tuned_F2", 175, .97, .35, .09, .5, .12, (700, 2600), .08, .2, 1700, 3200, .4, 1.1, 87.3, .14, .038),
    ),
    "source": (
        Drum("Birch_14x6", 168, .97, .9, .07, .7, .9, (800, 4200), .085, .6, 2400, 4500, 1.1, 0, 0, 0, 0),
        Drum("Maple_13x6", 208, 1.0, .8, .06, .6, .85, (1100, 7600), .085, .6, 3000, 9000, 1.5, .15, 640, .1, 0),
        Drum("Brass_14x5", 196, 1.03, .7, .07, .4, .95, (1300, 8600), .1, .8, 3900, 10000, 1.3, .2, 505, .12, 0),
        Drum("Warm_14x7", 131, .93, .9, .085, .6, .9, (550, 2300), .1, .4, 1700, 2600, 1.0, .3, 201, .13, 0),
        Drum("Field_12x8", 240, .98, 1.0, .055, 1.0, .65, (900, 6000), .06, .9, 3300, 6500, 1.2, 0, 0, 0, 0),
        Drum("Tom_Tuned_A2", 110, 1.0, .6, .12, .6, .2, (500, 2800), .08, .3, 1400, 2800, .6, .9, 110, .16, .03),
        *map(_drawn, range(1, DRAWN + 1)),
        *map(_pitched, range(1, PITCHED + 1)),
    ),
}
# fmt: on

ONE_SHOT_S = 0.6
_LENGTH = int(ONE_SHOT_S * SAMPLE_RATE)
_GRID = (120, _LENGTH // 120)


def _damped(
    frequency: NDArray[np.float64], tau: NDArray[np.float64], phase: NDArray[np.float64] | None = None
) -> Float32:
    """Damped sines, one row a mode: (modes, `_LENGTH`). Built as an outer product, twenty times cheaper than `exp`."""
    pole = (2j * np.pi * frequency - 1.0 / tau)[:, None] / SAMPLE_RATE
    coarse = np.exp(pole * (np.arange(_GRID[0]) * _GRID[1])[None, :])
    fine = np.exp(pole * np.arange(_GRID[1])[None, :])
    if phase is not None:
        fine *= np.exp(1j * phase)[:, None]
    return (coarse[:, :, None] * fine[:, None, :]).imag.reshape(len(frequency), _LENGTH).astype(np.float32)


@dataclass(frozen=True)
class Bank:
    """A drum's one-shots: float32 (LAYERS, 2 hands, VARIATIONS, samples); peak of the hardest near 1."""

    drum: Drum
    shots: Float32


@lru_cache(maxsize=64)
def make_bank(domain: str, index: int) -> Bank:
    """Synthesise drum `index` of a domain; the same samples in every process.

    Returns:
        Its bank; about 3.7 MB, a few tens of milliseconds.
    """
    drum = DRUMS[check_domain(domain)][index]
    rng = np.random.default_rng([0xD2, DOMAINS.index(domain), index])
    size = SAMPLE_RATE * 4
    noise = filters.apply(rng.standard_normal(size), filters.bandpass(size, drum.wires_hz))
    noise /= np.sqrt((noise**2).mean())
    time = (np.arange(_LENGTH) / SAMPLE_RATE).astype(np.float32)
    shots = np.empty((LAYERS, 2, VARIATIONS, _LENGTH), np.float32)
    hardness = np.linspace(0, 1, LAYERS, dtype=np.float32)[:, None]
    cutoffs = np.minimum(drum.cutoff_hz * 2.0 ** (-drum.softness * (1 - hardness[:, 0])), 0.45 * SAMPLE_RATE)
    responses = np.stack([filters.lowpass(_LENGTH, cutoff, 3) for cutoff in cutoffs]).astype(np.complex64)
    for hand in range(2):
        for variation in range(VARIATIONS):
            body, wires, attack = _parts(drum, hand, time, noise, rng)
            dry = body * (1 - 0.25 * hardness) + wires * (0.65 + 0.35 * hardness) + attack * (0.35 + 0.65 * hardness)
            shots[:, hand, variation] = filters.apply(dry, responses)
    shots *= _fade(time)
    shots /= np.abs(shots).max(axis=-1, keepdims=True).mean(axis=(1, 2), keepdims=True)
    return Bank(drum, shots)


def _fade(time: Float32) -> Float32:
    """Bring the last 80 ms to zero, so that a one-shot never ends in a click."""
    return np.clip((ONE_SHOT_S - time) / 0.08, 0, 1).astype(np.float32)


@lru_cache(maxsize=64)
def _partials(drum: Drum) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in Hz, levels and phases of a tone's partials: a drum's own mixture, some 8 dB softer each kHz."""
    frequency = np.asarray(drum.tone_hz * np.arange(1, max(2, int(4500 / drum.tone_hz))), np.float64)
    rng = np.random.default_rng([0x70, int(drum.tone_hz * 10)])
    level: NDArray[np.float64] = np.power(10.0, (-8.0 * frequency / 1000 + rng.normal(0, 5.0, len(frequency))) / 20)
    level /= np.linalg.norm(level)
    return frequency, level, rng.uniform(0, 2 * np.pi, len(frequency))


def _tone(drum: Drum, time: Float32) -> Float32:
    """The harmonic tone, (samples,): it swells in some milliseconds, stays, and goes quicker than exponentially."""
    frequency, level, phase = _partials(drum)
    partials = level.astype(np.float32) @ _damped(frequency, 0.5 / (1 + frequency / 1000), phase)
    envelope = (1 - np.exp(-time / 0.006)) * np.exp(-((time / drum.tone_s) ** 1.5))
    if drum.bloom_s:
        envelope *= 0.56 + 0.44 / (1 + np.exp((drum.bloom_s - time) / 0.003))
    return (partials * envelope * drum.tone).astype(np.float32)


def _parts(
    drum: Drum, hand: int, time: Float32, noise: Float32, rng: np.random.Generator
) -> tuple[Float32, Float32, Float32]:
    """Head, wires and stick of one stroke, each (samples,)."""
    strike = float(np.clip(0.3 + 0.12 * (hand * 2 - 1) + rng.normal(0, 0.08), 0, 0.8))
    ratios = _RATIOS**drum.stretch
    frequency = drum.fundamental_hz * ratios * (1 + rng.normal(0, 0.004, len(ratios))) * (1 + 0.012 * (hand - 0.5))
    tau = drum.body_s / ratios**drum.damping
    level = np.where(_AXIAL, 1 - 0.5 * strike, 0.35 + strike) / ratios**0.5 * np.exp(rng.normal(0, 0.12, len(ratios)))
    body = level.astype(np.float32) @ _damped(frequency, tau)
    body *= np.float32(drum.body / 2.2)
    if drum.tone:
        body += _tone(drum, time)

    start = int(rng.integers(0, len(noise) - _LENGTH))
    swell = 1 - np.exp(-time / 0.002)
    rattle = 0.75 + 0.25 * np.cos(2 * np.pi * drum.fundamental_hz * time)
    decay = np.exp(-time / drum.wires_s) * 0.8 + 0.2 * np.exp(-time / (2.0 * drum.wires_s))
    wires = noise[start : start + _LENGTH] * (swell * rattle * decay * drum.wires * 0.30).astype(np.float32)

    click = np.sin(2 * np.pi * drum.attack_hz * time) * np.exp(-time / 0.0012)
    burst = rng.standard_normal(_LENGTH) * np.exp(-time / 0.0009) * 0.5
    attack = ((click + burst) * drum.attack).astype(np.float32)
    return body.astype(np.float32), wires, attack
