"""Examples of a command, each in a process forked from this one, which has imported everything: some tens a second."""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.faults.guard import SECONDS, WAITS, Guard
from tests.machine import patience

SAID = "said.txt"


@dataclass(frozen=True)
class Example:
    """One call of a command.

    Attributes:
        words: What is odd about it, for whoever has to find out.
        prepare: Puts files into the folder that it is given, in which the command will be.
        command: The command's ``main``; its exit code.
        codes: The exit codes that it may have.
    """

    words: object
    prepare: Callable[[Path], object]
    command: Callable[[], int]
    codes: Collection[int] = (0, 1, 2)


class Examples:
    """As many at a time as there are cores; ends with what none of them may have done.

    Attributes:
        failures: What each failed example was, and what it said.
        count: How many have ended.
    """

    def __init__(self, folder: Path, guard: Guard) -> None:
        self.failures: list[str] = []
        self.count = 0
        self._folder = folder
        self._guard = guard
        patience(SECONDS)  # measures the machine now, and not in each of the processes
        gc.collect(), gc.freeze()  # or each process would copy all that this one has imported
        self._begun = 0
        self._running: dict[int, tuple[Example, Path, float]] = {}

    def add(self, example: Example) -> None:
        """Begin an example, once there is room for it."""
        while len(self._running) >= len(os.sched_getaffinity(0)):
            self._reap()
        self._begun += 1
        folder = self._folder / str(self._begun)
        (folder / "here").mkdir(parents=True)
        sys.stdout.flush(), sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._live(example, folder)
        self._running[pid] = example, folder, time.monotonic()

    def finish(self) -> None:
        """Wait for the rest; fails with the first of those that failed."""
        while self._running:
            self._reap()
        assert not self.failures, f"{len(self.failures)} of {self.count} examples: {self.failures[0]}"

    def _reap(self) -> None:
        ended = next((found for pid in self._running if (found := os.waitpid(pid, os.WNOHANG))[0]), None)
        if ended is None:
            time.sleep(0.005)
            for pid, (_, _, began) in self._running.items():
                if time.monotonic() - began > patience((WAITS + 2) * SECONDS):  # in C code, which hears no alarm
                    os.kill(pid, signal.SIGKILL)
            return
        pid, status = ended
        example, folder, _ = self._running.pop(pid)
        said = (folder / SAID).read_text(encoding="utf-8", errors="replace")
        self.count += 1
        if status or "Traceback" in said or {"\x1b", "\x9b"} & set(said):
            self.failures.append(f"{example.words!r:.8000}\nended with status {status} and said:\n{said[-6000:]!r}")
        shutil.rmtree(folder, ignore_errors=True)

    def _live(self, example: Example, folder: Path) -> NoReturn:
        end = 1
        try:
            output = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1), os.dup2(output, 2)
            sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", errors="replace", closefd=False) for fd in (1, 2))  # noqa: SIM115
            faulthandler.dump_traceback_later(patience((WAITS + 1) * SECONDS), exit=True, file=2)
            here = folder / "here"
            os.chdir(here)
            tempfile.tempdir = os.environ["TMPDIR"] = str(here)
            example.prepare(here)
            with self._guard.around(here):
                code = example.command()
            assert code in example.codes, f"exit code {code}"
            assert sorted(path.name for path in folder.iterdir()) == ["here", SAID]
            end = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(end)
