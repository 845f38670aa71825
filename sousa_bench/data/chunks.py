"""The cache's files. A chunk holds some clips' samples and, at its end, the list of them.

    samples (int16, clip after clip) | list (an entry a clip) | footer (magic, clips, list's checksum, samples' bytes)

The footer is written last and the file then renamed, so a chunk is complete or it is not there; what a failing disk or
a copying accident leaves otherwise is recognised by its size and checksum and counts as absent.
"""

from __future__ import annotations

import contextlib
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sousa_bench.errors import DataError

SUFFIX = ".s16"
TEMPORARY = ".part"
ENTRY = np.dtype([("key", "V16"), ("start", "<i8"), ("length", "<i8"), ("complete", "?")])
"""A clip's key, its first sample in the file, its number of samples, and whether those are all that its file held."""

_FOOTER = struct.Struct("<8sqqq")
_MAGIC = b"SOUSAs16"


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

    def add(self, key: bytes, samples: np.ndarray, complete: bool) -> None:
        """Append one clip, (samples,) int16."""
        self._file.write(np.ascontiguousarray(samples, dtype="<i2").data)
        self._entries.append((key, self._samples, len(samples), complete))
        self._samples += len(samples)

    def seal(self) -> None:
        """Make the chunk visible to readers, or leave nothing where it holds no clip."""
        if not self._entries:
            self.discard()
            return
        entries = np.array(self._entries, dtype=ENTRY).tobytes()
        self._file.write(entries)
        self._file.write(_FOOTER.pack(_MAGIC, len(self._entries), zlib.crc32(entries), self._samples * 2))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):  # what is still buffered finds no room on a full disk
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def read_entries(path: Path) -> np.ndarray | None:
    """The list of a chunk's clips, dtype `ENTRY`; None where the file is no complete chunk."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < _FOOTER.size:
                return None
            file.seek(size - _FOOTER.size)
            magic, clips, checksum, data_bytes = _FOOTER.unpack(file.read(_FOOTER.size))
            listed = clips * ENTRY.itemsize
            if magic != _MAGIC or clips < 0 or data_bytes + listed + _FOOTER.size != size:
                return None
            file.seek(data_bytes)
            entries = file.read(listed)
    except (FileNotFoundError, IsADirectoryError):
        return None
    return np.frombuffer(entries, dtype=ENTRY) if zlib.crc32(entries) == checksum else None


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
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, i: int) -> np.ndarray:
        """(lengths[i],) int16, a read-only view; 32768 is full scale.

        Raises:
            DataError: The cache was deleted meanwhile.
        """
        number = int(self._chunk[i])
        samples = self._maps.get(number)
        if samples is None:
            try:
                path = self._paths[number]
                samples = np.memmap(path, dtype="<i2", mode="r", shape=(Path(path).stat().st_size // 2,))
                self._maps[number] = samples
            except FileNotFoundError as error:
                raise DataError(
                    f"{self._paths[number]} is gone: the cache was deleted while it was in use. Start again; what is "
                    "missing is decoded anew."
                ) from error
        start = int(self._start[i])
        return samples[start : start + int(self.lengths[i])]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}
