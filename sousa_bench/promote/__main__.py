"""Take the best combinations of a sweep on: longer, on more data, with more seeds.

python -m sousa_bench.promote multirun/first --top 3 data=full trainer.max_epochs=50
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sousa_bench.system.arguments import command_parser, positive

EXAMPLES = """examples
  python -m sousa_bench.promote multirun/first --top 3 data=full trainer.max_epochs=50
  python -m sousa_bench.promote multirun/first --undecided --seeds 5
  python -m sousa_bench.promote multirun/first --top 1 --warm data=medium sweep=second
  python -m sousa_bench.promote multirun/first --distil model=efficientat model.variant=mn01 weights=official
  python -m sousa_bench.promote multirun/first --refit sweep=final
  python -m sousa_bench.promote multirun/first --print data=full hydra/launcher=slurm"""


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.promote",
        description="Start the best combinations of finished sweeps as the next sweep. Overrides (key=value, as for "
        "sousa_bench.train) say what is new about it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("words", nargs="+", metavar="DIR | key=value", help="sweeps to choose from, and overrides")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--top", type=positive, default=3, metavar="K", help="the best K combinations (3)")
    which.add_argument(
        "--undecided", action="store_true", help="the best one and all that the paired tests can't tell from it"
    )
    made.add_argument(
        "--metric",
        default="val_acc",
        help="validation metric that ranks, mean over seeds (val_acc; val_map where clips may have several labels)",
    )
    made.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE",
        help="choose among runs whose config key has this value, or one of VALUE,VALUE; repeatable",
    )  # fmt: skip
    made.add_argument("--seeds", type=positive, metavar="N", help="seeds 1 to N for each (3); or seed=7,8,9")
    which.add_argument(
        "--distil",
        action="store_true",
        help="the overrides are a student's, which learns from the best run on that run's clips",
    )
    which.add_argument(
        "--refit",
        action="store_true",
        help="train the best as it was, on training and validation clips (of folds: on all clips); it is not tested "
        "again, its scores are the earlier ones",
    )
    made.add_argument("--warm", action="store_true", help="go on from each combination's best trained weights")
    made.add_argument("--config-dir", metavar="DIR", help="a folder with choices of your own, as for sousa_bench.train")
    made.add_argument("--print", action="store_true", dest="only_print", help="print the command and start nothing")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 after ``--print``; 1 with one message where nothing can be promoted. Otherwise this process becomes the
        training command, whose exit code it has.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_intermixed_args(given)
    from sousa_bench.errors import UserError
    from sousa_bench.promote.selection import promotion
    from sousa_bench.system.foreign import clean, for_shell

    places = [Path(word) for word in options.words if "=" not in word or _is_folder(word)]
    overrides = [word for word in options.words if "=" in word and not _is_folder(word)]
    try:
        if not places:
            raise UserError("name the sweep to choose from, such as multirun/first")
        overrides, text = promotion(
            places,
            overrides,
            top=None if options.undecided else 1 if options.distil or options.refit else options.top,
            metric=options.metric,
            filters=options.filter,
            seeds=options.seeds,
            warm=options.warm,
            distil=options.distil,
            refit=options.refit,
            command=shlex.join(["python", "-m", "sousa_bench.promote", *(word for word in given if word != "--print")]),
            config_folder=Path(options.config_dir) if options.config_dir else None,
        )
    except UserError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 1
    folder = ["--config-dir", options.config_dir] if options.config_dir else []
    words = ["-m", "sousa_bench.train", *folder, "-m", *overrides]
    print(clean(text), file=sys.stderr)
    print(for_shell(["python", *words]), flush=True)
    if options.only_print:
        return 0
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 - a shell is what it does without


def _is_folder(word: str) -> bool:
    with suppress(OSError):  # too long for a file's name
        return Path(word).is_dir()
    return False


if __name__ == "__main__":
    sys.exit(main())
