"""A lock that its holder's death releases."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = ".lock"
MARKS_FOLDER = ".runs"  # below a results root: a lock for each run that was ever begun there


class FolderLock:
    """An advisory lock on a folder, for the processes that would fill it.

    The kernel drops it when the holder dies, so that there is nothing to clean up after a kill.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._handle: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock; False when another process holds it and ``wait`` is off."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens when it isn't held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class RunLock:
    """What a process holds while it does a run: the run's folder, and its fingerprint below each results root.

    So two sweeps that share a root, or a sweep and a single run, never do one run at the same time in two folders.
    """

    def __init__(self, folder: Path, fingerprint: str, roots: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._marks = sorted({root / MARKS_FOLDER / fingerprint[:16] for root in roots})
        self._held: list[FolderLock] = []

    def acquire(self) -> bool:
        """Take all of it, or nothing: False when another process holds a part.

        Raises:
            OSError: The run's folder can't be written.
        """
        try:
            taken = self._take(self._folder) and all(map(self._take, filter(_usable, self._marks)))
        except OSError:
            self.release()
            raise
        if not taken:
            self.release()
        return taken

    def _take(self, folder: Path) -> bool:
        self._held.append(FolderLock(folder))
        return self._held[-1].acquire()

    def release(self) -> None:
        """Give everything back."""
        while self._held:
            self._held.pop().release()


def _usable(mark: Path) -> bool:
    """Whether the root that a mark would lie below exists (the run's own does by now) and is ours to write."""
    return os.access(mark.parent.parent, os.W_OK)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, waiting for it."""
    lock = FolderLock(folder)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
