"""How long an answer takes once the model is loaded: decode, resample, look for strokes, classify.

    python benchmarks/predict_speed.py multirun/2026-02-01/10-30-00 clips/ --threads 1

Prints seconds for a file of each of the run's files (median and slowest, the first left out) beside the length of the
audio and the time that loading took.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    started = time.perf_counter()
    from sousa_bench.inference.listener import Listener, Windows
    from sousa_bench.inference.predictor import Predictor, device_named
    from sousa_bench.predict.prediction import find_files

    device = device_named(arguments.device, arguments.threads)
    predictor = Predictor.open(arguments.run, device=device)
    listener = Listener(predictor, Windows.of(predictor, None, None))
    loading = time.perf_counter() - started
    files, _ = find_files(arguments.files)
    taken, audio = [], []
    for file in files:
        started = time.perf_counter()
        audio.append(listener.answer(file).seconds or 0.0)
        taken.append(time.perf_counter() - started)
    print(f"{predictor.name} on {device}, {arguments.threads} threads: loaded in {loading:.1f} s")
    print(
        f"{len(files) - 1} files of {median(audio[1:]):.1f} s: {median(taken[1:]):.3f} s each "
        f"(slowest {max(taken[1:]):.3f}), {sum(audio[1:]) / sum(taken[1:]):.0f} times faster than they sound"
    )


if __name__ == "__main__":
    main()
