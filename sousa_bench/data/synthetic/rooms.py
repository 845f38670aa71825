"""Rooms and microphones, and how a performance sounds in them.

A room is early reflections, an exponentially decaying tail, the microphone's band, and noise. A clip is a drum's
one-shots laid into a buffer, one convolution with the room, noise, and a level.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.synthetic import DOMAINS, SAMPLE_RATE, check_domain, filters
from sousa_bench.data.synthetic.drums import LAYERS, VARIATIONS, Bank, log_between

FFT_SIZE = 262_144
"""One size for every clip: 8.2 s at 32 kHz holds the longest clip and its reverberation."""

VARIANTS = 4
"""Microphone places per room."""


@dataclass(frozen=True)
class Room:
    """A recording situation, SOUSA's `augmentation_preset`.

    Attributes:
        preset: Name in the column `augmentation_preset`.
        room_type: Name in the column `aug_room_type`.
        wet: Level of the reverberation relative to the direct sound.
        mic_distance_m: Distance of the microphone.
        mic_type: "dynamic" or "condenser".
        compression: Ratio above the threshold; 1: none.
        noise_db: Noise relative to the clip's RMS; None: almost none.
        rt60_s: Reverberation time at 500 Hz.
        bright: Reverberation time at 5 kHz relative to that.
        size_m: Typical distance of a wall, which spaces the early reflections.
        band_hz: The microphone's band.
    """

    preset: str
    room_type: str
    wet: float
    mic_distance_m: float
    mic_type: str
    compression: float
    noise_db: float | None
    rt60_s: float
    bright: float
    size_m: float
    band_hz: tuple[float, float]


DRAWN = 25
"""Rooms of the source domain beside those with a name."""


def _drawn(number: int) -> Room:
    """A room and a microphone at random; some are so wet that a stroke is at its loudest 50 ms after it began."""
    rng = np.random.default_rng([0x25, number])
    size = log_between(rng, 1.2, 20)
    return Room(
        preset=f"drawn_{number}",
        room_type="drawn",
        wet=log_between(rng, 0.05, 1.5),
        mic_distance_m=float(rng.uniform(0.3, 5.0)),
        mic_type=str(rng.choice(["dynamic", "condenser"])),
        compression=float(rng.uniform(1.0, 3.0)),
        noise_db=float(rng.uniform(-48, -32)),
        rt60_s=log_between(rng, 0.15, 1.5),
        bright=float(rng.uniform(0.3, 0.65)),
        size_m=size,
        band_hz=(float(rng.uniform(45, 110)), float(rng.uniform(6000, 15500))),
    )


# fmt: off
ROOMS: dict[str, tuple[Room, ...]] = {
    "target": (
        #    preset            type             wet   mic  type        comp  noise  rt60  hi   size  band
        Room("clean_studio", "studio", 0.15, 0.4, "condenser", 2.0, None, 0.30, 0.6, 3.0, (45, 15000)),
        Room("practice_room", "practice_room", 0.20, 0.5, "dynamic", 2.0, -45.0, 0.45, 0.5, 2.0, (80, 11000)),
        Room("garage", "garage", 0.35, 1.0, "dynamic", 1.0, -35.0, 0.80, 0.5, 4.0, (90, 8000)),
        Room("gym", "gym", 0.35, 2.0, "dynamic", 2.5, -40.0, 1.40, 0.4, 14.0, (80, 6500)),
        Room("marching_field", "outdoor", 0.05, 5.0, "dynamic", 2.5, -35.0, 0.25, 0.3, 25.0, (100, 9000)),
    ),
    "source": (
        Room("vocal_booth", "booth", 0.08, 0.3, "condenser", 1.5, None, 0.15, 0.4, 1.2, (50, 15500)),
        Room("classroom", "classroom", 0.28, 1.5, "condenser", 1.0, -42.0, 0.65, 0.5, 5.0, (70, 13000)),
        Room("rehearsal_hall", "hall", 0.32, 2.5, "dynamic", 2.0, -38.0, 1.10, 0.6, 9.0, (80, 10000)),
        Room("basement", "basement", 0.30, 0.8, "dynamic", 3.0, -33.0, 0.55, 0.3, 2.4, (100, 7000)),
        Room("parking_deck", "outdoor", 0.22, 3.0, "dynamic", 2.0, -36.0, 1.70, 0.3, 18.0, (90, 6000)),
        *map(_drawn, range(1, DRAWN + 1)),
    ),
}
# fmt: on


@lru_cache(maxsize=128)
def transfer_function(domain: str, index: int, variant: int) -> NDArray[np.complex64]:
    """Room and microphone as one frequency response, (FFT_SIZE / 2 + 1,), for a real FFT of `FFT_SIZE`."""
    room = ROOMS[check_domain(domain)][index]
    rng = np.random.default_rng([0x20, DOMAINS.index(domain), index, variant])
    length = int(min(1.6, room.rt60_s * 1.1 + 0.1) * SAMPLE_RATE)
    impulse = np.zeros(length)
    impulse[0] = 1.0
    path = room.size_m * rng.uniform(0.5, 2.2, 8)
    for extra, sign in zip(np.sort(path), rng.choice([-1.0, 1.0], 8), strict=True):
        at = int(extra / 343.0 * SAMPLE_RATE)
        if at < length:
            impulse[at] += sign * 1.6 * room.wet * room.mic_distance_m / (room.mic_distance_m + extra)
    time = np.arange(length) / SAMPLE_RATE
    noise = rng.standard_normal(length)
    low = filters.apply(noise, filters.lowpass(length, 2000, 1))
    rate = 6.9078 / room.rt60_s
    tail = low * np.exp(-rate * time) + (noise - low) * np.exp(-rate / room.bright * time)
    tail[: int(2 * room.size_m / 343.0 * SAMPLE_RATE) + 1] = 0.0
    energy = np.sqrt((tail**2).sum())
    if energy > 0:
        impulse += tail / energy * room.wet * 1.2
    low_hz, high_hz = room.band_hz[0] * rng.uniform(0.8, 1.25), room.band_hz[1] * rng.uniform(0.8, 1.0)
    microphone = filters.bandpass(FFT_SIZE, (low_hz, high_hz))
    microphone *= 1 + rng.uniform(-0.3, 0.5) * filters.bandpass(FFT_SIZE, (2500, 6000), 1)
    return (np.fft.rfft(impulse, FFT_SIZE) * microphone).astype(np.complex64)


@lru_cache(maxsize=2)
def background_noise(domain: str) -> NDArray[np.float32]:
    """Sixteen seconds of room noise with unit RMS, falling by about 3 dB an octave; clips take pieces of it."""
    length = 16 * SAMPLE_RATE
    rng = np.random.default_rng([0x40, DOMAINS.index(check_domain(domain))])
    spectrum = np.fft.rfft(rng.standard_normal(length).astype(np.float32))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20)).astype(np.float32)
    noise = np.fft.irfft(spectrum, length)
    return (noise / np.sqrt((noise**2).mean())).astype(np.float32)


PEAK = 0.885
"""Peak of every clip, as in SOUSA (0.884 ± 0.004)."""

_LOUDNESS_EXPONENT = 2.3  # SOUSA: -28 dB at velocity 56, -13 dB at 120
_COMPRESSION_THRESHOLD = 0.5


def stroke_gains(velocities: NDArray[np.int64], ratio: float) -> NDArray[np.float32]:
    """Amplitudes of strokes by MIDI velocity, compressed above a threshold by `ratio`."""
    gains = (velocities / 127.0) ** _LOUDNESS_EXPONENT
    loud = gains > _COMPRESSION_THRESHOLD
    squeezed = _COMPRESSION_THRESHOLD * (gains / _COMPRESSION_THRESHOLD) ** (1.0 / ratio)
    return np.where(loud, squeezed, gains).astype(np.float32)


def render(
    strokes: NDArray[np.void],
    samples: int,
    bank: Bank,
    domain: str,
    place: int,
    variant: int,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Render a performance.

    Args:
        strokes: Rows of dtype `performance.STROKE`.
        samples: Length of the clip at `SAMPLE_RATE`, at most `FFT_SIZE`.
        bank: The drum.
        domain: One of `DOMAINS`.
        place: Index into `ROOMS[domain]`.
        variant: Place of the microphone, below `VARIANTS`.
        rng: Round robin, noise.

    Returns:
        (samples,) int16, peak at `PEAK`.
    """
    room, noise = ROOMS[domain][place], background_noise(domain)
    dry = np.zeros(FFT_SIZE, np.float32)
    starts = (strokes["actual_time_ms"] * (SAMPLE_RATE / 1000.0)).astype(np.int64)
    velocities = strokes["actual_velocity"]
    layers = np.clip(np.round(velocities / 127.0 * (LAYERS - 1)), 0, LAYERS - 1).astype(np.int64)
    hands = (strokes["hand"] == "R").astype(np.int64)
    variations = (rng.integers(0, VARIATIONS) + np.arange(len(strokes)) + rng.integers(0, 2, len(strokes))) % VARIATIONS
    gains = stroke_gains(velocities, room.compression)
    width = bank.shots.shape[-1]
    for start, layer, hand, variation, gain in zip(starts, layers, hands, variations, gains, strict=True):
        length = min(width, FFT_SIZE - start)
        dry[start : start + length] += bank.shots[layer, hand, variation, :length] * gain
    wet = np.fft.irfft(np.fft.rfft(dry) * transfer_function(domain, place, variant), FFT_SIZE)[:samples]
    level_db = room.noise_db if room.noise_db is not None else -62.0
    offset = int(rng.integers(0, len(noise) - samples))
    rms = float(np.sqrt(np.square(wet, dtype=np.float64).mean()))
    wet += noise[offset : offset + samples] * np.float32(rms * 10 ** ((level_db + rng.normal(0, 2.0)) / 20))
    wet *= np.float32(PEAK * rng.uniform(0.99, 1.0) * 32767.0 / max(float(np.abs(wet).max()), 1e-9))
    return np.round(wet).astype(np.int16)
