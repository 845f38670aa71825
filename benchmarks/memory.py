"""Does memory grow with the dataset? What a run's data take while every training clip is read once (Linux).

    python benchmarks/memory.py data=pretraining data.clips.train=1000
    python benchmarks/memory.py data=pretraining

The words are overrides of the training config. What counts is the process's own memory (RssAnon); the pages of the
cache are the system's, which takes them back when it needs them. The first call for a dataset fills its cache.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sousa_bench.config.composing import composed
from sousa_bench.config.instantiate import build
from sousa_bench.data.datamodule import EpochBatches
from sousa_bench.training.recipe import build_batches

RATE = 16_000


def own_memory() -> float:
    """MiB that are this process's alone."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main() -> None:
    """Entry point."""
    cfg = composed(sys.argv[1:])
    settings, data = build(cfg.trainer), build(cfg.data)
    data.prepare((RATE,))
    before = own_memory()
    clips = build_batches(cfg, settings, data, RATE).clips["train"]
    listed = own_memory()
    largest = seconds = 0.0
    for batch in EpochBatches(clips, settings.batch_size, cfg.seed, 0):
        seconds += clips.waveform(batch.index).numel() / RATE
        largest = max(largest, own_memory())
    print(
        f"{len(clips):,} clips, {seconds / 3600:.1f} h: the list takes {listed - before:.1f} MiB, reading every clip "
        f"at most {largest - listed:.1f} MiB more"
    )


if __name__ == "__main__":
    main()
