"""Filling the cache against bare decoding and resampling of the same files on the same cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sousa_bench.benchmark.cache_benchmark import benchmark_cache
from sousa_bench.config.composing import composed
from sousa_bench.config.instantiate import build
from sousa_bench.training.run import SAMPLE_RATES


def cache(overrides: Sequence[str], *, repeats: int, clips: int = 400) -> dict[str, Any]:
    """Take turns; the best time of each side counts.

    Args:
        overrides: Which data.
        repeats: Turns.
        clips: Most clips that are decoded each time.
    """
    data = build(composed(overrides).data)
    data.check()
    table = data._chosen.head(clips)
    measured = benchmark_cache(data.source, table, SAMPLE_RATES, repeats=repeats)
    return {"setup": " ".join(overrides), **asdict(measured), "ratio": measured.ratio}
