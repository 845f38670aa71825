"""How long a run takes from the end of the one before it to its first training step.

    python -m benchmarks.startup --runs 6

The runs are those of the tiny models with W&B offline, through the real command line; the first, which waits for the
imports, doesn't count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.sweep.running import Command


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
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


if __name__ == "__main__":
    main()
