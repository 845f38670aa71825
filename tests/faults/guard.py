"""Watches what this process writes while a command gets what others made."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.machine import patience

WRITES = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.truncate": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1}
"""Events of the interpreter that change the disk, and which of their arguments is changed."""
SECONDS = 10
"""Of the processor, on a quiet machine: what computes for longer hangs, however busy the machine is."""
WAITS = 6
"""Times as long by the clock, for what waits: other tests may have the cores meanwhile."""


class HangError(Exception):
    """It took longer than it may."""


class Guard:
    """While it is up, whatever is written outside of one folder is noted.

    Attributes:
        outside: Paths that were written outside.
    """

    def __init__(self) -> None:
        self.outside: list[str] = []
        self._inside: str | None = None
        sys.addaudithook(self._hear)

    @contextmanager
    def around(self, folder: Path) -> Iterator[None]:
        """Allow writing below ``folder`` alone, ``SECONDS`` of computing, and ``WAITS`` times that by the clock.

        Raises:
            HangError: They are over.
        """
        self._inside = os.path.realpath(folder)
        computing, waiting = patience(SECONDS), patience(WAITS * SECONDS)
        signal.signal(signal.SIGPROF, self._end), signal.signal(signal.SIGALRM, self._end)
        signal.setitimer(signal.ITIMER_PROF, computing), signal.setitimer(signal.ITIMER_REAL, waiting)
        computed, began = time.process_time(), time.monotonic()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0), signal.setitimer(signal.ITIMER_REAL, 0)
            self._inside = None
        # where the alarm was caught like any error
        if time.process_time() - computed > computing or time.monotonic() - began > waiting:
            raise HangError
        assert not self.outside, f"written outside: {self.outside}"

    def _end(self, alarm: int, _: Any) -> None:
        computed = alarm == signal.SIGPROF
        raise HangError(f"{SECONDS} s of computing" if computed else f"{WAITS * SECONDS} s of waiting")

    def _hear(self, event: str, values: tuple[Any, ...]) -> None:
        if self._inside is None:
            return
        if event == "open" and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            place = values[0]
        elif event in WRITES:
            place = values[WRITES[event]]
        else:
            return
        if isinstance(place, (str, bytes, os.PathLike)):
            there = Path(os.fsdecode(place)).absolute()
            path = str(there.parent.resolve() / there.name)
            if path != self._inside and not path.startswith((f"{self._inside}/", "/dev")):
                self.outside.append(f"{event} {os.fsdecode(place)}")
