"""A trained run as one folder that needs no sousa_bench: weights, ONNX, labels, facts, model card.

python -m sousa_bench.export multirun/2026-02-01 my_model
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.results.finished import refuse_absent
from sousa_bench.system.arguments import add_run_choice, command_parser, exit_code

EXTRA = ("onnx", "onnxscript", "onnxruntime")


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.export",
        description="Write a run (of a sweep the best one) as a package: merged weights, an ONNX graph of waveform → "
        "logits that is checked against PyTorch, labels, preprocessing, a model card.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or a sweep: its best run by --metric")
    made.add_argument("destination", type=Path, metavar="DEST", help="the package's folder, which must not exist")
    add_run_choice(made)
    made.add_argument(
        "--int8", action="store_true",
        help="int8 weights in the graph, a quarter of their bytes; refused where the run's own test clips show "
        "that they cost more than 1 point",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help="replace an older package in DEST")
    hub = made.add_argument_group("publish")
    hub.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload the package to this repository of the hub")
    hub.add_argument("--private", action="store_true", help="make the repository private where it is new")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 1 with one message."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: export needs {', '.join(missing)}: pip install 'sousa-bench[export]'", file=sys.stderr)
        return 1
    command = shlex.join(["python", "-m", "sousa_bench.export", *given])
    return exit_code(lambda: _export(options, command))


def _export(options: argparse.Namespace, command: str) -> None:
    refuse_absent(options.run)
    from sousa_bench.export import upload as hub

    if options.push_to_hub:
        hub.check_access(options.push_to_hub)  # before minutes of work
    from sousa_bench.export.package import export  # and before the seconds that torch takes

    folder = export(
        options.run, options.destination, command=command, metric=options.metric, checkpoint=options.checkpoint,
        int8=options.int8, force=options.force, say=lambda text: print(text, flush=True),
    )  # fmt: skip
    print(f"package: {folder}")
    if options.push_to_hub:
        print(f"published: {hub.push(folder, options.push_to_hub, private=options.private)}")


if __name__ == "__main__":
    sys.exit(main())
