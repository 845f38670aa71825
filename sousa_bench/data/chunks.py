"""The cache's files. A chunk holds some clips' samples and, at its end, the list of them.

    samples (int16, clip after clip) | list (an entry a clip) | footer
    footer: magic, number of clips, checksum of the list, checksum of the samples, bytes of the samples

The footer is written last and the file then renamed, so a chunk is complete or it is not there; what a failing disk or
a copying accident leaves otherwise is recognised by its size and checksums and counts as absent.
"""

from __future__ import annotations

import contextlib
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sousa_bench.errors import DataError

SUFFIX = ".s16"
TEMPORARY = ".part"
ENTRY = np.dtype([("key", "V16"), ("start", "<i8"), ("length", "<i8"), ("complete", "?")])
"""A clip's key, its first sample in the file, its number of samples, and whether those are all that its file held."""

_FOOTER = struct.Struct("<8sqqqq")
_MAGIC = b"SOUSAs16"
_AT_ONCE = 1 << 20
"""Bytes of samples checked at a time."""


class ChunkWriter:
    """Writes one chunk beside the others.

    Args:
        folder: Where it will lie; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self._temporary = self.path.with_suffix(TEMPORARY)
        self._file: BinaryIO = self._temporary.open("wb")
        self._entries: list[tuple[bytes, int, int, bool]] = []
        self._samples = 0
        self._checksum = 0

    def add(self, key: bytes, samples: np.ndarray, complete: bool) -> None:
        """Append one clip, (samples,) int16."""
        content = np.ascontiguousarray(samples, dtype="<i2").data
        self._file.write(content)
        self._checksum = zlib.crc32(content, self._checksum)
        self._entries.append((key, self._samples, len(samples), complete))
        self._samples += len(samples)

    def seal(self) -> None:
        """Make the chunk visible to readers, or leave nothing where it holds no clip."""
        if not self._entries:
            self.discard()
            return
        entries = np.array(self._entries, dtype=ENTRY).tobytes()
        self._file.write(entries)
        checksums = zlib.crc32(entries), self._checksum
        self._file.write(_FOOTER.pack(_MAGIC, len(self._entries), *checksums, self._samples * 2))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):  # what is still buffered finds no room on a full disk
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _footer(file: BinaryIO) -> tuple[int, int, int, int] | None:
    """Clips, both checksums and the samples' bytes; None where the file's size is not what they make."""
    size = os.fstat(file.fileno()).st_size
    if size < _FOOTER.size:
        return None
    file.seek(size - _FOOTER.size)
    magic, clips, checksum, samples_checksum, data_bytes = _FOOTER.unpack(file.read(_FOOTER.size))
    whole = magic == _MAGIC and clips >= 0 and data_bytes + clips * ENTRY.itemsize + _FOOTER.size == size
    return (clips, checksum, samples_checksum, data_bytes) if whole else None


def read_entries(path: Path) -> np.ndarray | None:
    """The list of a chunk's clips, dtype `ENTRY`; None where the file is no complete chunk."""
    try:
        with path.open("rb", buffering=0) as file:
            if (footer := _footer(file)) is None:
                return None
            clips, checksum, _, data_bytes = footer
            file.seek(data_bytes)
            entries = file.read(clips * ENTRY.itemsize)
    except (FileNotFoundError, IsADirectoryError):
        return None
    return np.frombuffer(entries, dtype=ENTRY) if zlib.crc32(entries) == checksum else None


def samples_intact(path: str) -> bool:
    """Whether a chunk's samples are those that were written; reads them all, about 1 GB/s for each thread."""
    try:
        with Path(path).open("rb", buffering=0) as file:
            if (footer := _footer(file)) is None:
                return False
            *_, expected, left = footer
            checksum = 0
            file.seek(0)
            while left and (content := file.read(min(left, _AT_ONCE))):
                checksum = zlib.crc32(content, checksum)
                left -= len(content)
    except OSError:  # gone, or a disk that can't read it
        return False
    return checksum == expected


@dataclass
class ChunkIndex:
    """Where the clips of one folder of chunks lie.

    Attributes:
        paths: Complete chunks.
        damaged: Files that are no complete chunks.
        at: By a clip's key: the chunk's number in `paths`, first sample, number of samples, whether those are all.
    """

    paths: list[str]
    damaged: list[Path]
    at: dict[bytes, tuple[int, int, int, bool]]

    def holds(self, key: bytes, samples: int) -> bool:
        """Whether a clip is there to the length of `samples`, or to its end."""
        found = self.at.get(key)
        return found is not None and (found[3] or found[2] >= samples)


def read_index(folder: Path) -> ChunkIndex:
    """The index of a folder; an empty one where there is no folder."""
    index = ChunkIndex([], [], {})
    if not folder.is_dir():
        return index
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        entries = read_entries(path)
        if entries is None:
            index.damaged.append(path)
            continue
        number = len(index.paths)
        index.paths.append(str(path))
        for key, start, length, complete in entries.tolist():
            earlier = index.at.get(key)
            if earlier is None or length > earlier[2]:
                index.at[key] = (number, start, length, complete)
    return index


class WaveformStore:
    """Clips in a fixed order.

    Holds 20 bytes a clip; the samples stay on the disk and in the system's page cache, which all processes share. It
    can be pickled, and used on both sides of a fork.

    Args:
        sample_rate: Hz.
        paths: The cache files.
        chunk: (clips,) which of `paths` holds each clip.
        start: (clips,) first sample in that file.
        lengths: (clips,) samples, cut to the longest duration wanted.
    """

    def __init__(
        self, sample_rate: int, paths: list[str], chunk: np.ndarray, start: np.ndarray, lengths: np.ndarray
    ) -> None:
        self.sample_rate = sample_rate
        self.lengths = lengths.astype(np.int64)
        self._paths = paths
        self._chunk = chunk.astype(np.int32)
        self._start = start.astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, i: int, start: int = 0, most: int | None = None) -> np.ndarray:
        """(samples,) int16 of clip ``i`` from ``start`` on, read-only; 32768 is full scale.

        It is read, not mapped: a file that is cut while it is mapped kills the process.

        Args:
            i: Which clip.
            start: Its first sample that is read.
            most: Samples that are read; None: to the end.

        Raises:
            DataError: The cache was deleted or cut meanwhile.
        """
        left = int(self.lengths[i]) - start
        path, size = self._paths[int(self._chunk[i])], 2 * (left if most is None else min(left, most))
        try:
            # Opened for each clip, some 50 µs with the read: one handle a chunk would be more than a process may hold
            # at SOUSA's size.
            with Path(path).open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, 2 * (int(self._start[i]) + start))
        except FileNotFoundError as error:
            raise self._lost(path, "gone: the cache was deleted") from error
        if len(content) != size:
            raise self._lost(path, "cut")
        return np.frombuffer(content, dtype="<i2")

    @staticmethod
    def _lost(path: str, what: str) -> DataError:
        return DataError(f"{path} is {what} while it was in use. Start again; what is missing is decoded anew.")
