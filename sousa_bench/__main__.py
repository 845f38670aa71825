"""The commands, a line each: ``python -m sousa_bench``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sousa_bench.system.arguments import command_parser

COMMANDS = {
    "train": "train one combination, or with -m a sweep of many",
    "status": "what each run of a sweep is doing",
    "analyze": "compare runs: which is best, by how much, how sure, what to run next",
    "promote": "the best combinations of a sweep as the next sweep",
    "evaluate": "a finished run on other clips",
    "predict": "what is heard in audio files",
    "export": "a run as a folder that needs no sousa_bench",
    "demo": "a web page that listens",
    "models": "which models there are, what each costs, and what of them lies on this disk",
    "data": "what data hold, and what difference a test on them could find",
    "data.synthetic": "write clips of the synthetic drummer",
    "pretrain": "the small variants' own weights, or published ones trained further",
    "benchmark": "what runs cost beside their bare arithmetic",
}
"""Each command and what it is for; ``sousa-bench-NAME`` is the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the commands; 0, or 2 with one message where one of them was meant."""
    width = max(map(len, COMMANDS))
    lines = [f"  python -m sousa_bench.{name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    parser = command_parser(
        "sousa_bench",
        usage="python -m sousa_bench.COMMAND [--help] …",
        description="\n".join(["Compare pretrained audio models under parameter-efficient fine-tuning.", "", *lines]),
        epilog="Each has --help, and is a script as well: sousa-bench-train, sousa-bench-status, …",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = given if given and not given[0].startswith("-") else parser.parse_known_args(given)[0].words
    if words and words[0] in COMMANDS:
        parser.error(f"write python -m sousa_bench.{words[0]}, with a dot")
    if words:
        parser.error(f"there is no command {words[0]}: {', '.join(COMMANDS)}")
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
