"""Locks that their holder's death releases: the kernel drops them, so that nothing is to be cleaned up after a kill."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"
MARKS_FOLDER = ".runs"  # below a results root: a lock for each run that was ever begun there


def folder_lock(folder: Path) -> FileLock:
    """The lock of a folder, which is made where it is missing, for the processes that would fill it."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / LOCK_FILE)


class RunLock:
    """What a process holds while it does a run: the run's folder, and its fingerprint below each results root.

    So two sweeps that share a root, or a sweep and a single run, never do one run at the same time in two folders.
    """

    def __init__(self, folder: Path, fingerprint: str, roots: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._marks = sorted({root / MARKS_FOLDER / fingerprint[:16] for root in roots})
        self._held = ExitStack()

    def acquire(self) -> bool:
        """Take all of it, or nothing: False when another process holds a part.

        Raises:
            OSError: The run's folder can't be written.
        """
        with ExitStack() as taken:
            try:
                taken.enter_context(folder_lock(self._folder).acquire(blocking=False))
                for mark in filter(_usable, self._marks):
                    taken.enter_context(folder_lock(mark).acquire(blocking=False))
            except Timeout:
                return False
            self._held = taken.pop_all()
        return True

    def release(self) -> None:
        """Give everything back."""
        self._held.close()


def _usable(mark: Path) -> bool:
    """Whether the root that a mark would lie below exists (the run's own does by now) and is ours to write."""
    return os.access(mark.parent.parent, os.W_OK)
