"""The folder of all caches: where it is, how large, and who may fill a part of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from sousa_bench.errors import DataError

log = logging.getLogger("sousa_bench.data")

CACHE_VARIABLE = "SOUSA_BENCH_CACHE"
ELSEWHERE = f"data.cache_dir=FOLDER or the variable {CACHE_VARIABLE}"
"""How to choose another folder, for messages."""


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds every cache of this project.

    Args:
        cache_dir: `data.cache_dir`; None: the variable `SOUSA_BENCH_CACHE`; else the user's cache folder.

    Raises:
        DataError: The folder can't be made.
    """
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("sousa_bench", appauthor=False)
    folder = Path(chosen).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} can't be made ({error.strerror}): choose another with {ELSEWHERE}."
        ) from error
    return folder


@contextmanager
def filled_by_one(path: Path, what: str, *, seconds: float = -1) -> Iterator[None]:
    """Hold the lock file `path`: of several processes that want the same files, one makes them and the others wait.

    Args:
        path: The lock file, in a folder that exists.
        what: What another process is doing when this one has to wait, for the log.
        seconds: Most that this one waits; negative: without end.

    Raises:
        Timeout: Another process still holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if seconds == 0:
            raise
        log.info("Another process is %s; waiting until it is done", what)
        lock.acquire(timeout=seconds, poll_interval=0.1)
    try:
        yield
    finally:
        lock.release()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 where there is none."""
    total = 0
    stack = [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # another process cleans up
            continue
    return total


def size_text(size: float) -> str:
    """Bytes for people: 3.2 MB, 47 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
