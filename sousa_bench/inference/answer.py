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
from sousa_bench.results.confidence import LIKELY, Confidence
from sousa_bench.task import Task

SCHEMA_VERSION = 1
DOUBT = "?"
TOP = 5
"""Classes of an answer, unless it is said how many."""
NONE = "none"
STATUS_TEXT = {
    "ok": "",
    NONE: "none",
    "no_drum": "no drum",
    "no_sound": "no sound",
    "too_short": "too short",
    "error": "error",
}


@dataclass(frozen=True)
class Stretch:
    """A part of a recording in which the same is heard throughout.

    Attributes:
        start: Seconds.
        end: Seconds.
        labels: Numbers of the classes that are heard, see ``accepted``; None where nothing is heard to be named.
        probabilities: (classes,) mean over the stretch; None as the labels.
    """

    start: float
    end: float
    labels: frozenset[int] | None = None
    probabilities: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Answer:
    """The prediction for one file, or why there is none.

    Attributes:
        file: As it was found.
        status: A key of ``STATUS_TEXT``: ``ok`` where a class is named.
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
        confidence: When the model's answers are confident; None where that is not known.
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
    confidence: Confidence | None = None

    def best(self, count: int | None = None) -> list[dict[str, Any]]:
        """The most probable classes, best first: ``count`` of them, or ``TOP``."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[: count or TOP]
        return [self._named(i, self.probabilities[i]) for i in order]

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The classes that the file is said to hold, best first: one, or where it may hold several, none or more.

        Each says whether it is ``confident``.
        """
        return [] if self.probabilities is None else self._accepted(self.probabilities)

    def record(self, top: int | None = None) -> dict[str, Any]:
        """The answer as JSON: the same keys whatever the status; see :meth:`best`."""
        return {
            "file": str(self.file),
            "status": self.status,
            "reason": self.reason,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            **self._said(self.probabilities),
            "top": self.best(top),
            "windows": self.windows,
            "drum_windows" if is_sousa(self.task) else "heard_windows": self.heard_windows,
            "timeline": [
                {"start": round(part.start, 3), "end": round(part.end, 3), **self._said(part.probabilities)}
                for part in self.stretches
            ],
            "notes": list(self.notes),
        }

    def _accepted(self, probabilities: NDArray[np.float64]) -> list[dict[str, Any]]:
        return [self._judged(i, probabilities[i]) for i in accepted(probabilities, self.task.several)]

    def _said(self, probabilities: NDArray[np.float64] | None) -> dict[str, Any]:
        """The most probable class, and where there may be several, those that are accepted."""
        if probabilities is None:
            empty = dict.fromkeys((self.task.noun, "name", "family", "probability", "confident"))
            return empty | ({"accepted": None} if self.task.several else {})
        label = int(probabilities.argmax())
        first = self._judged(label, probabilities[label])
        return first | ({"accepted": self._accepted(probabilities)} if self.task.several else {})

    def _judged(self, label: int, probability: float) -> dict[str, Any]:
        confident = None if self.confidence is None else self.confidence.holds(probability)
        return {**self._named(label, probability), "confident": confident}

    def _named(self, label: int, probability: float) -> dict[str, Any]:
        name = self.task.classes[label]
        return {
            self.task.noun: name,
            "name": self.task.display(name),
            "family": self.task.families.get(name),
            "probability": float(f"{probability:.7g}"),
        }


def accepted(probabilities: NDArray[np.float64], several: bool) -> list[int]:
    """Numbers of the classes that are said to be heard, the most probable first.

    Args:
        probabilities: (classes,).
        several: Whether that is any number of classes, each of a probability above 0.5, and not just one.
    """
    order = np.argsort(-probabilities, kind="stable")
    return [int(number) for number in order[: int((probabilities > LIKELY).sum()) if several else 1]]


def timeline(
    starts: Sequence[float],
    size: float,
    end: float,
    rows: Sequence[NDArray[np.float32] | None],
    several: bool = False,
) -> list[Stretch]:
    """Stretches that cover a recording from 0 to ``end`` without a gap.

    Between two starts of windows the probabilities of all windows that cover the place are averaged. Nothing is
    named where at least half of these windows heard nothing: a pause then has the length that it has in the recording.

    Args:
        starts: Seconds at which each window starts, ascending.
        size: Seconds of a window.
        end: Seconds of the recording.
        rows: (classes,) probabilities of each window; None where nothing is heard in it.
        several: See ``accepted``.
    """
    made: list[Stretch] = []
    oldest = 0
    for number, (begin, until) in enumerate(itertools.pairwise([*starts, end])):
        middle = (begin + until) / 2
        while starts[oldest] + size <= middle and oldest < number:
            oldest += 1
        piece = _average(begin, until, rows[oldest : number + 1], several)
        if made and made[-1].labels == piece.labels:
            made[-1] = _joined(made[-1], piece)
        else:
            made.append(piece)
    return made


def _average(start: float, end: float, rows: Sequence[NDArray[np.float32] | None], several: bool) -> Stretch:
    heard = [row for row in rows if row is not None]
    if 2 * len(heard) <= len(rows):
        return Stretch(start, end)
    mean: NDArray[np.float64] = np.stack(heard).mean(axis=0, dtype=np.float64)
    return Stretch(start, end, frozenset(accepted(mean, several)), mean)


def _joined(one: Stretch, other: Stretch) -> Stretch:
    if one.probabilities is None or other.probabilities is None:
        return Stretch(one.start, other.end)
    first, second = one.end - one.start, other.end - other.start
    mean = (one.probabilities * first + other.probabilities * second) / max(first + second, 1e-9)
    return Stretch(one.start, other.end, one.labels, mean)


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


def none_accepted(task: Task) -> str:
    """Why a file in which something is heard gets none of several labels."""
    return f"no {task.noun} has a probability above {percent(LIKELY)}"


def class_texts(items: Sequence[Mapping[str, Any]]) -> str:
    """Some classes of a record, such as ``Flam tap 91 %, Flam 4.3 % ?``; the mark is for what is not confident."""
    return ", ".join(f"{item['name']} {percent(item['probability'])}{doubt(item)}" for item in items)


def marked(confidence: Confidence) -> str:
    """When answers are confident, and how the others are marked."""
    return f"{confidence.text} {DOUBT} marks the others."


def doubt(item: Mapping[str, Any]) -> str:
    """The mark behind an answer that is not confident; nothing where it is, or where that is not known."""
    return f" {DOUBT}" if item.get("confident") is False else ""


def stretch_text(part: Mapping[str, Any], task: Task) -> tuple[str, str]:
    """Where a stretch of a record's timeline lies, and what is heard there."""
    place = f"{clock(part['start'])} – {clock(part['end'])}"
    heard = part["accepted"] if task.several else None if part["probability"] is None else [part]
    return place, STATUS_TEXT[nothing_heard(task)] if heard is None else class_texts(heard) or STATUS_TEXT[NONE]
