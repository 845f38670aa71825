"""Compare the runs below some folders: table, report, plots, statistics, and what to run next.

python -m sousa_bench.analyze
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.system.arguments import command_parser, exit_code, number, positive


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.analyze",
        description="Compare runs: which combination is best, by how much, how sure, at what cost, what to run next. "
        "Reads result files only, also while the sweep still runs.",
    )
    made.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="sweep, date or flat folders; multirun for all sweeps (the latest one below multirun)",
    )
    choose = made.add_argument_group("which runs")
    choose.add_argument("--filter-models", nargs="+", metavar="MODEL", help="only these models")
    choose.add_argument("--filter-strategies", nargs="+", metavar="PEFT", help="only these PEFT strategies")
    choose.add_argument("--filter-augmentation", choices=("true", "false"), help="only with, or only without")
    choose.add_argument("--filter-status", nargs="+", metavar="STATUS", help="completed, failed, timeout, …")
    choose.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE",
        help="only runs whose config key has this value, or one of VALUE,VALUE; repeatable",
    )  # fmt: skip
    choose.add_argument(
        "--results-root", type=Path, help="folder that a manifest's pointers must stay in (multirun and outputs)"
    )
    judge = made.add_argument_group("how they are judged")
    judge.add_argument(
        "--metric",
        default="test_acc",
        help="column that ranks (test_acc; test_map where clips may have several labels)",
    )
    judge.add_argument(
        "--margin",
        type=number(0.01, 100, "number of percentage points"),
        default=2.0,
        metavar="POINTS",
        help="how far apart two may be to be equally good (2)",
    )
    judge.add_argument(
        "--min-accuracy", type=number(0, 1, "accuracy"), default=0.5, help="floor for 'most parameter-efficient' (0.5)"
    )
    judge.add_argument("--top", type=positive, default=5, help="length of the best lists (5)")
    write = made.add_argument_group("what is written")
    write.add_argument("--output-dir", type=Path, help="where to write (DIR/analysis)")
    write.add_argument("--no-plots", action="store_true", help="neither PNG files nor report.html")
    write.add_argument("--no-images", action="store_true", help="report.html, but no PNG files")
    write.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="the folder of the clips, whose sound the page then holds where all mishear them",
    )  # fmt: skip
    write.add_argument(
        "--format", choices=("table", "markdown", "csv", "json"), default="table", help="of what is printed (table)"
    )
    write.add_argument(
        "--section", action="append", default=[], metavar="MODULE:FUNCTION",
        help="add a section of your own to the report: a function of an importable module; repeatable",
    )  # fmt: skip
    write.add_argument(
        "--watch", action="store_true", help="refresh table and page while runs arrive, until no more come"
    )
    write.add_argument(
        "--interval",
        type=number(0.1, 86_400, "number of seconds"),
        default=10.0,
        help="seconds between looks with --watch (10)",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 1 with one message where nothing is found or left."""
    options = parser().parse_args(arguments)
    # Read when numpy is imported: the products here are small, and a second thread would only spin on them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    def work() -> None:
        from sousa_bench.analysis.pipeline import analyze, watch

        (watch if options.watch else analyze)(options)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
