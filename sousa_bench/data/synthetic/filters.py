"""Causal Butterworth filters as frequency responses: all that the generator needs without importing scipy (1 s)."""

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.synthetic import SAMPLE_RATE

Float32 = NDArray[np.float32]


def _prototype(frequency: NDArray[np.complexfloating], order: int) -> NDArray[np.complex128]:
    """Response of the analogue low-pass with cut-off 1 at the complex frequencies `frequency`."""
    poles = np.exp(1j * np.pi * (2 * np.arange(1, order + 1) + order - 1) / (2 * order))
    response = np.ones(len(frequency), np.complex128)
    for pole in poles:
        response /= frequency - pole
    return response


def _frequencies(size: int) -> NDArray[np.float64]:
    return np.asarray(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), np.float64)


def lowpass(size: int, cutoff_hz: float, order: int = 2) -> NDArray[np.complex128]:
    """Response at the frequencies of a real FFT of `size` points."""
    return _prototype(1j * _frequencies(size) / cutoff_hz, order)


def highpass(size: int, cutoff_hz: float, order: int = 2) -> NDArray[np.complex128]:
    """Response at the frequencies of a real FFT of `size` points."""
    frequency = np.maximum(_frequencies(size), 1e-3)
    return _prototype(cutoff_hz / (1j * frequency), order)


def bandpass(size: int, band_hz: tuple[float, float], order: int = 2) -> NDArray[np.complex128]:
    """A high-pass and a low-pass in a row, each of `order`."""
    return highpass(size, band_hz[0], order) * lowpass(size, band_hz[1], order)


def apply(signal: NDArray[np.floating], response: NDArray[np.complexfloating]) -> Float32:
    """Filter the last axis of `signal` by a response of its own length."""
    return np.fft.irfft(np.fft.rfft(signal) * response, signal.shape[-1]).astype(np.float32)
