"""Evaluate a finished run on any split of any dataset.

python -m sousa_bench.evaluate multirun/2026-02-01/10-30-00 data=small data.root=/data/sousa
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = argparse.ArgumentParser(
        prog="python -m sousa_bench.evaluate",
        description="Evaluate a finished run on any split of any dataset: metrics with intervals over players, a table "
        "by class, the confusion matrix, predictions, and a result file that sousa_bench.analyze takes.",
        epilog="Overrides of the data as in training: data=NAME takes that choice, data.KEY=VALUE changes a key of it "
        "or, without data=NAME, of the run's own data. Without any, the run's own data are used.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or a sweep (its best run)")
    made.add_argument("overrides", nargs="*", metavar="data…=…", help="other data, such as data=small data.root=FOLDER")
    made.add_argument("--metric", default="val_acc", help="what chooses a sweep's best run (val_acc)")
    made.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="test", help="which clips (test); all: every clip"
    )
    made.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with data choices of your own (DIR/data/)")
    made.add_argument("--checkpoint", metavar="FILE", help="the base weights, where they have moved since the training")
    write = made.add_argument_group("what is written")
    write.add_argument("--output-dir", type=Path, metavar="DIR", help="where to write (outputs/evaluate/…)")
    write.add_argument("--no-images", action="store_true", help="no PNG file, which needs Chromium")
    machine = made.add_argument_group("the machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (auto)"
    )
    machine.add_argument("--threads", type=_count, metavar="N", help="CPU threads (as many as there are cores)")
    machine.add_argument(
        "--precision",
        choices=("auto", "32-true", "bf16-mixed"),
        default="auto",
        help="auto: that of the run's own test",
    )
    return made


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 with one message, or 2 for a config that can't be."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_intermixed_args(words)
    from sousa_bench.errors import ConfigError, UserError
    from sousa_bench.evaluation.command import evaluate

    try:
        evaluate(options, words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
