"""What each run of a sweep is doing: ``python -m sousa_bench.status [DIR]``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sousa_bench.results.manifest import MANIFEST_FILE, read_manifest
from sousa_bench.results.result import RESULT_FILE
from sousa_bench.results.run_process import alive
from sousa_bench.results.run_state import RunState, run_state, sweep_states
from sousa_bench.results.scan import result_folders, sweep_folders
from sousa_bench.sweep.slurm.ended_jobs import settle
from sousa_bench.system.foreign import clean

SCORE = "val_acc"
COLUMNS = ("#", "run", "status", "phase", "epoch", SCORE, "time", "left")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m sousa_bench.status", description="What each run of a sweep is doing: running, finished or dead."
    )
    parser.add_argument(
        "folder", nargs="?", default="multirun", metavar="DIR", help="a sweep, or a folder with several: its latest"
    )
    options = parser.parse_args()
    sys.exit(show(Path(options.folder)))


def show(folder: Path) -> int:
    """Print the table of a sweep; 2 when there is none, else 0."""
    place = latest_sweep(folder) or folder
    if manifest := read_manifest(place):
        states = sweep_states(place, manifest, queued=settle(place))
    else:
        states = [run_state(path, index) for index, path in enumerate(sorted(result_folders(place)), 1)]
    if not states and not (place / MANIFEST_FILE).exists():
        print(f"{folder}: holds neither a sweep ({MANIFEST_FILE}) nor a result ({RESULT_FILE})", file=sys.stderr)
        return 2
    print(clean(headline(place, manifest, states)))
    print(clean(table(states)))
    for state in states:
        if state.error and state.status in ("failed", "timeout", "torn"):
            print(clean(f"{state.name}: {state.error.splitlines()[0]}"))
    return 0


def latest_sweep(folder: Path) -> Path | None:
    """``folder`` when it holds a manifest, else the sweep below it whose manifest changed last."""
    if (folder / MANIFEST_FILE).is_file():
        return folder
    return max(sweep_folders(folder), key=lambda path: (path / MANIFEST_FILE).stat().st_mtime, default=None)


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
        state = f"{'was killed' if processes else 'has ended'}; go on with: {manifest.get('command', '')}"
    return f"{folder} ({len(states)} runs: {text}) {state}"


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
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``2:03``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


if __name__ == "__main__":
    main()
