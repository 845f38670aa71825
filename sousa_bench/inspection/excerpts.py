"""A few clips of each class, as short sounds to listen to and as spectrograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from sousa_bench.analysis.plots.bitmap import bitmap
from sousa_bench.analysis.report.clip_sounds import RATE, flac
from sousa_bench.data.decode import BadClip, decode
from sousa_bench.data.sources.source import Source
from sousa_bench.data.subset import order

EACH = 3
"""Clips of a class."""

SECONDS = 3.0
MOST_BYTES = 20_000_000
"""Of all sounds and pictures together: a page that a browser opens at once."""

FRAMES, BINS, RANGE = 200, 128, 80.0
"""Of a spectrogram; its range in decibels."""


@dataclass(frozen=True)
class Excerpt:
    """The beginning of one clip.

    Attributes:
        position: Of the clip in its table.
        sound: A FLAC file as a data address.
        picture: Its spectrogram, a PNG as a data address.
    """

    position: int
    sound: str
    picture: str


def excerpts(source: Source, table: pd.DataFrame, first: np.ndarray) -> list[Excerpt]:
    """Some clips in any case, and the first of each class in hashed order, cut to some seconds.

    Every class has its first clip before one has its second. Clips that can't be used are left out, and those that
    would be more than `MOST_BYTES` in all.

    Args:
        source: The dataset.
        table: The clips to draw from.
        first: Positions of those that come before all others.
    """
    made: list[Excerpt] = []
    size = 0
    for positions in [first, *_rounds(table, set(first.tolist()))]:
        for position, audio in source.audio(table, positions):
            try:
                clip = decode(audio, [RATE], SECONDS)[0][RATE]
            except BadClip:
                continue
            excerpt = Excerpt(position, flac(clip, RATE), bitmap(spectrogram(clip)))
            size += len(excerpt.sound) + len(excerpt.picture)
            if size > MOST_BYTES:
                return made
            made.append(excerpt)
    return made


def _rounds(table: pd.DataFrame, without: set[int]) -> Iterator[np.ndarray]:
    """Positions, but those `without`, of the first clip of each class, then those of the second, and so on."""
    rounds: list[list[int]] = [[] for _ in range(EACH)]
    taken: Counter[int] = Counter()
    labels = table["label"].tolist()
    for position in np.argsort(order(table["sample_id"].tolist(), 0), kind="stable"):
        label = () if position in without else labels[position]
        for number in label if isinstance(label, tuple) else (label,):
            if taken[number] < EACH:
                rounds[taken[number]].append(int(position))
                taken.update(label if isinstance(label, tuple) else (label,))
                break
    yield from map(np.array, filter(None, rounds))


def spectrogram(clip: NDArray[np.int16]) -> NDArray[np.float32]:
    """(frames, bins) decibels of a clip at `RATE`, from 0 Hz to half of it."""
    window = hann(2 * BINS, sym=False)
    hop = max(len(clip) // FRAMES, BINS // 2)
    power = ShortTimeFFT(window, hop, RATE).spectrogram(clip / 32768)
    level = 10 * np.log10(power + 1e-12)
    return np.maximum(level, level.max() - RANGE).T.astype(np.float32)
