"""How long a run takes from the end of the one before it to its first training step.

    python -m benchmarks.startup --runs 6

The runs are those of the tiny models with W&B offline, through the real command line; the first, which waits for the
imports, doesn't count.

    python -m benchmarks.startup --planned 10000

says how long a sweep of so many runs takes until its first has begun, how much of that is its plan, and how long
``status`` takes once four in ten have results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.analysis.synthetic import result
from tests.sweep.running import Command


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--planned", type=int, metavar="RUNS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.planned:
            print("\n".join(large_sweep(Path(name), options.planned)))
            return
        gaps = measure(Path(name), options.runs)
    print("seconds from the end of a run to the next one's first step:", " ".join(f"{gap:.2f}" for gap in gaps))
    print(f"median {statistics.median(gaps):.2f}, longest {max(gaps):.2f}")


def measure(folder: Path, runs: int) -> list[float]:
    """Seconds before the first step of each run but the first."""
    command = Command(folder, [sys.executable, "-m", "sousa_bench.train"])
    seeds = ",".join(str(seed) for seed in range(runs))
    words = (
        "-m",
        "sweep=s",
        "model=ast",
        "peft=lora",
        f"seed={seeds}",
        "trainer.max_epochs=1",
        "logger=wandb",
        "n_jobs=1",
    )
    process = command.start(*words, "trainer.progress=false")
    first_steps: dict[str, float] = {}
    while process.poll() is None:
        time.sleep(0.01)
        for path in folder.glob("multirun/s/*/progress.json"):
            if path.parent.name not in first_steps:
                with suppress(OSError, ValueError):
                    progress = json.loads(path.read_text())
                    if progress.get("step"):
                        first_steps[path.parent.name] = progress["updated"]
    output, _ = process.communicate()
    assert process.returncode == 0, output
    ends = [(path.stat().st_mtime, path.parent.name) for path in folder.glob("multirun/s/*/result.json")]
    ends.sort()
    return [first_steps[after] - end for (end, _), (_, after) in itertools.pairwise(ends)]


def large_sweep(folder: Path, runs: int) -> list[str]:
    """A line for each part; wall time, and processor time in brackets."""
    command, started = Command(folder, [sys.executable, "-m", "sousa_bench.train"]), time.perf_counter()
    process = command.start("-m", f"seed=range(0,{runs})", "sweep=s", "n_jobs=1", "logger=none", "trainer.max_epochs=1")
    sweep, took = folder / "multirun" / "s", {}
    for what, pattern in (("planned", "sweep.json"), ("the first run begun", "*/result.json")):
        while not any(sweep.glob(pattern)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        spent = psutil.Process(process.pid)
        took[what] = (time.perf_counter() - started, sum(spent.cpu_times()[:2]), spent.memory_info().rss / 2**20)
    process.send_signal(signal.SIGINT)
    process.communicate()
    made = result({"model": "ast", "augmentation": True, "seed": 0}, 0.8)
    for job in json.loads((sweep / "sweep.json").read_text())["jobs"][: runs * 4 // 10]:
        (place := sweep / job["folder"]).mkdir(exist_ok=True)
        (place / "result.json").write_text(json.dumps({**made, "fingerprint": job["fingerprint"]}, indent=2))
    lines = [f"{what} after {wall:.1f} s ({own:.1f} s), {mib:.0f} MiB" for what, (wall, own, mib) in took.items()]
    wall, before = time.perf_counter(), sum(psutil.Process().cpu_times()[2:4])
    Command(folder, [sys.executable, "-m", "sousa_bench.status"])(str(sweep), timeout=600)
    spent_there = sum(psutil.Process().cpu_times()[2:4]) - before
    return [*lines, f"status: {time.perf_counter() - wall:.1f} s ({spent_there:.1f} s)"]


if __name__ == "__main__":
    main()
