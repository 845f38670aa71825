"""Which process does a run, and whether it still lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sousa_bench.results.result import DEAD, read_progress
from sousa_bench.system.slurm_queue import queue_places

START_TOLERANCE = 2.5  # seconds; psutil derives a start time from the boot time, which the clock's corrections move
SILENT_AFTER = 900.0  # seconds without progress after which a process on another machine counts as gone


def identity(pid: int | None = None) -> dict[str, Any]:
    """What tells this process (or ``pid``) from any other, past and present, on any machine.

    Returns:
        ``host``, ``pid``, ``start_time`` (seconds since the epoch), ``boot`` (on Linux: the machine's boot and the
        ticks from it to the process's start, which no change of the clock moves; else None) and ``slurm_job_id`` (None
        outside Slurm).
    """
    pid = os.getpid() if pid is None else pid
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "start_time": start_time(pid),
        "boot": start_since_boot(pid),
        "slurm_job_id": slurm_job_id(),
    }


def slurm_job_id() -> str | None:
    """Slurm's id of the present job, with the array's index, or None."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def start_time(pid: int) -> float | None:
    """When process ``pid`` started (seconds since the epoch), or None when there is no such process."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def start_since_boot(pid: int) -> str | None:
    """Id of the machine's boot and the clock ticks from then to the start of process ``pid``; None but on Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot} {fields[19]}"  # the 22nd of proc(5); the first two are cut off


def true_status(result: Mapping[str, Any], folder: Path) -> str:
    """The recorded status of the run in ``folder``, or ``dead`` when the process that should be running it is gone."""
    status = str(result["status"])
    return DEAD if status == "running" and not alive(result.get("process"), folder) else status


def alive(process: Any, folder: Path | None = None) -> bool:
    """Whether the process that a result or a manifest names still does its run; False where it names none in earnest.

    On this machine the pid and its start time decide. Where the run is a Slurm job, Slurm is asked: one that was
    requeued has no process for a while. Else, on another machine, a progress file in ``folder`` that moved within the
    last quarter of an hour counts as life.
    """
    try:
        return isinstance(process, Mapping) and _alive(process, folder)
    except (TypeError, ValueError, OverflowError):
        return False


def _alive(process: Mapping[str, Any], folder: Path | None) -> bool:
    if not process.get("pid"):
        return False
    here = process.get("host") == socket.gethostname()
    if here and _lives(int(process["pid"]), process):
        return True
    if process.get("slurm_job_id") and process["slurm_job_id"] == slurm_job_id():
        return False  # this very job, which was requeued: Slurm has it, but that process is gone
    job_id = str(process.get("slurm_job_id") or "")
    if job_id and (places := queue_places([job_id])) is not None:
        return job_id in places
    if here:
        return False
    updated = read_progress(folder).get("updated") if folder else None
    return updated is not None and time.time() - float(updated) < SILENT_AFTER


def _lives(pid: int, process: Mapping[str, Any]) -> bool:
    started = start_time(pid)
    if started is None:
        return False
    if process.get("boot") and (boot := start_since_boot(pid)):
        return bool(process["boot"] == boot)
    recorded = process.get("start_time")  # a record of an earlier version, or not of Linux
    return recorded is None or abs(started - float(recorded)) < START_TOLERANCE
