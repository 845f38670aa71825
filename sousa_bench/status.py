"""What each run of a sweep is doing: ``python -m sousa_bench.status [DIR]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sousa_bench.results.known import result_folders, true_status
from sousa_bench.results.manifest import MANIFEST_FILE, read_manifest
from sousa_bench.results.process import alive
from sousa_bench.results.result import RESULT_FILE, ResultError, read_progress, read_result
from sousa_bench.sweep.slurm.ended_jobs import settle

COLUMNS = ("#", "run", "status", "phase", "epoch", "val_acc", "time", "left")
LEFT_OUT = ("duplicate", "refused")


@dataclass(frozen=True)
class Row:
    """One run as the table shows it; empty where nothing is known.

    Attributes:
        index: Place in the sweep.
        name: Name of the run's folder.
        status: Result status, or ``dead`` (its process is gone), ``pending``, ``queued`` (in Slurm's queue), ``torn``.
        phase: Phase of a run that goes on.
        epoch: ``3/5``.
        val_acc: The latest known.
        seconds: Time so far, or that it took.
        left: Estimated seconds to its end.
        error: Why it isn't completed.
    """

    index: int
    name: str
    status: str
    phase: str = ""
    epoch: str = ""
    val_acc: float | None = None
    seconds: float | None = None
    left: float | None = None
    error: str | None = None


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
    sweep = latest_sweep(folder)
    if sweep is None and not any(True for _ in result_folders(folder)):
        print(f"{folder}: holds neither a sweep ({MANIFEST_FILE}) nor a result ({RESULT_FILE})", file=sys.stderr)
        return 2
    place = sweep or folder
    manifest = read_manifest(place)
    rows = sweep_rows(place, manifest) if manifest else loose_rows(place)
    print(headline(place, manifest, rows))
    print(table(rows))
    for row in rows:
        if row.error and row.status in ("failed", "timeout", "torn"):
            print(f"{row.name}: {row.error.splitlines()[0]}")
    return 0


def latest_sweep(folder: Path) -> Path | None:
    """``folder`` when it holds a manifest, else the sweep below it whose manifest changed last."""
    if (folder / MANIFEST_FILE).is_file():
        return folder
    found = [path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}/{MANIFEST_FILE}")]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def sweep_rows(folder: Path, manifest: dict[str, Any]) -> list[Row]:
    """A row for each job of the manifest."""
    on_slurm = settle(folder)
    rows = []
    for entry in manifest["jobs"]:
        if entry.get("status") not in LEFT_OUT:
            row = job_row(folder, entry)
            # A requeued job's record says interrupted, or running by a process that is gone, until it starts again.
            waits = entry["fingerprint"] in on_slurm and row.status in ("pending", "interrupted", "dead")
            rows.append(replace(row, status="queued") if waits else row)
    return rows


def loose_rows(folder: Path) -> list[Row]:
    """A row for each result below a folder without a manifest."""
    return [run_row(index, path) for index, path in enumerate(sorted(result_folders(folder)), 1)]


def job_row(folder: Path, entry: dict[str, Any]) -> Row:
    """The row of one job, whose result may lie in another sweep."""
    path = folder / str(entry.get("result") or entry.get("folder") or "")
    row = run_row(int(entry.get("index", 0)), path.parent if path.name == RESULT_FILE else path)
    if row.status == "pending" and entry.get("status") == "skipped":
        return Row(row.index, str(entry.get("name", row.name)), "skipped")
    return row


def run_row(index: int, folder: Path) -> Row:
    """The row of the run in ``folder``."""
    if not (folder / RESULT_FILE).exists():
        return Row(index, folder.name, "pending")
    try:
        result = read_result(folder)
    except ResultError as error:
        return Row(index, folder.name, "torn", error=str(error))
    status = true_status(result, folder)
    metrics = result.get("metrics") or {}
    if status not in ("running", "dead", "interrupted"):
        taken = (result.get("efficiency") or {}).get("training_time_seconds")
        epoch = str((result.get("efficiency") or {}).get("epochs") or "")
        return Row(index, folder.name, status, "", epoch, metrics.get("val_acc"), taken, error=result.get("error"))
    progress = read_progress(folder)
    epoch = f"{progress['epoch']}/{progress.get('max_epochs', '?')}" if progress.get("epoch") else ""
    seconds, left = times(result, progress, running=status == "running")
    return Row(
        index, folder.name, status, str(progress.get("phase", "")), epoch, progress.get("val_acc"), seconds, left
    )


def times(result: dict[str, Any], progress: dict[str, Any], *, running: bool) -> tuple[float | None, float | None]:
    """Seconds so far, and the estimated rest: as long per step as the steps so far took."""
    taken = progress.get("fit_seconds")
    if running and (started := _epoch_seconds(result.get("started"))):
        elapsed: float | None = time.time() - started
    else:
        elapsed = taken
    step, total = progress.get("step"), progress.get("total_steps")
    if not running or not taken or not step or not total:
        return elapsed, None
    since = max(0.0, time.time() - float(progress.get("updated", time.time())))
    return elapsed, max(0.0, float(taken) / step * (total - step) - since)


def headline(folder: Path, manifest: dict[str, Any], rows: Sequence[Row]) -> str:
    """The sweep, whether its process lives, and the counts."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    if not manifest:
        return f"{folder}: {words}"
    processes = manifest["processes"]
    if any(map(alive, processes)):
        state = "goes on"
    elif any(entry.get("slurm_job_id") for entry in manifest["jobs"]) and counts.keys() & {"running", "queued"}:
        state = f"goes on in Slurm; watch it with: {manifest.get('command', '')}"
    elif all(row.status == "completed" for row in rows):
        state = "has ended"
    else:
        state = f"{'was killed' if processes else 'has ended'}; go on with: {manifest.get('command', '')}"
    return f"{folder} ({len(rows)} runs: {words}) {state}"


def table(rows: Sequence[Row]) -> str:
    """The rows in columns."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    score = "" if row.val_acc is None else f"{row.val_acc:.4f}"
    return (
        str(row.index),
        row.name,
        row.status,
        row.phase,
        row.epoch,
        score,
        duration(row.seconds),
        duration(row.left),
    )


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``2:03``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _epoch_seconds(text: Any) -> float | None:
    try:
        return time.mktime(time.strptime(str(text), "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


if __name__ == "__main__":
    main()
