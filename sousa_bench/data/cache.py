"""The decode-once cache of one dataset: each clip is decoded once, for all sample rates, by all cores.

    <cache>/clips/<dataset>/dataset.json     what it was made from, for people
                            build.lock       held by the process that fills it
                            16000/*.s16      chunks of some hundred clips, see `chunks`
                            32000/*.s16
                            16000-whole/*.s16   for `data.windows`: clips to their end
                            features/*.safetensors   what all runs share of a split, see `training.kept_states`

Subsets share it: a clip that `data=tiny` decoded is there for `data=full`. Another sample rate adds a folder. A kill
loses what its threads had in hand: of each, the chunk that it decodes and the one before, which the disk takes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sousa_bench.data.cache_folder import ELSEWHERE, filled_by_one, folder_bytes, size_text
from sousa_bench.data.chunks import (
    ENTRY,
    TEMPORARY,
    ChunkIndex,
    ChunkWriter,
    WaveformStore,
    read_index,
    samples_intact,
)
from sousa_bench.data.decode import BadClip, decode
from sousa_bench.data.sources.source import Source
from sousa_bench.errors import DataError
from sousa_bench.system.cores import usable_cores

log = logging.getLogger("sousa_bench.data")

MOST_READERS = 4
"""Threads that look through chunks: each run of a sweep does so when it starts."""

STORED_SECONDS = 10.0
"""Clips are stored to this length even where a run uses less, so that another `max_duration` decodes nothing."""

LONGEST = 600.0
"""Seconds; a longer clip can't be kept whole. It takes 58 MB at both of the models' sample rates."""

CHUNK_CLIPS = 128
FEATURES = "features"
VERSION = "v2"
Progress = Callable[[int, int], None]
"""Called now and then with (clips done, clips to do)."""


@dataclass(frozen=True)
class Kept:
    """Where to keep what networks make of some clips, for whoever computes it.

    Attributes:
        folder: Beside the decoded clips.
        content: Changes when a clip's audio may have changed.
        room: Whether so many bytes more fit the cap and the disk.
    """

    folder: Path
    content: bytes
    room: Callable[[int], bool]


def too_long(stored: float) -> BadClip:
    """What is wrong with a clip of which `data.windows` can't hear the end."""
    return BadClip(
        f"is longer than {stored:g} s, the most that data.windows hears: cut it, or leave data.windows=null, which "
        "hears its beginning"
    )


class ClipCache:
    """The cache of one dataset.

    Args:
        root: The folder of all caches.
        source: The dataset.
        max_duration: Seconds of a clip that are used.
        limit_gb: Most gigabytes that all datasets' caches together may take; None: as much as the disk holds.
        whole: Keep clips to their end, apart from those that are kept to a length.
        workers: Threads; None: one for each core this process may use. libsndfile and soxr work outside Python's lock,
            so threads are as fast as processes here and need no start.
    """

    def __init__(
        self,
        root: Path,
        source: Source,
        max_duration: float,
        limit_gb: float | None = None,
        workers: int | None = None,
        whole: bool = False,
    ) -> None:
        self.all = root / "clips"
        layout = re.sub(r"\W", "-", source.layout.split()[0])
        self.folder = self.all / f"{layout}-{source.identity[:16]}-{VERSION}"
        self.source = source
        self.max_duration = max_duration
        self.whole = whole
        self.stored = max(LONGEST if whole else STORED_SECONDS, max_duration)
        self.limit_gb = limit_gb
        self.workers = workers
        self._indices: dict[int, ChunkIndex] = {}
        self._intact: set[str] = set()

    def _index(self, rate: int, fresh: bool = False) -> ChunkIndex:
        if fresh or rate not in self._indices:
            self._indices[rate] = read_index(self.chunks(rate))
        return self._indices[rate]

    def chunks(self, rate: int) -> Path:
        """The folder of the chunks of one sample rate."""
        return self.folder / (f"{rate}-whole" if self.whole else str(rate))

    def _absent(self, keys: list[bytes], rates: Sequence[int], fresh: bool) -> dict[int, np.ndarray]:
        """For each rate, (clips,) bool."""
        absent = {}
        for rate in rates:
            index = self._index(rate, fresh)
            samples = sys.maxsize if self.whole else int(self.max_duration * rate)
            self._check_samples(index, keys)
            absent[rate] = np.array([not index.holds(key, samples) for key in keys], dtype=bool)
        return absent

    def _check_samples(self, index: ChunkIndex, keys: list[bytes]) -> None:
        """Read the chunks that hold `keys`, each once a process; what lies in a damaged one counts as absent."""
        numbers = {index.at[key][0] for key in keys if key in index.at}
        new = [number for number in sorted(numbers) if index.paths[number] not in self._intact]
        threads = self.workers or min(usable_cores(), MOST_READERS)
        with ThreadPoolExecutor(threads) as pool:  # zlib works outside Python's lock
            good = list(pool.map(samples_intact, [index.paths[number] for number in new]))
        damaged = {number for number, intact in zip(new, good, strict=True) if not intact}
        self._intact |= {index.paths[number] for number in numbers - damaged}
        index.damaged += [Path(index.paths[number]) for number in sorted(damaged)]
        index.at = {key: place for key, place in index.at.items() if place[0] not in damaged}

    def fill(self, table: pd.DataFrame, rates: Sequence[int], progress: Progress | None = None) -> dict[int, str]:
        """Decode those clips that aren't there yet.

        Args:
            table: The clips, in the source's own columns.
            rates: Sample rates in Hz.
            progress: See `Progress`.

        Returns:
            What is wrong with each clip that can't be used, by its position in `table`.

        Raises:
            DataError: The disk or the cap is too small.
        """
        keys = self.source.keys(table)
        if not any(mask.any() for mask in self._absent(keys, rates, fresh=True).values()):
            return {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filled_by_one(self.folder / "build.lock", "decoding clips of this dataset"):
                absent = self._absent(keys, rates, fresh=True)
                todo = np.flatnonzero(np.logical_or.reduce(list(absent.values())))
                if not len(todo):
                    return {}
                self._remove_damaged(rates)
                self._check_room(table.iloc[todo], sum(int(rate * mask.sum()) for rate, mask in absent.items()))
                self._describe()
                self.source.fetch(table.iloc[todo])
                return _Build(self, table, keys, absent, progress).run(todo)
        except OSError as error:
            raise self._disk_error(error) from error
        finally:
            self._indices.clear()

    def _remove_damaged(self, rates: Sequence[int]) -> None:
        """Delete what a killed process or a failing disk left; nobody else writes while the lock is held."""
        for path in self.folder.glob(f"*/*{TEMPORARY}"):
            path.unlink(missing_ok=True)
        for rate in rates:
            for path in self._index(rate).damaged:
                log.warning("The cache file %s is damaged: its clips are decoded again", path)
                path.unlink(missing_ok=True)

    def _check_room(self, clips: pd.DataFrame, hertz: int) -> None:
        needed = int(min(self.source.mean_seconds(clips), self.stored) * hertz * 2) + len(clips) * ENTRY.itemsize
        log.info("Decoding %s clips once: %s, in %s", f"{len(clips):,}", size_text(needed), self.folder)
        self._make_room(needed)
        if self.limit_gb is not None and (held := folder_bytes(self.all)) + needed > self.limit_gb * 1e9:
            raise DataError(
                f"The cache would grow by {size_text(needed)} to {size_text(held + needed)}, over the cap of "
                f"data.cache_limit_gb={self.limit_gb:g}. Raise the cap, take a smaller data=tiny|mini|small, or delete "
                f"what is no longer used in {self.all}{_largest(self.all)}."
            )
        if needed > (free := shutil.disk_usage(self.folder).free):
            raise DataError(
                f"The cache needs {size_text(needed)} and {self.folder} has {size_text(free)} free. Take a smaller "
                f"data=tiny|mini|small, free some space, or put the cache elsewhere with {ELSEWHERE}."
            )

    def _make_room(self, needed: int) -> None:
        """What is kept of clips can be computed again: the oldest goes before a dataset is refused."""
        used, size = {}, 0
        for path in self.all.glob(f"*/{FEATURES}/*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # another process removes it
                used[path] = path.stat().st_mtime
                size += path.stat().st_size
        if not self._has_room(needed - size):
            return  # all of them would not be enough
        for path in sorted(used, key=used.__getitem__):
            if self._has_room(needed):
                return
            with contextlib.suppress(OSError):  # another process reads it, or another user owns it
                path.unlink()
                log.info("Deleted %s, which can be computed again: the clips need its place", path)

    def _describe(self) -> None:
        path = self.folder / "dataset.json"
        if not path.is_file():
            content = {"source": self.source.layout, "first_seen_at": self.source.place, "cache_version": VERSION}
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _disk_error(self, error: OSError) -> DataError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DataError(
                f"The disk is full: {self.folder} can't grow (what was decoded before is kept). Free some space, "
                f"or put the cache elsewhere with {ELSEWHERE}."
            )
        return DataError(
            f"The cache in {self.folder} can't be written ({error.strerror or error}): choose another folder with "
            f"{ELSEWHERE}."
        )

    def store(self, table: pd.DataFrame, rate: int) -> WaveformStore:
        """The waveforms of clips that `fill` has seen to.

        Raises:
            DataError: A clip isn't there: its file changed, or the cache was deleted meanwhile.
        """
        index, samples = self._index(rate), sys.maxsize if self.whole else round(self.max_duration * rate)
        found = [index.at.get(key) for key in self.source.keys(table)]
        if None in found:
            name = self.source.names(table)[found.index(None)]
            raise DataError(
                f"{name} isn't in the cache at {rate} Hz: it changed, or the cache was deleted. Start again."
            )
        places = np.array([entry[:3] for entry in found if entry], dtype=np.int64).reshape(-1, 3)
        used, chunk = np.unique(places[:, 0], return_inverse=True)
        paths = [index.paths[number] for number in used]
        return WaveformStore(rate, paths, chunk, places[:, 1], np.minimum(places[:, 2], samples))

    def kept(self, table: pd.DataFrame) -> Kept:
        """Where to keep what networks make of clips."""
        return Kept(self.folder / FEATURES, b"".join(self.source.keys(table)), self._has_room)

    def _has_room(self, size: int) -> bool:
        held = 0 if self.limit_gb is None else folder_bytes(self.all)
        return held + size <= (self.limit_gb or np.inf) * 1e9 and size <= shutil.disk_usage(self.folder).free

    def size(self) -> int:
        """Bytes that this dataset's cache takes."""
        return folder_bytes(self.folder)


@dataclass
class _Build:
    """One pass over the clips that are missing."""

    cache: ClipCache
    table: pd.DataFrame
    keys: list[bytes]
    absent: dict[int, np.ndarray]
    progress: Progress | None

    def __post_init__(self) -> None:
        self.bad: dict[int, str] = {}
        self.done = 0
        self.workers = self.cache.workers or usable_cores()
        self._stop = threading.Event()
        self._count = threading.Lock()
        self._sealers = ThreadPoolExecutor(2 * self.workers, thread_name_prefix="seal")
        self._own = threading.local()
        self._sealing: list[Future[None]] = []

    def run(self, todo: np.ndarray) -> dict[int, str]:
        workers = min(self.workers, len(todo))
        size = max(1, min(CHUNK_CLIPS, -(-len(todo) // (4 * workers))))
        groups = [todo[part] for part in self.cache.source.groups(self.table.iloc[todo], size)]
        begin = time.monotonic()
        with self._sealers, ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            pending = {pool.submit(self._chunk, group) for group in groups}
            try:
                while pending:
                    finished, pending = wait(pending, timeout=10.0, return_when=FIRST_EXCEPTION)
                    for future in finished:
                        future.result()
                    self._report(len(todo), time.monotonic() - begin, ended=False)
            finally:  # on Ctrl-C or an error the threads seal what they have and end
                self._stop.set()
                for future in pending:
                    future.cancel()
        for sealing in self._sealing:
            sealing.result()
        self._report(len(todo), time.monotonic() - begin, ended=True)
        return self.bad

    def _report(self, total: int, seconds: float, *, ended: bool) -> None:
        if self.progress is not None:
            self.progress(self.done, total)
        rate = self.done / max(seconds, 1e-9)
        if ended:
            log.info("Decoded %s clips in %.1f s (%.0f clips/s)", f"{total:,}", seconds, rate)
        elif 0 < self.done < total:
            left = (total - self.done) / rate
            log.info("Decoded %s/%s clips, %.0f s left", f"{self.done:,}", f"{total:,}", left)

    def _chunk(self, positions: np.ndarray) -> None:
        writers = {
            rate: ChunkWriter(self.cache.chunks(rate)) for rate, mask in self.absent.items() if mask[positions].any()
        }
        try:
            for position, audio in self.cache.source.audio(self.table, positions):
                if self._stop.is_set():
                    break
                rates = [rate for rate in writers if self.absent[rate][position]]
                try:
                    clips, complete = decode(audio, rates, self.cache.stored)
                    if self.cache.whole and not complete:
                        raise too_long(self.cache.stored)
                except BadClip as error:
                    self.bad[position] = str(error)
                else:
                    for rate, samples in clips.items():
                        writers[rate].add(self.keys[position], samples, complete)
                with self._count:
                    self.done += 1
            self._seal(writers.values())
        except BaseException:
            self._stop.set()
            for writer in writers.values():
                writer.discard()
            raise

    def _seal(self, writers: Iterable[ChunkWriter]) -> None:
        """Let the disk take a chunk while this thread decodes its next one; of each thread one chunk at most waits."""
        for earlier in getattr(self._own, "sealing", ()):
            earlier.result()
        self._own.sealing = [self._sealers.submit(self._sealed, writer) for writer in writers]
        with self._count:
            self._sealing += self._own.sealing

    def _sealed(self, writer: ChunkWriter) -> None:
        try:
            writer.seal()
        except BaseException:
            self._stop.set()
            writer.discard()
            raise


def _largest(folder: Path) -> str:
    sizes = sorted(((folder_bytes(path), path.name) for path in folder.iterdir() if path.is_dir()), reverse=True)
    return " (" + ", ".join(f"{name}: {size_text(size)}" for size, name in sizes[:5] if size) + ")" if sizes else ""
