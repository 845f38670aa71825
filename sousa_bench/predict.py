"""Say which rudiment is played in audio files.

python -m sousa_bench.predict multirun/2026-02-01/10-30-00 practice.wav
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = argparse.ArgumentParser(
        prog="python -m sousa_bench.predict",
        description="Say which rudiment is played in audio files: WAV, FLAC, OGG, MP3 and what else libsndfile reads, "
        "at any rate, mono or stereo, of any length. A recording longer than the training's clips is heard in "
        "overlapping windows: a timeline and an overall answer.",
        epilog="Exit code: 0; 1 where a file could not be read (the others still get their answer) or the run can't be "
        "opened; 2 for a wrong command line.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run's folder, a sweep (its best run), or a package")
    made.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders, or quoted patterns ('**/*.wav')")
    made.add_argument("--metric", default="val_acc", help="what chooses a sweep's best run (val_acc)")
    made.add_argument("--checkpoint", metavar="FILE", help="the base weights, where they have moved since the training")
    answer = made.add_argument_group("the answer")
    answer.add_argument("--top", type=_count, default=5, help="rudiments of each answer (5)")
    answer.add_argument("--json", action="store_true", help="print one JSON document in place of the table")
    cut = made.add_argument_group("long recordings")
    cut.add_argument("--window", type=float, metavar="SECONDS", help="length of a window (the training's clip length)")
    cut.add_argument("--hop", type=float, metavar="SECONDS", help="from one window's start to the next (half a window)")
    cut.add_argument(
        "--beginning", action="store_true", help="hear the first window only, as the run's own test heard its clips"
    )
    machine = made.add_argument_group("the machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (auto)"
    )
    machine.add_argument("--threads", type=_count, metavar="N", help="CPU threads (as many as there are cores)")
    return made


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    from sousa_bench.errors import UserError
    from sousa_bench.recordings.command import predict

    try:
        return predict(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
