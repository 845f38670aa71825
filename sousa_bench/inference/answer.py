"""What is said of one file: a record that scripts can rely on, and the timeline of a long recording."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.saved_task import is_sousa
from sousa_bench.task import Task

SCHEMA_VERSION = 1
LIKELY = 0.5
TOP = 5
"""Classes of an answer, unless it is said how many."""
STATUS_TEXT = {"ok": "", "no_drum": "no drum", "no_sound": "no sound", "too_short": "too short", "error": "error"}


@dataclass(frozen=True)
class Stretch:
    """A part of a recording in which one class is heard.

    Attributes:
        start: Seconds.
        end: Seconds.
        label: Class number; None where nothing is heard to be named.
        probability: Mean over the stretch; None as the label.
    """

    start: float
    end: float
    label: int | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Answer:
    """The prediction for one file, or why there is none.

    Attributes:
        file: As it was found.
        status: A key of ``STATUS_TEXT``: only ``ok`` has a class.
        reason: Why there is none; None where there is one.
        seconds: Length as far as it was read; None where nothing was.
        sample_rate: Hz of the file.
        channels: Of the file.
        windows: Pieces that the recording was cut into, 1 for a clip.
        heard_windows: Those that the model was asked about; the overall answer is the mean of their probabilities.
        task: What the model answers.
        probabilities: (classes,) of the whole recording.
        stretches: The timeline, where there are several windows.
        notes: What is unusual about the file.
    """

    file: Path | str
    status: str
    task: Task
    reason: str | None = None
    seconds: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    windows: int = 0
    heard_windows: int = 0
    probabilities: NDArray[np.float64] | None = None
    stretches: Sequence[Stretch] = ()
    notes: Sequence[str] = field(default_factory=list)

    def best(self, count: int | None = None) -> list[dict[str, Any]]:
        """The most probable classes, best first.

        Args:
            count: How many. None: 5; where a clip may have several, all of a probability above 0.5, or 5 where none is.
        """
        if self.probabilities is None:
            return []
        likely = int((self.probabilities > LIKELY).sum()) if self.task.several else 0
        order = np.argsort(-self.probabilities, kind="stable")[: count or likely or TOP]
        return [self._named(i, self.probabilities[i]) for i in order]

    def record(self, top: int | None = None) -> dict[str, Any]:
        """The answer as JSON: the same keys whatever the status; see :meth:`best`."""
        best = self.best(top)
        return {
            "file": str(self.file),
            "status": self.status,
            "reason": self.reason,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            **(best[0] if best else self._named(None, None)),
            "top": best,
            "windows": self.windows,
            "drum_windows" if is_sousa(self.task) else "heard_windows": self.heard_windows,
            "timeline": [
                {"start": round(part.start, 3), "end": round(part.end, 3), **self._named(part.label, part.probability)}
                for part in self.stretches
            ],
            "notes": list(self.notes),
        }

    def _named(self, label: int | None, probability: float | None) -> dict[str, Any]:
        if label is None or probability is None:
            return dict.fromkeys((self.task.noun, "name", "family", "probability"))
        name = self.task.classes[label]
        return {
            self.task.noun: name,
            "name": self.task.display(name),
            "family": self.task.families.get(name),
            "probability": float(f"{probability:.7g}"),
        }


def timeline(
    starts: Sequence[float], size: float, end: float, rows: Sequence[NDArray[np.float32] | None]
) -> list[Stretch]:
    """Stretches that cover a recording from 0 to ``end`` without a gap.

    Between two starts of windows the probabilities of all windows that cover the place are averaged. Nothing is
    named where at least half of these windows heard nothing: a pause then has the length that it has in the recording.

    Args:
        starts: Seconds at which each window starts, ascending.
        size: Seconds of a window.
        end: Seconds of the recording.
        rows: (classes,) probabilities of each window; None where nothing is heard in it.
    """
    made: list[Stretch] = []
    oldest = 0
    for number, (begin, until) in enumerate(itertools.pairwise([*starts, end])):
        middle = (begin + until) / 2
        while starts[oldest] + size <= middle and oldest < number:
            oldest += 1
        piece = _average(begin, until, rows[oldest : number + 1])
        if made and made[-1].label == piece.label:
            made[-1] = _joined(made[-1], piece)
        else:
            made.append(piece)
    return made


def _average(start: float, end: float, rows: Sequence[NDArray[np.float32] | None]) -> Stretch:
    heard = [row for row in rows if row is not None]
    if 2 * len(heard) <= len(rows):
        return Stretch(start, end)
    mean: NDArray[np.float64] = np.stack(heard).mean(axis=0, dtype=np.float64)
    label = int(mean.argmax())
    return Stretch(start, end, label, float(mean[label]))


def _joined(one: Stretch, other: Stretch) -> Stretch:
    if one.probability is None or other.probability is None:
        return Stretch(one.start, other.end)
    first, second = one.end - one.start, other.end - other.start
    probability = (one.probability * first + other.probability * second) / max(first + second, 1e-9)
    return Stretch(one.start, other.end, one.label, probability)


def percent(probability: float) -> str:
    """A probability in per cent: ``91 %``, ``4.3 %``, ``< 0.1 %``."""
    if probability < 0.001:
        return "< 0.1 %"
    return f"{100 * probability:.0f} %" if probability >= 0.095 else f"{100 * probability:.1f} %"


def clock(seconds: float) -> str:
    """A place in a recording: ``0:07.5``, ``12:00.0``, ``1:00:00.0``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{tenths / 10:04.1f}"
    return text if not hours else f"{hours}:{minutes:02}:{tenths / 10:04.1f}"


def nothing_heard(task: Task) -> str:
    """The status of what holds nothing to be named: a key of ``STATUS_TEXT``."""
    return "no_drum" if is_sousa(task) else "no_sound"


def stretch_text(part: Mapping[str, Any], task: Task) -> tuple[str, str]:
    """Where a stretch of a record's timeline lies, and what is heard there."""
    place = f"{clock(part['start'])} – {clock(part['end'])}"
    probability = part["probability"]
    return place, STATUS_TEXT[nothing_heard(task)] if probability is None else f"{part['name']} {percent(probability)}"
