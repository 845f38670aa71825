"""Files that appear whole (written beside their place and renamed), and their hashes."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Write into an empty file beside ``path``, which takes its place when the block ends without an error.

    A reader, or a kill, never sees a part of it, and after an error the old file still stands. Its name begins with a
    dot and ends in ``.tmp``, so a writer that guesses a format from the name must be told.

    Raises:
        OSError: The disk is full or the folder can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def is_there(path: Path) -> bool:
    """Whether something lies at ``path``; at what no path can be (too long, or with a NUL), nothing does."""
    with suppress(OSError, ValueError):
        return path.exists()
    return False


def sha256(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; remembered while neither its time nor its size changes."""
    state = path.stat()
    return _file_hash(path.resolve(), state.st_mtime_ns, state.st_size)


@functools.cache
def _file_hash(path: Path, _mtime: int, _size: int) -> str:
    return sha256(path)
