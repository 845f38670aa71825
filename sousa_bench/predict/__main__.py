"""Say which class is heard in audio files.

python -m sousa_bench.predict multirun/2026-02-01/10-30-00 practice.wav
python -m sousa_bench.predict model=efficientat weights=official model.variant=mn04 street.wav
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.errors import ConfigError
from sousa_bench.results.result import RESULT_FILE
from sousa_bench.system.arguments import add_machine, add_run_choice, command_parser, exit_code, positive
from sousa_bench.system.files import is_there

USAGE = """%(prog)s [options] RUN FILE...
       %(prog)s [options] model=NAME [weights=official|further] [model.KEY=VALUE...] FILE...
       %(prog)s --check model=NAME weights=official [model.KEY=VALUE...]"""
OVERRIDE = re.compile(r"\+{0,2}(model|weights)(\.[\w.]+)?=")


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.predict",
        usage=USAGE,
        description="Say what is heard in audio files, of the classes that a run was trained on, or, before any "
        "training, of those that a file of weights brings (a published one AudioSet's): WAV, FLAC, OGG, MP3 and what "
        "else libsndfile reads, at any rate, mono or stereo, of any length. A recording longer than the training's "
        "clips is heard in overlapping windows: a timeline and an overall answer.",
        epilog="Exit code: 0; 1 where a file could not be read (the others still get their answer) or the run can't be "
        "opened; 2 for a wrong command line.",
    )
    made.add_argument(
        "words",
        nargs="+",
        metavar="RUN | model=NAME | FILE",
        help="a run's folder, a sweep (its best run) or a package; or a model before any training, by overrides "
        "(model=efficientat weights=official model.variant=mn04 model.checkpoint=FILE); then audio files, folders, or "
        "quoted patterns ('**/*.wav')",
    )
    add_run_choice(made)
    made.add_argument(
        "--check",
        action="store_true",
        help="let a published model hear three sounds made here, and compare with what is recorded for its file",
    )
    answer = made.add_argument_group("the answer")
    answer.add_argument("--top", type=positive, metavar="N", help="classes of each answer (5)")
    form = answer.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document in place of the table")
    form.add_argument("--csv", action="store_true", help="print CSV in place of the table, a line a file and class")
    cut = made.add_argument_group("long recordings")
    cut.add_argument("--window", type=float, metavar="SECONDS", help="length of a window (the training's clip length)")
    cut.add_argument("--hop", type=float, metavar="SECONDS", help="from one window's start to the next (half a window)")
    cut.add_argument(
        "--beginning",
        action="store_true",
        help="hear the first window only, as the run's own test heard its clips unless data.windows was set",
    )
    add_machine(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    made = parser()
    options = made.parse_intermixed_args(arguments)
    if wrong := _sort_words(options):
        made.error(wrong)

    def work() -> int:
        if options.check:
            from sousa_bench.predict.tag_check import check

            return check(options)
        from sousa_bench.predict.prediction import predict

        return predict(options)

    return exit_code(work, refused=lambda error: 2 if options.model and isinstance(error, ConfigError) else 1)


def _sort_words(options: argparse.Namespace) -> str | None:
    """Tell run, overrides of an untrained model and files apart, as ``run``, ``model`` and ``files``; what is wrong."""
    options.model = [word for word in options.words if OVERRIDE.match(word) and not is_there(Path(word))]
    rest = [word for word in options.words if word not in options.model]
    options.run = None if options.model or not rest else Path(rest.pop(0))
    options.files = rest
    if options.model:
        if several := [word for word in options.model if "," in word and word.lstrip("+").startswith("model=")]:
            return f"{several[0]}: one model at a time"
        for key, switch in (("metric", "--metric"), ("checkpoint", "--checkpoint")):
            if getattr(options, key) is not None:
                return f"{switch} is for a run; a model's file of weights is model.checkpoint=FILE"
    if not options.check and options.files:
        return None
    if not options.check:
        if options.run is not None and options.run.is_file() and options.run.name != RESULT_FILE:
            return f"{options.run} is a file: name what is to hear it first, a run's folder or model=NAME"
        return "name the audio files to listen to, or --check with a published model"
    if options.run is not None:
        return "--check is for a published model: model=NAME weights=official"
    if options.files:
        return f"--check brings its own sounds: leave out {' '.join(options.files)}"
    given = [key for key in ("window", "hop", "beginning", "json", "csv") if getattr(options, key)]
    return f"--check knows no --{given[0]}: its sounds are heard whole" if given else None


if __name__ == "__main__":
    sys.exit(main())
