"""Measure what runs, sweeps, cache and predictions cost beside their arithmetic.

python -m sousa_bench.benchmark
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.system.arguments import command_parser, exit_code, positive

PARTS = ("overhead", "precision", "naive", "cache", "sweep", "inference", "methods")
MODELS = ("ast", "htsat", "beats", "efficientat")


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.benchmark",
        description="Overhead of runs over their arithmetic, bfloat16 beside float32, the naive pipeline beside ours, "
        "cache building beside bare decoding, a whole sweep, inference, and what each method costs; each measured side "
        "by side on this machine. KEY=VALUE are overrides of the training config, such as data=tiny "
        "data.root=/data/sousa.",
    )
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of the training config")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    made.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=", ".join(MODELS)
    )
    made.add_argument(
        "--methods",
        nargs="+",
        type=_choice,
        default=[],
        metavar="METHOD",
        help="for methods, beside head and full (all that take steps and fit the model)",
    )
    made.add_argument("--variant", default="tiny", help="of the models (tiny); official ones get random weights")
    made.add_argument(
        "--augmentation", nargs="+", choices=("on", "off"), default=["off"], help="for overhead and precision (off)"
    )
    made.add_argument(
        "--epochs", type=positive, default=3, help="of each measured run (3); the first one doesn't count"
    )
    made.add_argument("--repeats", type=positive, default=3, help="turns of both sides (3)")
    made.add_argument(
        "--naive-runs",
        type=_none_or_more,
        default=4,
        metavar="N",
        help="of the sweep, as naive processes, spread over it (4)",
    )
    made.add_argument(
        "--json", type=Path, help="where to write the figures (benchmark.json)", default=Path("benchmark.json")
    )
    return made


def _choice(text: str) -> str:
    if "=" in text:
        raise argparse.ArgumentTypeError(f"{text} is no name of a method; overrides stand before --methods")
    return text


def _none_or_more(text: str) -> int:
    return 0 if text == "0" else positive(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code is 0, or 2 with one message where a measurement can't be made."""
    options = parser().parse_args(arguments)

    def work() -> None:
        from sousa_bench.benchmark.parts import measure

        measure(options)

    return exit_code(work, refused=lambda _: 2)


if __name__ == "__main__":
    sys.exit(main())
