"""Snare drums: membrane modes, snare-wire noise and stick attack, synthesised once into tables of one-shots.

The membrane's modes are those of an ideal circular membrane (Bessel zeros, Fletcher & Rossing, "The Physics of Musical
Instruments", table 3.1), the lowest pulled down by the air in the shell; a strike off centre weakens the axisymmetric
modes. The wires rattle a few milliseconds after the hit, in a band of their own, and longer than the head. Harder
strokes are brighter: each velocity layer has its own low-pass cut-off.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.synthetic.version import SAMPLE_RATE, check_domain

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
        code: As in a sample id.
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
        ring_hz: A ringing overtone of the shell (0: none).
    """

    name: str
    code: str
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
    ring_hz: float


# fmt: off
DRUMS: dict[str, tuple[Drum, ...]] = {
    "target": (
        # name, code, fundamental, stretch, body, its decay, damping, wires, band, their decay, attack, its Hz,
        # cut-off, softness, ring
        Drum("Concert_14x5", "concert14", 148, .95, 1.0, .11, .5, .75, (350, 3200), .12, .5, 1900, 3000, .9, 441),
        Drum("Dark_14x6", "dark14", 140, .9, 1.0, .13, .5, .55, (300, 2600), .15, .35, 1500, 2300, 1.0, 366),
        Drum("Studio_14x5", "studio14", 186, 1.0, .8, .075, .8, .9, (900, 7000), .09, .7, 3500, 8000, 1.4, 0),
        Drum("Piccolo_13x3", "piccolo13", 262, 1.02, .7, .06, .7, 1.0, (1500, 9000), .07, .9, 4200, 11000, 1.5, 880),
        Drum("Deep_14x8", "deep14", 122, .97, 1.2, .14, .9, .7, (500, 4500), .17, .5, 2200, 5000, 1.2, 0),
        Drum("Kevlar_14x12", "kevlar14", 330, 1.05, .9, .03, 1.2, .6, (2000, 10000), .045, 1.3, 5200, 12500, 1.0, 1240),
    ),
    "source": (
        Drum("Birch_14x6", "birch14", 168, .97, .9, .095, .7, .8, (500, 4200), .105, .6, 2400, 4500, 1.1, 0),
        Drum("Maple_13x6", "maple13", 208, 1.0, .8, .08, .6, .85, (1100, 7600), .085, .6, 3000, 9000, 1.5, 640),
        Drum("Brass_14x5", "brass14", 196, 1.03, .7, .1, .4, .95, (1300, 8600), .11, .8, 3900, 10000, 1.3, 1010),
        Drum("Warm_14x7", "warm14", 131, .93, 1.1, .12, .6, .6, (320, 2900), .14, .4, 1700, 2600, 1.0, 402),
        Drum("Field_12x8", "field12", 240, .98, 1.0, .055, 1.0, .65, (900, 6000), .06, .9, 3300, 6500, 1.2, 0),
    ),
}
# fmt: on

ONE_SHOT_S = 0.6
_LENGTH = int(ONE_SHOT_S * SAMPLE_RATE)
_GRID = (120, _LENGTH // 120)


def _damped(frequency: NDArray[np.float64], tau: NDArray[np.float64]) -> NDArray[np.float32]:
    """Damped sines, one row a mode: (modes, `_LENGTH`). Built as an outer product, twenty times cheaper than `exp`."""
    pole = (2j * np.pi * frequency - 1.0 / tau)[:, None] / SAMPLE_RATE
    coarse = np.exp(pole * (np.arange(_GRID[0]) * _GRID[1])[None, :])
    fine = np.exp(pole * np.arange(_GRID[1])[None, :])
    return (coarse[:, :, None] * fine[:, None, :]).imag.reshape(len(frequency), _LENGTH).astype(np.float32)


@dataclass(frozen=True)
class Bank:
    """A drum's one-shots: float32 (LAYERS, 2 hands, VARIATIONS, samples); peak of the hardest near 1."""

    drum: Drum
    shots: NDArray[np.float32]


@lru_cache(maxsize=32)
def make_bank(domain: str, index: int) -> Bank:
    """Synthesise drum `index` of a domain; the same samples in every process.

    Returns:
        Its bank; about 3.7 MB, a few tens of milliseconds.
    """
    from scipy.signal import butter, lfilter, sosfilt

    drum = DRUMS[check_domain(domain)][index]
    rng = np.random.default_rng([0xD2, len(domain), index])
    band = butter(2, drum.wires_hz, "bandpass", fs=SAMPLE_RATE, output="sos")
    noise = sosfilt(band, rng.standard_normal(SAMPLE_RATE * 4)).astype(np.float32)
    noise /= np.sqrt((noise**2).mean())
    time = np.arange(_LENGTH, dtype=np.float32) / SAMPLE_RATE
    shots = np.empty((LAYERS, 2, VARIATIONS, _LENGTH), np.float32)
    for hand in range(2):
        for variation in range(VARIATIONS):
            parts = _parts(drum, hand, time, noise, rng)
            for layer in range(LAYERS):
                hardness = layer / (LAYERS - 1)
                body, wires, attack = parts
                dry = (
                    body * (1.0 - 0.25 * hardness)
                    + wires * (0.65 + 0.35 * hardness)
                    + attack * (0.35 + 0.65 * hardness)
                )
                cutoff = min(drum.cutoff_hz * 2.0 ** (-drum.softness * (1 - hardness)), 0.45 * SAMPLE_RATE)
                b, a = butter(3, cutoff, fs=SAMPLE_RATE)
                shots[layer, hand, variation] = lfilter(b, a, dry)
    shots *= _fade(time)
    shots /= np.abs(shots).max(axis=-1, keepdims=True).mean(axis=(1, 2), keepdims=True)
    return Bank(drum, shots)


def _fade(time: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the last 80 ms to zero, so that a one-shot never ends in a click."""
    return np.clip((ONE_SHOT_S - time) / 0.08, 0, 1).astype(np.float32)


def _parts(
    drum: Drum, hand: int, time: NDArray[np.float32], noise: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Head, wires and stick of one stroke, each (samples,)."""
    strike = float(np.clip(0.3 + 0.12 * (hand * 2 - 1) + rng.normal(0, 0.08), 0, 0.8))
    ratios = _RATIOS**drum.stretch
    frequency = drum.fundamental_hz * ratios * (1 + rng.normal(0, 0.004, len(ratios))) * (1 + 0.012 * (hand - 0.5))
    tau = drum.body_s / ratios**drum.damping
    level = np.where(_AXIAL, 1 - 0.5 * strike, 0.35 + strike) / ratios**0.5 * np.exp(rng.normal(0, 0.12, len(ratios)))
    if drum.ring_hz:
        frequency = np.append(frequency, drum.ring_hz * (1 + rng.normal(0, 0.002)))
        tau, level = np.append(tau, drum.body_s * 1.1), np.append(level, 0.5 * np.exp(rng.normal(0, 0.2)))
    body = level.astype(np.float32) @ _damped(frequency, tau)
    body *= np.float32(drum.body / 2.2)

    start = int(rng.integers(0, len(noise) - _LENGTH))
    swell = 1 - np.exp(-time / 0.002)
    rattle = 0.75 + 0.25 * np.cos(2 * np.pi * drum.fundamental_hz * time)
    decay = np.exp(-time / drum.wires_s) * 0.8 + 0.2 * np.exp(-time / (2.0 * drum.wires_s))
    wires = noise[start : start + _LENGTH] * (swell * rattle * decay * drum.wires * 0.30).astype(np.float32)

    click = np.sin(2 * np.pi * drum.attack_hz * time) * np.exp(-time / 0.0012)
    burst = rng.standard_normal(_LENGTH) * np.exp(-time / 0.0009) * 0.5
    attack = ((click + burst) * drum.attack).astype(np.float32)
    return body.astype(np.float32), wires, attack
