"""What is said of one file, as a record that scripts can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.inference.timeline import Stretch
from sousa_bench.rudiments import DISPLAY, FAMILIES

SCHEMA_VERSION = 1
STATUSES = ("ok", "no_drum", "too_short", "error")
WORDS = {"ok": "", "no_drum": "no drum", "too_short": "too short", "error": "error"}


@dataclass(frozen=True)
class Answer:
    """One file's.

    Attributes:
        file: As it was found.
        status: One of ``STATUSES``: only ``ok`` has a rudiment.
        reason: Why there is none; None where there is one.
        seconds: Length as far as it was read; None where nothing was.
        sample_rate: Hz of the file.
        channels: Of the file.
        windows: Pieces that the recording was cut into, 1 for a clip.
        drum_windows: Those that hold a drum; the overall answer is the mean of their probabilities.
        labels: Class names.
        probabilities: (classes,) of the whole recording.
        stretches: The timeline, where there are several windows.
        notes: What must be known of the file.
    """

    file: Path | str
    status: str
    labels: Sequence[str] = ()
    reason: str | None = None
    seconds: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    windows: int = 0
    drum_windows: int = 0
    probabilities: NDArray[np.float64] | None = None
    stretches: Sequence[Stretch] = ()
    notes: Sequence[str] = field(default_factory=list)

    def best(self, count: int) -> list[dict[str, Any]]:
        """The most probable rudiments, best first."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [_named(self.labels[i], float(self.probabilities[i])) for i in order]

    def record(self, top: int) -> dict[str, Any]:
        """The answer as JSON: the same keys whatever the status."""
        best = self.best(top)
        first = best[0] if best else dict.fromkeys(("rudiment", "name", "family", "probability"))
        return {
            "file": str(self.file),
            "status": self.status,
            "reason": self.reason,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            **first,
            "top": best,
            "windows": self.windows,
            "drum_windows": self.drum_windows,
            "timeline": [self._stretch(stretch) for stretch in self.stretches],
            "notes": list(self.notes),
        }

    def _stretch(self, stretch: Stretch) -> dict[str, Any]:
        named: dict[str, Any] = dict.fromkeys(("rudiment", "name", "family", "probability"))
        if stretch.label is not None and stretch.probability is not None:
            named = _named(self.labels[stretch.label], stretch.probability)
        return {"start": round(stretch.start, 3), "end": round(stretch.end, 3), **named}


def _named(label: str, probability: float) -> dict[str, Any]:
    return {
        "rudiment": label,
        "name": DISPLAY.get(label, label),
        "family": FAMILIES.get(label),
        "probability": float(f"{probability:.7g}"),
    }
