"""A trained model that listens to files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sousa_bench.data.decode import SHORTEST, BadClip
from sousa_bench.errors import UserError
from sousa_bench.inference.answer import Answer
from sousa_bench.inference.audio import Recording, Window, windows
from sousa_bench.inference.predictor import Predictor
from sousa_bench.inference.strokes import has_strokes, is_silent
from sousa_bench.inference.timeline import timeline

LONG = 60.0
"""Seconds; a longer recording shows its progress."""


TOLD = 0.5
"""Seconds; where less of a clip is cut off, nobody need know."""


@dataclass(frozen=True)
class Windows:
    """How a recording is cut.

    Attributes:
        size: Seconds of a window.
        hop: Seconds from one window's start to the next one's.
        beginning: Only the first window, as the run's own test heard its clips.
    """

    size: float
    hop: float
    beginning: bool = False

    @classmethod
    def of(cls, predictor: Predictor, size: float | None, hop: float | None, beginning: bool = False) -> Windows:
        """The user's choice, or the model's clip length and half of it.

        Raises:
            UserError: A size that the model was not trained on, or a hop that leaves gaps.
        """
        longest = predictor.max_duration
        size = longest if size is None else size
        if not SHORTEST <= size <= longest:
            raise UserError(
                f"--window {size:g}: it is from {SHORTEST:g} to {longest:g} seconds, the length of the clips that the "
                "model was trained on"
            )
        hop = size / 2 if hop is None else hop
        if not SHORTEST <= hop <= size:
            raise UserError(
                f"--hop {hop:g}: it is from {SHORTEST:g} seconds to the window's {size:g}, or parts were left out"
            )
        return cls(size, hop, beginning)

    @property
    def slack(self) -> float:
        """Seconds by which a clip may exceed a window and still be heard as one, cut as in training."""
        return 0.0 if self.beginning else self.hop / 2


@dataclass
class _Heard:
    """The windows of one recording so far."""

    starts: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float32] | None] = field(default_factory=list)
    silent: bool = True


@dataclass(frozen=True)
class Listener:
    """Files → answers.

    Attributes:
        predictor: The model.
        windows: How recordings are cut.
        progress: Whether long recordings show a progress line on the standard error stream.
    """

    predictor: Predictor
    windows: Windows
    progress: bool = True

    def answer(self, path: Path) -> Answer:
        """What is played in a file; what is wrong with it stands in the answer."""
        recording = Recording(path, self.predictor.sample_rate)
        try:
            heard = self._hear(recording)
        except BadClip as error:
            return Answer(
                path,
                "error",
                reason=str(error),
                sample_rate=recording.rate or None,
                channels=recording.channels or None,
                notes=recording.notes,
            )
        return self._concluded(recording, heard)

    def _hear(self, recording: Recording) -> _Heard:
        heard = _Heard()
        waiting: list[Window] = []
        for window in self._windows(recording):
            waiting.append(window)
            if len(waiting) == self.predictor.batch_size:
                self._judge(waiting, heard)
                waiting = []
        self._judge(waiting, heard)
        return heard

    def _windows(self, recording: Recording) -> Iterator[Window]:
        rate = self.predictor.sample_rate
        size, hop, slack = (round(s * rate) for s in (self.windows.size, self.windows.hop, self.windows.slack))
        for window in windows(self._shown(recording), size, hop, slack):
            yield window
            if self.windows.beginning:
                return

    def _shown(self, recording: Recording) -> Iterator[NDArray[np.int16]]:
        """The blocks, with a progress line where they are many."""
        bar = None
        try:
            for block in recording.blocks():
                yield block
                if bar is None and self._is_long(recording):
                    bar = tqdm(
                        total=None if recording.expected is None else round(recording.expected),
                        desc=recording.path.name[:40],
                        unit=" s",
                        leave=False,
                        mininterval=0.5 if sys.stderr.isatty() else 10.0,
                        file=sys.stderr,
                    )
                if bar is not None:
                    bar.update(int(recording.seconds) - bar.n)
        finally:
            if bar is not None:
                bar.close()

    def _is_long(self, recording: Recording) -> bool:
        length = recording.seconds if recording.expected is None else recording.expected
        return self.progress and not self.windows.beginning and length > LONG

    def _judge(self, waiting: list[Window], heard: _Heard) -> None:
        """Add some windows: the model hears those that hold a drum."""
        rate = self.predictor.sample_rate
        shortest = round(SHORTEST * rate)
        played = [len(w.clip) >= shortest and has_strokes(w.clip, rate) for w in waiting]
        found = self.predictor.probabilities([w.clip for w, yes in zip(waiting, played, strict=True) if yes])
        if not np.isfinite(found).all():
            raise BadClip("makes the model answer with numbers that are not finite: the run's weights are damaged")
        rows = iter(found)
        heard.starts += [window.start for window in waiting]
        heard.rows += [next(rows) if yes else None for yes in played]
        heard.silent = heard.silent and all(is_silent(window.clip) for window in waiting)

    def _concluded(self, recording: Recording, heard: _Heard) -> Answer:
        seconds = recording.seconds
        if self.windows.beginning and recording.expected is not None:
            seconds = recording.expected  # the rest was not read
        drums = [row for row in heard.rows if row is not None]
        known = Answer(
            recording.path,
            "ok",
            labels=self.predictor.labels,
            seconds=seconds,
            sample_rate=recording.rate,
            channels=recording.channels,
            windows=len(heard.rows),
            drum_windows=len(drums),
            notes=[*recording.notes, *self._cut(seconds, len(heard.rows))],
        )
        if seconds < SHORTEST:
            reason = f"{seconds * 1000:.3g} ms, and the least is {SHORTEST * 1000:g} ms"
            return replace(known, status="too_short", reason=reason)
        if not drums:
            reason = "silence" if heard.silent else "a steady sound, in which nothing is struck"
            return replace(known, status="no_drum", reason=reason)
        starts = [start / self.predictor.sample_rate for start in heard.starts]
        return replace(
            known,
            probabilities=np.mean(drums, axis=0, dtype=np.float64),
            stretches=timeline(starts, self.windows.size, seconds, heard.rows) if len(starts) > 1 else (),
        )

    def _cut(self, seconds: float, count: int) -> list[str]:
        if count != 1 or seconds < self.windows.size + TOLD:
            return []
        return [f"the first {self.windows.size:g} s of {seconds:.1f} were heard, as in training"]
