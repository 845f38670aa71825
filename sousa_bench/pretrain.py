"""Pretrain the tiny variants on synthetic clips, and pack what comes out: the weights behind ``weights=embedded``.

python -m sousa_bench.pretrain -m model=ast,htsat,beats,efficientat
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from sousa_bench.arguments import exit_code

EXPERIMENT = "experiment=pretraining"
HELP = ("-h", "--help")


def parser() -> argparse.ArgumentParser:
    """The command's own options; what it doesn't know goes to the training command."""
    made = argparse.ArgumentParser(
        prog="python -m sousa_bench.pretrain",
        usage="%(prog)s [--output DIR] [-m] [key=value …]",
        description="Train all weights of the models' tiny variants on the synthetic source domain, as runs of "
        "sousa_bench.train with experiment=pretraining: resumable, supervised, with a result file each. What comes out "
        "is packed for weights=embedded: without the head, in half precision, with a card.",
        epilog="Then: python -m sousa_bench.train weights=embedded model.checkpoint=DIR",
        add_help=False,
        allow_abbrev=False,
    )
    made.add_argument("-h", "--help", action="help", help="show this help and end")
    made.add_argument(
        "--output", type=Path, default=Path("pretrained"), metavar="DIR", help="where the weights go (pretrained)"
    )
    return made


def main() -> None:
    """Entry point: the training command's exit codes, or 1 where the packing fails."""
    options, words = parser().parse_known_args()
    given = shlex.join(["python", "-m", "sousa_bench.pretrain", *sys.argv[1:]])
    sys.argv[1:] = [*words, EXPERIMENT]
    from sousa_bench.train import train

    code, folders = train()
    packed = exit_code(lambda: _pack(folders, options.output, given))
    sys.exit(code or packed)


def _pack(folders: list[Path], output: Path, command: str) -> None:
    if not folders:
        return
    from sousa_bench.finished import finished_run
    from sousa_bench.pretraining import pack  # it imports torch

    for folder in folders:
        print(f"Packed: {pack(finished_run(folder), output, command)}", flush=True)


if __name__ == "__main__":
    main()
