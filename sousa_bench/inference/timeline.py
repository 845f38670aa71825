"""Overlapping windows → stretches of one rudiment, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stretch:
    """A part of a recording in which one rudiment is played.

    Attributes:
        start: Seconds.
        end: Seconds.
        label: Class number; None where no drum is heard.
        probability: Mean over the stretch; None where no drum is heard.
    """

    start: float
    end: float
    label: int | None
    probability: float | None


def timeline(
    starts: Sequence[float], size: float, end: float, rows: Sequence[NDArray[np.float32] | None]
) -> list[Stretch]:
    """Stretches that cover a recording from 0 to ``end`` without a gap.

    Between two starts of windows the probabilities of all windows that cover the place are averaged. There is no drum
    where at least half of these windows heard none: a pause then has the length that it has in the recording.

    Args:
        starts: Seconds at which each window starts, ascending.
        size: Seconds of a window.
        end: Seconds of the recording.
        rows: (classes,) probabilities of each window; None where it holds no drum.
    """
    edges = [*starts, end]
    made: list[Stretch] = []
    oldest = 0
    for number, (begin, until) in enumerate(itertools.pairwise(edges)):
        middle = (begin + until) / 2
        while starts[oldest] + size <= middle and oldest < number:
            oldest += 1
        piece = _judged(begin, until, rows[oldest : number + 1])
        if made and made[-1].label == piece.label:
            made[-1] = _joined(made[-1], piece)
        else:
            made.append(piece)
    return made


def _judged(start: float, end: float, rows: Sequence[NDArray[np.float32] | None]) -> Stretch:
    heard = [row for row in rows if row is not None]
    if 2 * len(heard) <= len(rows):
        return Stretch(start, end, None, None)
    mean: NDArray[np.float64] = np.stack(heard).mean(axis=0, dtype=np.float64)
    label = int(mean.argmax())
    return Stretch(start, end, label, float(mean[label]))


def _joined(one: Stretch, other: Stretch) -> Stretch:
    probability = None
    if one.probability is not None and other.probability is not None:
        first, second = one.end - one.start, other.end - other.start
        probability = (one.probability * first + other.probability * second) / max(first + second, 1e-9)
    return Stretch(one.start, other.end, one.label, probability)
