"""A local web page on which a trained model listens: record or upload, see what it is, waveform and spectrogram.

python -m sousa_bench.demo my_model
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.results.finished import refuse_absent
from sousa_bench.system.arguments import INTERRUPTED, add_run_choice, command_parser, exit_code


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.demo",
        description="Serve a web page on this machine: record or upload a clip, see its waveform, the spectrogram as "
        "the model hears it, what it is and how sure the model is. Nothing leaves the machine.",
    )
    made.add_argument("place", type=Path, metavar="PLACE", help="a package, a run's folder, or a sweep (its best run)")
    made.add_argument("--port", type=_port, help="port of this machine (the first free one from 7860 on)")
    made.add_argument(
        "--examples", nargs="+", type=Path, default=(), metavar="FILE", help="clips that the page offers to try (for "
        "SOUSA's rudiments some are synthesised)",
    )  # fmt: skip
    made.add_argument("--no-browser", action="store_true", help="don't open the page in the browser")
    made.add_argument(
        "--share", action="store_true", help="a public address through Gradio's servers: what is played goes there"
    )
    add_run_choice(made)
    return made


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65535")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 once it is stopped, or 1 with one message."""
    options = parser().parse_args(arguments)
    if importlib.util.find_spec("gradio") is None:
        print("error: the demo needs gradio: pip install 'sousa-bench[demo]'", file=sys.stderr)
        return 1

    def work() -> None:
        refuse_absent(options.place)
        from sousa_bench.demo.server import serve

        serve(
            options.place, port=options.port, share=options.share, browser=not options.no_browser,
            metric=options.metric, checkpoint=options.checkpoint, examples=options.examples,
        )  # fmt: skip

    code = exit_code(work)
    return 0 if code == INTERRUPTED else code  # Ctrl-C is how it ends


if __name__ == "__main__":
    sys.exit(main())
