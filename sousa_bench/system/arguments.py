"""What the command lines have in common. Costs argparse alone."""

from __future__ import annotations

import argparse
import contextlib
import errno
import sys
from collections.abc import Callable
from typing import Any

from sousa_bench import __version__
from sousa_bench.errors import UserError
from sousa_bench.system.foreign import clean

INTERRUPTED = 130
VERSION = f"sousa_bench {__version__}"


def command_parser(command: str, **options: Any) -> argparse.ArgumentParser:
    """The parser of ``python -m command``, with ``--version``; ``options`` are ``ArgumentParser``'s."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", **options)
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def number(low: float, high: float, what: str) -> Callable[[str], float]:
    """A parser of numbers from ``low`` to ``high``; ``what`` names one in the message."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (value := float(text)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is no {what} from {low:g} to {high:g}")

    return parse


def add_run_choice(parser: argparse.ArgumentParser, chosen: str = "a sweep's best run") -> None:
    """Add ``--metric`` and ``--checkpoint``: which run, and where its base weights are."""
    parser.add_argument(
        "--metric", help=f"what chooses {chosen} (val_acc; val_map where clips may have several labels)"
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="the base weights, where they have moved since the training"
    )


def add_machine(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add ``--device`` and ``--threads``; the group, for more of the kind."""
    machine = parser.add_argument_group("the machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (auto)"
    )
    machine.add_argument("--threads", type=positive, metavar="N", help="CPU threads (as many as there are cores)")
    return machine


def exit_code(work: Callable[[], object], refused: Callable[[UserError], int] = lambda _: 1) -> int:
    """Do a command's work; a mistake of the user's is one message.

    Args:
        work: Returns the exit code, or anything else for 0.
        refused: The exit code of an error.
    """
    try:
        code = work()
    except UserError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return refused(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has enough
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        mistake = UserError(f"{clean(str(error.filename))[:200]}…: no file's name is that long")
        print(f"error: {mistake}", file=sys.stderr)
        return refused(mistake)
    return code if isinstance(code, int) else 0
