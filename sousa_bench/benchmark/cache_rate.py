"""How near filling the cache comes to what it can't do without: decoding, and one resampling for each rate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from sousa_bench.config.composing import composed
from sousa_bench.data.cache import ClipCache
from sousa_bench.data.decode import read_mono, resample
from sousa_bench.data.sources.source import Source
from sousa_bench.errors import DataError
from sousa_bench.system.cores import usable_cores
from sousa_bench.training.evaluated_clips import ALL, SplitData
from sousa_bench.training.run import SAMPLE_RATES


def cache(overrides: Sequence[str], *, repeats: int, clips: int = 400) -> dict[str, Any]:
    """Compare on the data of a config; see :func:`compare`.

    Args:
        overrides: Which data.
        repeats: Turns.
        clips: Most clips that are decoded each time.
    """
    data = SplitData.of(ALL, OmegaConf.to_container(composed(overrides).data, resolve=True))  # type: ignore[arg-type]
    return {"setup": " ".join(overrides), **compare(data.source, data.chosen().head(clips), repeats=repeats)}


def compare(source: Source, clips: pd.DataFrame, *, repeats: int, folder: Path | None = None) -> dict[str, Any]:
    """Time both sides in turn on the same clips, files warm, on every core, and take each side's best time.

    Args:
        source: The dataset.
        clips: Sound clips of it, in its own columns.
        repeats: Times that each side is run.
        folder: Where the cache is built, on the disk that counts; None: the system's temporary folder.

    Returns:
        ``bare_clips_per_second``: decoding, mixing to mono, one soxr resampling for each rate, the result thrown away;
        ``cache_clips_per_second``: filling an empty cache, with its list of clips, checks, files, sync and renames;
        ``ratio`` of the second to the first; ``clips``, ``sample_rates`` and ``workers``, the threads of both sides.

    Raises:
        DataError: A clip can't be decoded, or the disk is full.
    """
    workers = usable_cores()
    source.fetch(clips)
    _decode(source, clips, workers)
    pairs = [(_decode(source, clips, workers), _fill(source, clips, workers, folder)) for _ in range(repeats)]
    bare, cached = (len(clips) / min(seconds) for seconds in zip(*pairs, strict=True))
    return {
        "clips": len(clips),
        "sample_rates": SAMPLE_RATES,
        "workers": workers,
        "bare_clips_per_second": bare,
        "cache_clips_per_second": cached,
        "ratio": cached / bare,
    }


def _decode(source: Source, clips: pd.DataFrame, workers: int) -> float:
    def work(part: np.ndarray) -> None:
        for _, audio in source.audio(clips, part):
            mono, rate, _ = read_mono(audio, 3600.0)
            for target in SAMPLE_RATES:
                resample(mono, rate, target)

    parts = source.groups(clips, 4)
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, parts))
    return time.perf_counter() - started


def _fill(source: Source, clips: pd.DataFrame, workers: int, folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(prefix="sousa_bench_cache_", dir=folder, ignore_cleanup_errors=True) as scratch:
        started = time.perf_counter()
        bad = ClipCache(Path(scratch), source, 5.0, workers=workers).fill(clips, SAMPLE_RATES)
        seconds = time.perf_counter() - started
    if bad:
        raise DataError(f"{source.names(clips.iloc[list(bad)])[0]} {next(iter(bad.values()))}: time sound clips only.")
    return seconds
