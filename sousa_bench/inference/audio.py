"""An audio file of any length as mono blocks at one sample rate, in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from sousa_bench.data.decode import NO_LENGTH, WAV_SHORTFALL, BadClip, mix, to_int16, why_unreadable

BLOCK_VALUES = 2**19
"""Samples over all channels of one read: 2 MiB."""

STREAMED = 0xFFFFF000
"""Bytes; a WAV header that promises as much was written before the length was known."""

TOO_LOUD = 2.0
"""Times full scale; MP3 and OGG exceed it by a little where the original was loud."""


@dataclass
class Recording:
    """A file that is read once, from its beginning.

    Attributes:
        path: The file.
        target: Hz of the blocks.
        rate: Hz of the file; 0 before it is open.
        channels: Of the file.
        expected: Seconds by its header; None where that tells none.
        frames: Read so far, at the file's own rate.
        notes: What whoever reads the answer must know of the file.
    """

    path: Path
    target: int
    rate: int = 0
    channels: int = 0
    expected: float | None = None
    frames: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Read so far."""
        return self.frames / self.rate if self.rate else 0.0

    def blocks(self) -> Iterator[NDArray[np.int16]]:
        """(samples,) int16 each, one after the other the whole file as the run's cache would hold it.

        Raises:
            BadClip: No file, no audio, or samples that are not finite numbers.
        """
        if not self.path.is_file():
            raise BadClip("is no file")
        try:
            file = sf.SoundFile(str(self.path))
        except (sf.LibsndfileError, RuntimeError, OSError) as error:
            raise BadClip(why_unreadable(str(self.path), error)) from error
        with file:
            self._describe(file)
            convert = self._converter()
            for mono in self._mono(file):
                yield to_int16(mono if convert is None else convert.resample_chunk(mono))
            if convert is not None:
                yield to_int16(convert.resample_chunk(np.zeros(0, np.float32), last=True))

    def _describe(self, file: sf.SoundFile) -> None:
        self.rate, self.channels = file.samplerate, file.channels
        if file.frames < NO_LENGTH:
            self.expected = file.frames / file.samplerate
        promised = WAV_SHORTFALL.search(file.extra_info) if "WAV" in file.format else None
        if promised and int(promised[2]) < int(promised[1]) < STREAMED:
            self.notes.append(
                f"truncated: {int(promised[2]) / int(promised[1]):.0%} of what its header promises is there"
            )
        if self.rate < self.target:
            self.notes.append(
                f"recorded at {self.rate} Hz: nothing above {self.rate // 2} Hz, and the model listens up to "
                f"{self.target // 2} Hz"
            )

    def _converter(self) -> soxr.ResampleStream | None:
        if self.rate == self.target:
            return None
        try:
            return soxr.ResampleStream(self.rate, self.target, 1, dtype="float32")
        except (ValueError, RuntimeError) as error:
            raise BadClip(f"has a sample rate of {self.rate} Hz, which can't be converted ({error})") from error

    def _mono(self, file: sf.SoundFile) -> Iterator[NDArray[np.float32]]:
        size = max(BLOCK_VALUES // file.channels, 1)
        peak = 0.0
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except (sf.LibsndfileError, RuntimeError) as error:
                if not self.frames:
                    raise BadClip(why_unreadable(str(self.path), error)) from error
                self.notes.append(f"damaged: nothing can be read after {self.seconds:.1f} s")
                return
            if not len(block):
                break
            self.frames += len(block)
            mono = block[:, 0].copy() if block.shape[1] == 1 else mix(block)
            low, high = float(mono.min()), float(mono.max())
            if not np.isfinite(low + high):
                raise BadClip("holds samples that are not finite numbers")
            peak = max(peak, high, -low)
            yield mono
        if not self.frames:
            raise BadClip("holds no audio: its length is zero")
        if peak > TOO_LOUD:
            self.notes.append(f"samples of up to {peak:.3g} times full scale were clipped")
        if self.expected and self.seconds < self.expected - 0.01:
            self.notes.append(
                f"truncated: its header promises {self.expected:.1f} s, and there are {self.seconds:.1f} s"
            )


@dataclass(frozen=True)
class Window:
    """A piece of a recording.

    Attributes:
        start: First sample.
        clip: (samples,) int16.
    """

    start: int
    clip: NDArray[np.int16]


def windows(blocks: Iterator[NDArray[np.int16]], size: int, hop: int, slack: int) -> Iterator[Window]:
    """Cut a recording into overlapping windows of equal size; the last one ends where the recording does.

    A recording of at most ``size + slack`` samples is one window, its first ``size``: what is longer than a training
    clip by a little is cut as training cuts it.

    Args:
        blocks: The recording; no more of it is read than the windows need.
        size: Samples of a window.
        hop: Samples from one start to the next, at most ``size``.
        slack: See above.
    """
    held = np.zeros(0, np.int16)
    first, start = 0, 0  # of what is held, and of the next window
    for block in blocks:
        held = np.concatenate([held, block])
        if not start and len(held) <= size + slack:
            continue
        while start + size <= first + len(held):
            yield Window(start, held[start - first : start - first + size])
            start += hop
        keep = max(min(start, first + len(held) - size), first)
        held, first = held[keep - first :], keep
    end = first + len(held)
    if not start:
        if len(held):
            yield Window(0, held[:size])
    elif start - hop + size < end:
        yield Window(end - size, held[end - size - first :])
