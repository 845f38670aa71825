"""Whether anything is struck in a clip: a stroke is a sound that rises fast and dies away.

The level (above `HIGH_PASS`, averaged over some 20 ms) must climb by `CONTRAST` within `RISE` and then fall as much
within `FALL`. Silence, a steady tone, a hum or noise never do; a closed roll does several times a second. Music and
speech may: this tells what is surely no drum, not what is one. `tests/predict/test_strokes.py` measures both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt, sosfilt_zi

from sousa_bench.data.decode import SILENCE

CONTRAST = 7.0
"""In dB. Steady noise reaches 5.5 (brown noise, the worst); 200 real clips lie above 12, 580 synthetic ones above 8."""

HIGH_PASS = 200.0
"""Hz; below lie hum and rumble, and little of a snare drum's attack."""

RISE, FALL = 0.15, 0.6
STEP = 0.005
SETTLE = 0.03
FLOOR = 1e-9
FULL_SCALE = 32768.0
_SMOOTH = np.array([1, 2, 3, 4, 3, 2, 1]) / 16


def is_silent(clip: NDArray[np.int16]) -> bool:
    """Whether the peak of a clip lies below -80 dBFS, as where the run's data are read."""
    return not len(clip) or max(int(clip.max()), -int(clip.min())) < SILENCE * FULL_SCALE


def has_strokes(clip: NDArray[np.int16], sample_rate: int) -> bool:
    """Whether something in the clip rises and falls like a stroke.

    Args:
        clip: (samples,) int16.
        sample_rate: Hz.
    """
    return not is_silent(clip) and contrast(clip, sample_rate) >= CONTRAST


def contrast(clip: NDArray[np.int16], sample_rate: int) -> float:
    """By how many dB the clearest stroke stands above what precedes and what follows it; the start counts as quiet."""
    level = _level(clip, sample_rate)
    if not len(level):
        return 0.0
    before, after = round(RISE / STEP), round(FALL / STEP)
    quiet = 10 * np.log10(FLOOR)
    rises = level - sliding_window_view(np.pad(level, (before, 0), constant_values=quiet), before + 1).min(axis=1)
    falls = level - sliding_window_view(np.pad(level, (0, after), mode="edge"), after + 1).min(axis=1)
    return float(np.minimum(rises, falls).max())


def _level(clip: NDArray[np.int16], sample_rate: int) -> NDArray[np.float64]:
    """Level in dB every `STEP` seconds, without the high-pass filter's own settling."""
    samples = clip.astype(np.float64) / FULL_SCALE
    filters = butter(4, HIGH_PASS, "highpass", fs=sample_rate, output="sos")
    filtered, _ = sosfilt(filters, samples, zi=sosfilt_zi(filters) * samples[0])
    filtered = filtered[round(SETTLE * sample_rate) :]
    step = round(STEP * sample_rate)
    count = len(filtered) // step
    if not count:
        return np.zeros(0)
    power = (filtered[: count * step] ** 2).reshape(count, step).mean(axis=1)
    smooth = np.convolve(np.pad(power, len(_SMOOTH) // 2, mode="edge"), _SMOOTH, "valid")
    return 10 * np.log10(smooth + FLOOR)
