"""From strokes to sound: one-shots laid into a buffer, one convolution with the room, noise, level."""

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.synthetic.drums import LAYERS, VARIATIONS, Bank
from sousa_bench.data.synthetic.rooms import FFT_SIZE, Room
from sousa_bench.data.synthetic.version import SAMPLE_RATE

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
    room: Room,
    response: NDArray[np.complex64],
    noise: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Render a performance.

    Args:
        strokes: Rows of dtype `performance.STROKE`.
        samples: Length of the clip at `SAMPLE_RATE`, at most `FFT_SIZE`.
        bank: The drum.
        room: For compression and noise level.
        response: That room's `rooms.transfer_function`.
        noise: `rooms.background_noise`.
        rng: Round robin, noise.

    Returns:
        (samples,) int16, peak at `PEAK`.
    """
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
    wet = np.fft.irfft(np.fft.rfft(dry) * response, FFT_SIZE)[:samples]
    level_db = room.noise_db if room.noise_db is not None else -62.0
    offset = int(rng.integers(0, len(noise) - samples))
    rms = float(np.sqrt(np.square(wet, dtype=np.float64).mean()))
    wet += noise[offset : offset + samples] * np.float32(rms * 10 ** ((level_db + rng.normal(0, 2.0)) / 20))
    wet *= np.float32(PEAK * rng.uniform(0.99, 1.0) * 32767.0 / max(float(np.abs(wet).max()), 1e-9))
    return np.round(wet).astype(np.int16)
