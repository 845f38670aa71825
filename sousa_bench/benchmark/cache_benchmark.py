"""How near filling the cache comes to what it can't do without: decoding, and one resampling for each rate."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sousa_bench.data.cache import ClipCache
from sousa_bench.data.decode import read_mono, resample
from sousa_bench.data.sources.source import Source
from sousa_bench.errors import DataError
from sousa_bench.system.cores import usable_cores


@dataclass(frozen=True)
class CacheBenchmark:
    """Figures of one comparison.

    Attributes:
        clips: Clips that were decoded each time.
        sample_rates: Hz.
        workers: Threads of both sides.
        bare_clips_per_second: Decoding, mixing to mono, one soxr resampling for each rate; the result is thrown away.
        cache_clips_per_second: Filling an empty cache, with its list of clips, checks, files, sync and renames.
    """

    clips: int
    sample_rates: tuple[int, ...]
    workers: int
    bare_clips_per_second: float
    cache_clips_per_second: float

    @property
    def ratio(self) -> float:
        """The cache's speed as a share of bare decoding's."""
        return self.cache_clips_per_second / self.bare_clips_per_second


def benchmark_cache(
    source: Source,
    clips: pd.DataFrame,
    sample_rates: Sequence[int] = (16_000, 32_000),
    *,
    folder: Path | None = None,
    workers: int | None = None,
    repeats: int = 5,
) -> CacheBenchmark:
    """Time both sides in turn on the same clips, files warm, and take each side's best time.

    Args:
        source: The dataset, as `SousaData.source`.
        clips: Sound clips of it, in its own columns, as `source.table()` has them.
        sample_rates: Hz.
        folder: Where the cache is built, on the disk that counts; None: the system's temporary folder.
        workers: Threads of both sides; None: one a core.
        repeats: Times that each side is run.

    Raises:
        DataError: A clip can't be decoded, or the disk is full.
    """
    workers = workers or usable_cores()
    source.fetch(clips)
    bare, cached = [], []
    _bare(source, clips, sample_rates, workers)
    for _ in range(repeats):
        bare.append(_bare(source, clips, sample_rates, workers))
        cached.append(_cached(source, clips, sample_rates, workers, folder))
    return CacheBenchmark(len(clips), tuple(sample_rates), workers, len(clips) / min(bare), len(clips) / min(cached))


def _bare(source: Source, clips: pd.DataFrame, rates: Sequence[int], workers: int) -> float:
    def work(part: np.ndarray) -> None:
        for _, audio in source.audio(clips, part):
            mono, rate, _ = read_mono(audio, 3600.0)
            for target in rates:
                resample(mono, rate, target)

    parts = source.groups(clips, 4)
    begin = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, parts))
    return time.perf_counter() - begin


def _cached(source: Source, clips: pd.DataFrame, rates: Sequence[int], workers: int, folder: Path | None) -> float:
    scratch = Path(tempfile.mkdtemp(prefix="sousa_bench_cache_", dir=folder))
    try:
        begin = time.perf_counter()
        bad = ClipCache(scratch, source, 5.0, workers=workers).fill(clips, rates)
        seconds = time.perf_counter() - begin
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if bad:
        raise DataError(f"{source.names(clips.iloc[list(bad)])[0]} {next(iter(bad.values()))}: time sound clips only.")
    return seconds
