"""What each run of a sweep is doing: ``python -m sousa_bench.status [DIR]``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousa_bench.results.manifest import MANIFEST_FILE, read_manifest
from sousa_bench.results.result import RESULT_FILE
from sousa_bench.results.run_process import alive
from sousa_bench.results.run_state import RunState, run_state, sweep_states
from sousa_bench.results.scan import latest_place, latest_sweep, result_folders
from sousa_bench.sweep.slurm.ended_jobs import settle
from sousa_bench.system.arguments import command_parser, exit_code, number
from sousa_bench.system.files import is_there
from sousa_bench.system.foreign import clean
from sousa_bench.system.text_table import amount, duration, in_columns, redraw

SCORE = "val_acc"
COLUMNS = ("#", "run", "status", "phase", "epoch", SCORE, "time", "left")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 with one message where there is nothing to show."""
    parser = command_parser(
        "sousa_bench.status", description="What each run of a sweep is doing: running, finished or dead."
    )
    parser.add_argument(
        "folder", nargs="?", metavar="DIR", help="a sweep, or a folder with several: its latest (multirun, or outputs)"
    )
    parser.add_argument("--watch", action="store_true", help="look again and again, until no run goes on")
    parser.add_argument(
        "--interval",
        type=number(0.1, 86_400, "number of seconds"),
        default=2.0,
        metavar="SECONDS",
        help="between looks with --watch (2)",
    )
    options = parser.parse_args(arguments)
    folder = Path(options.folder) if options.folder else latest_place()
    return exit_code(lambda: watch(folder, options.interval) if options.watch else show(folder), refused=lambda _: 2)


def show(folder: Path) -> int:
    """Print the table of a sweep; 2 with a message when there is none, else 0."""
    found = look(folder)
    print(found.text if found else nothing_in(folder), file=sys.stdout if found else sys.stderr)
    return 0 if found else 2


def watch(folder: Path, interval: float) -> int:
    """Show the table until nothing in it goes on, on a terminal in place; 2 when there is none, else 0."""
    shown = ""
    while found := look(folder):
        if found.text != shown or not found.goes_on:
            redraw(shown := found.text)
        if not found.goes_on:
            return 0
        time.sleep(interval)
    return show(folder)


@dataclass(frozen=True)
class Look:
    """A sweep as it is now.

    Attributes:
        text: What is printed of it.
        goes_on: Whether a process, or Slurm, is at it.
    """

    text: str
    goes_on: bool


def look(folder: Path) -> Look | None:
    """What the runs of the latest sweep in a folder are doing; None where it holds neither a sweep nor a result."""
    place = latest_sweep(folder) or folder
    if manifest := read_manifest(place):
        states = sweep_states(place, manifest, queued=settle(place, manifest))
    else:
        states = [run_state(path, index) for index, path in enumerate(sorted(result_folders(place)), 1)]
    if not states and not is_there(place / MANIFEST_FILE):
        return None
    lines = [headline(place, manifest, states), table(states)]
    for state in states:
        if state.error and state.status in ("failed", "timeout", "torn"):
            lines.append(f"{state.name}: {state.error.splitlines()[0]}")
    goes_on = any(map(alive, manifest.get("processes", []))) or any(
        state.status in ("running", "queued") for state in states
    )
    return Look("\n".join(map(clean, lines)), goes_on)


def nothing_in(folder: Path) -> str:
    """What is said of a folder without a sweep or a result."""
    return f"{folder}: holds neither a sweep ({MANIFEST_FILE}) nor a result ({RESULT_FILE})"


def headline(folder: Path, manifest: dict[str, Any], states: Sequence[RunState]) -> str:
    """The sweep, whether its process lives, and the counts."""
    counts = Counter(state.status for state in states)
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    if not manifest:
        return f"{folder}: {text}"
    processes = manifest.get("processes", [])
    if any(map(alive, processes)):
        state = "goes on"
    elif any(job.get("slurm_job_id") for job in manifest["jobs"]) and counts.keys() & {"running", "queued"}:
        state = f"goes on in Slurm; watch it with: {manifest.get('command', '')}"
    elif counts.keys() <= {"completed"}:
        state = "has ended"
    else:
        how = "was killed" if processes else "was interrupted" if counts["interrupted"] else "has ended"
        state = f"{how}; go on with: {manifest.get('command', '')}"
    return f"{folder} ({amount(len(states), 'run')}: {text}) {state}"


def table(states: Sequence[RunState]) -> str:
    """The runs in columns."""
    metrics = dict.fromkeys(state.metric for state in states if state.score is not None)
    cells = [
        tuple(" ".join(metrics) or SCORE if name == SCORE else name for name in COLUMNS),
        *(
            (
                str(state.index),
                state.name,
                state.status,
                state.phase,
                state.epoch,
                "" if state.score is None else f"{state.score:.4f}",
                duration(state.seconds),
                duration(state.left),
            )
            for state in states
        ),
    ]
    return in_columns(cells)


if __name__ == "__main__":
    sys.exit(main())
