"""A trained model that names what is heard in files."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sousa_bench.data.decode import SHORTEST, BadClip
from sousa_bench.data.saved_task import is_sousa
from sousa_bench.errors import UserError
from sousa_bench.inference.answer import NONE, Answer, none_accepted, nothing_heard, timeline
from sousa_bench.inference.audio import Recording, Window, windows
from sousa_bench.inference.predictor import Predictor
from sousa_bench.inference.strokes import has_strokes, is_silent

LONG = 60.0
"""Seconds; a longer recording shows its progress."""

CUT_NOTED = 0.5
"""Seconds; a shorter part that is cut off a clip is not mentioned."""


@dataclass(frozen=True)
class Windows:
    """How a recording is cut.

    Attributes:
        size: Seconds of a window.
        hop: Seconds from one window's start to the next one's.
        beginning: Only the first window, as a test without ``data.windows`` hears clips.
        whole: Whether the run's test heard longer clips whole (``data.windows``).
    """

    size: float
    hop: float
    beginning: bool = False
    whole: bool = False

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
        return cls(size, hop, beginning, predictor.windows is not None)

    @property
    def slack(self) -> float:
        """Seconds by which a clip may exceed a window and still be heard as one, cut as in training."""
        return 0.0 if self.beginning or self.whole else self.hop / 2


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
        """What is heard in a file; what is wrong with it stands in the answer."""
        recording = Recording(path, self.predictor.sample_rate)
        starts: list[int] = []
        rows: list[NDArray[np.float32] | None] = []
        silent = True
        try:
            waiting = self._windows(recording)
            while batch := list(itertools.islice(waiting, self.predictor.batch_size)):
                starts += [window.start for window in batch]
                rows += self._probabilities(batch)
                silent = silent and all(is_silent(window.clip) for window in batch)
        except BadClip as error:
            rate, channels = recording.rate or None, recording.channels or None
            return Answer(
                path,
                "error",
                self.predictor.task,
                reason=str(error),
                sample_rate=rate,
                channels=channels,
                notes=recording.notes,
            )
        return self._answer(recording, starts, rows, silent)

    def _windows(self, recording: Recording) -> Iterator[Window]:
        rate = self.predictor.sample_rate
        size, hop, slack = (round(s * rate) for s in (self.windows.size, self.windows.hop, self.windows.slack))
        found = windows(self._with_progress(recording), size, hop, slack)
        return itertools.islice(found, 1 if self.windows.beginning else None)

    def _with_progress(self, recording: Recording) -> Iterator[NDArray[np.int16]]:
        """The blocks of a recording; a long one, or one of unknown length, shows how far it is."""
        blocks = recording.blocks()
        first = list(itertools.islice(blocks, 1))  # the length is known once the file is open
        length = math.inf if recording.expected is None else recording.expected
        with tqdm(
            total=None if recording.expected is None else round(recording.expected),
            desc=recording.path.name[:40],
            unit=" s",
            leave=False,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            file=sys.stderr,
            disable=not self.progress or self.windows.beginning or length <= LONG,
        ) as bar:
            for block in itertools.chain(first, blocks):
                yield block
                bar.update(int(recording.seconds) - bar.n)

    def _probabilities(self, batch: Sequence[Window]) -> list[NDArray[np.float32] | None]:
        """(classes,) of each window; None where nothing is heard, which the model is not asked about."""
        least = round(SHORTEST * self.predictor.sample_rate)
        heard = [len(window.clip) >= least and self._is_heard(window.clip) for window in batch]
        found = self.predictor.probabilities([w.clip for w, yes in zip(batch, heard, strict=True) if yes])
        if not np.isfinite(found).all():
            raise BadClip("makes the model answer with numbers that are not finite: the run's weights are damaged")
        rows = iter(found)
        return [next(rows) if yes else None for yes in heard]

    def _is_heard(self, clip: NDArray[np.int16]) -> bool:
        """Whether a clip may hold what the model names: a drum is struck, any other sound is no silence."""
        if is_sousa(self.predictor.task):
            return has_strokes(clip, self.predictor.sample_rate)
        return not is_silent(clip)

    def _answer(
        self, recording: Recording, starts: list[int], rows: list[NDArray[np.float32] | None], silent: bool
    ) -> Answer:
        seconds = recording.seconds
        if self.windows.beginning and recording.expected is not None:
            seconds = recording.expected  # the rest was not read
        heard = [row for row in rows if row is not None]
        notes = list(recording.notes)
        if len(rows) == 1 and seconds >= self.windows.size + CUT_NOTED:
            usual = "" if self.windows.whole else ", as in training"
            notes.append(f"the first {self.windows.size:g} s of {seconds:.1f} were heard{usual}")
        answer = Answer(
            recording.path,
            "ok",
            task=self.predictor.task,
            seconds=seconds,
            sample_rate=recording.rate,
            channels=recording.channels,
            windows=len(rows),
            heard_windows=len(heard),
            notes=notes,
            confidence=self.predictor.confidence,
        )
        if seconds < SHORTEST:
            reason = f"{seconds * 1000:.3g} ms, and the least is {SHORTEST * 1000:g} ms"
            return replace(answer, status="too_short", reason=reason)
        if not heard:
            reason = "silence" if silent else "a steady sound, in which nothing is struck"
            return replace(answer, status=nothing_heard(answer.task), reason=reason)
        places = [start / self.predictor.sample_rate for start in starts]
        several = answer.task.several
        answer = replace(
            answer,
            probabilities=np.mean(heard, axis=0, dtype=np.float64),
            stretches=timeline(places, self.windows.size, seconds, rows, several) if len(places) > 1 else (),
        )
        return answer if answer.accepted else replace(answer, status=NONE, reason=none_accepted(answer.task))
