"""How fast the analysis is: ``python -m benchmarks.analysis_speed``.

Four numbers: 10,000 result files without plots, of 40 combinations and of 10,000; 24 runs with the page but without PNG
files; and ``--help``. With a number behind it, two: so many result files, of 40 combinations, without plots and with
the page, of which it says the size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.analysis.synthetic import Clips, predict, result, scores, write_sweep

# As an installed package has it: Python's own files compiled once, not in each process.
BYTECODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "sousa_bench_pyc")}


def many(root: Path, count: int, distinct: bool = False) -> Path:
    """Write ``count`` whole result files (19 KB each) below ``root``; ``distinct``: each a combination of its own."""
    rng = np.random.default_rng(0)
    clips = Clips.make()
    per_class = scores(clips.label, predict(clips, np.full(len(clips.label), 0.8), rng)[0])
    models = ("ast", "htsat", "beats", "efficientat")
    for number in range(count):
        config = {"model": models[number % 4], "augmentation": number % 8 < 4, "seed": number // 40}
        extra = {"peft.r": number + 1 if distinct else 2 ** (2 + number // 8 % 5)}
        made = result(config, float(rng.uniform(0.6, 0.9)), rng=rng, per_class=per_class, extra=extra)
        folder = root / made["experiment_id"]
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(made, indent=2))
    return root


def timed(*arguments: str) -> str:
    """Wall time, processor time of all its processes and peak memory of its largest one, for one command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "sousa_bench.analyze", *arguments]
    process = subprocess.Popen(command, stdout=-3, stderr=-3, env={**os.environ, **BYTECODE})
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    assert status == 0, arguments
    return f"{wall:6.2f} s wall, {usage.ru_utime + usage.ru_stime:6.2f} s processor, {usage.ru_maxrss / 1024:5.0f} MiB"


def main() -> None:
    """Print the four lines, or the two that are asked for."""
    with tempfile.TemporaryDirectory() as temporary:
        if sys.argv[1:]:
            count = int(sys.argv[1])
            files = many(Path(temporary), count)
            print(f"{count:,} files, no plots".ljust(26), timed(str(files), "--no-plots"))
            with_page = timed(str(files), "--no-images")
            size = (files / "analysis" / "report.html").stat().st_size / 1e6
            print(f"{count:,} files, page, no PNG".ljust(26), f"{with_page}, a page of {size:.1f} MB")
            return
        files = many(Path(temporary) / "many", 10_000)
        apart = many(Path(temporary) / "apart", 10_000, distinct=True)
        sweep = write_sweep(Path(temporary) / "multirun")
        timed(str(sweep), "--no-images")
        print("--help                    ", timed("--help"))
        print("24 runs, page, no PNG     ", timed(str(sweep), "--no-images"))
        print("10,000 files, no plots    ", timed(str(files), "--no-plots"))
        print("10,000 combinations       ", timed(str(apart), "--no-plots"))


if __name__ == "__main__":
    main()
