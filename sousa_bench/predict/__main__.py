"""Say which class is heard in audio files.

python -m sousa_bench.predict multirun/2026-02-01/10-30-00 practice.wav
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.system.arguments import add_machine, add_run_choice, exit_code, positive


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = argparse.ArgumentParser(
        prog="python -m sousa_bench.predict",
        description="Say what is heard in audio files, of the classes that a run was trained on: WAV, FLAC, OGG, MP3 "
        "and what else libsndfile reads, at any rate, mono or stereo, of any length. A recording longer than the "
        "training's clips is heard in overlapping windows: a timeline and an overall answer.",
        epilog="Exit code: 0; 1 where a file could not be read (the others still get their answer) or the run can't be "
        "opened; 2 for a wrong command line.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run's folder, a sweep (its best run), or a package")
    made.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders, or quoted patterns ('**/*.wav')")
    add_run_choice(made)
    answer = made.add_argument_group("the answer")
    answer.add_argument("--top", type=positive, default=5, help="classes of each answer (5)")
    answer.add_argument("--json", action="store_true", help="print one JSON document in place of the table")
    cut = made.add_argument_group("long recordings")
    cut.add_argument("--window", type=float, metavar="SECONDS", help="length of a window (the training's clip length)")
    cut.add_argument("--hop", type=float, metavar="SECONDS", help="from one window's start to the next (half a window)")
    cut.add_argument(
        "--beginning", action="store_true", help="hear the first window only, as the run's own test heard its clips"
    )
    add_machine(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)

    def work() -> int:
        from sousa_bench.predict.prediction import predict

        return predict(options)

    try:
        return exit_code(work)
    except BrokenPipeError:  # whoever reads has enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
