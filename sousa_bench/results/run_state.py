"""What a run is doing, as its files tell."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import DEAD, RESULT_FILE, ResultError, is_refit, read_progress, read_result
from sousa_bench.results.run_process import true_status


@dataclass(frozen=True)
class RunState:
    """A run; None and empty texts stand for what is not known.

    Attributes:
        index: Place in the sweep.
        name: Name of the run's folder.
        status: Result status, or ``dead`` (its process is gone), ``pending``, ``queued`` (in Slurm's queue),
            ``skipped``, ``torn``.
        phase: Phase of a run that goes on.
        epoch: ``3/5``.
        metric: What ranks: ``val_acc``, or ``val_map`` where clips may have several labels.
        score: The latest of it; None of a refit, which has none of its own.
        seconds: Time so far, or that it took.
        left: Estimated seconds to its end.
        error: Why it isn't completed.
    """

    index: int
    name: str
    status: str
    phase: str = ""
    epoch: str = ""
    metric: str = "val_acc"
    score: float | None = None
    seconds: float | None = None
    left: float | None = None
    error: str | None = None


def sweep_states(folder: Path, manifest: dict[str, Any], queued: Collection[str]) -> list[RunState]:
    """The runs of a sweep.

    Args:
        folder: The sweep's.
        manifest: From :func:`sousa_bench.results.manifest.read_manifest`.
        queued: Fingerprints of the runs that Slurm has in its queue.
    """
    states = []
    for job in manifest["jobs"]:
        if job.get("status") in ("duplicate", "refused"):
            continue
        path = folder / str(job.get("result") or job.get("folder") or "")  # the result may lie in another sweep
        state = run_state(path.parent if path.name == RESULT_FILE else path, int(job.get("index", 0)))
        if state.status == "pending" and job.get("status") == "skipped":
            state = RunState(state.index, str(job.get("name", state.name)), "skipped")
        # A requeued job's record says interrupted, or running by a process that is gone, until it starts again.
        if job["fingerprint"] in queued and state.status in ("pending", "interrupted", DEAD):
            state = replace(state, status="queued")
        states.append(state)
    return states


def run_state(folder: Path, index: int) -> RunState:
    """The run in ``folder``."""
    if not (folder / RESULT_FILE).exists():
        return RunState(index, folder.name, "pending")
    try:
        result = read_result(folder)
    except ResultError as error:
        return RunState(index, folder.name, "torn", error=str(error))
    status = true_status(result, folder)
    if status not in ("running", "interrupted", DEAD):
        efficiency, metrics = result.get("efficiency") or {}, result.get("metrics") or {}
        return RunState(
            index,
            folder.name,
            status,
            epoch=str(efficiency.get("epochs") or ""),
            metric=ranking(metrics),
            score=None if is_refit(result) else metrics.get(ranking(metrics)),
            seconds=efficiency.get("training_time_seconds"),
            error=result.get("error"),
        )
    progress = read_progress(folder)
    running = status == "running"
    return RunState(
        index,
        folder.name,
        status,
        phase=str(progress.get("phase", "")),
        epoch=f"{progress['epoch']}/{progress.get('max_epochs', '?')}" if progress.get("epoch") else "",
        metric=ranking(progress),
        score=progress.get(ranking(progress)),
        seconds=(_seconds_since(result.get("started")) if running else None) or progress.get("fit_seconds"),
        left=_seconds_left(progress) if running else None,
    )


def _seconds_since(text: Any) -> float | None:
    try:
        return time.time() - datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None


def _seconds_left(progress: dict[str, Any]) -> float | None:
    """Seconds to the end of the training, if each step takes as long as those so far."""
    taken, step, total = progress.get("fit_seconds"), progress.get("step"), progress.get("total_steps")
    if not taken or not step or not total:
        return None
    since = max(0.0, time.time() - float(progress.get("updated", time.time())))
    return max(0.0, float(taken) / step * (total - step) - since)
