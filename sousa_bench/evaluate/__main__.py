"""Evaluate a finished run on any split of any dataset.

python -m sousa_bench.evaluate multirun/2026-02-01/10-30-00 data=small data.root=/data/sousa
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.errors import ConfigError
from sousa_bench.results.finished import refuse_absent
from sousa_bench.system.arguments import add_machine, add_run_choice, command_parser, exit_code


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.evaluate",
        description="Evaluate a finished run on any split of any dataset: metrics with intervals, a table "
        "by class, the confusion matrix, predictions, and a result file that sousa_bench.analyze takes.",
        epilog="Overrides of the data as in training: data=NAME takes that choice, data.KEY=VALUE changes a key of it "
        "or, without data=NAME, of the run's own data. Without any, the run's own data are used.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or a sweep (its best run)")
    made.add_argument("overrides", nargs="*", metavar="data…=…", help="other data, such as data=small data.root=FOLDER")
    add_run_choice(made)
    made.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="test", help="which clips (test); all: every clip"
    )
    made.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with data choices of your own (DIR/data/)")
    write = made.add_argument_group("what is written")
    write.add_argument("--output-dir", type=Path, metavar="DIR", help="where to write (outputs/evaluate/…)")
    write.add_argument("--no-images", action="store_true", help="no PNG file, which needs Chromium")
    machine = add_machine(made)
    machine.add_argument(
        "--precision",
        choices=("auto", "32-true", "bf16-mixed"),
        default="auto",
        help="auto: that of the run's own test",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 with one message, or 2 for a config that can't be."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_intermixed_args(words)

    def work() -> None:
        refuse_absent(options.run)
        from sousa_bench.evaluate.evaluation import evaluate

        evaluate(options, words)

    return exit_code(work, refused=lambda error: 2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    sys.exit(main())
