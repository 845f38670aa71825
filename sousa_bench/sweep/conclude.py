"""What a run's end means: the supervisor's verdict, and the record where the run could not write it."""

from __future__ import annotations

import math
import signal
import traceback
from typing import Any

from sousa_bench.errors import UserError
from sousa_bench.results import pruning
from sousa_bench.results.result import ERROR_FILE, RESULT_FILE
from sousa_bench.sweep import attempt, record
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.watch import Exit


def conclude(job: Job, end: Exit) -> Outcome:
    """Decide what became of a run, and make sure that its record says so.

    A completed record always stands, however the process ended after it was written.
    """
    standing = record.read(job.folder)
    own = (standing.get("process") or {}).get("pid") == end.pid
    if own and standing.get("status") == "completed":
        return Outcome(job, "completed", seconds=end.seconds, score=score(standing))
    if not standing and end.end.get("recorded") and end.end.get("status") == "completed" and _stands(job):
        return Outcome(job, "completed", seconds=end.seconds)  # this process can't open it: out of descriptors
    status, error, failure = verdict(job, end)
    unwritten = None
    if not (own and standing.get("status") == status and standing.get("error") == error):
        unwritten = _write(job, status, error, failure, standing if own else {})
    if status != "interrupted":
        record.write_error_log(job.folder, f"{status}: {error}", end.end.get("traceback"), end.tail)
    if failure["cause"] == "disk full":
        record.free_space(job.folder)
        record.drop_checkpoints(job.folder)
    if unwritten:
        error = f"{error} (and its record could not be written: {unwritten})"
    return Outcome(job, outcome_status(status, failure), error, end.seconds)


def _stands(job: Job) -> bool:
    return (job.folder / RESULT_FILE).is_file()


def outcome_status(status: str, failure: dict[str, Any] | None) -> str:
    """A record's status as the screen and the exit code take it: ``pruned`` apart from ``interrupted``."""
    return "pruned" if pruning.is_pruned({"status": status, "failure": failure}) else status


def not_started(job: Job, error: Exception, seconds: float) -> Outcome:
    """Record that a run could not be started, or not be watched; one that can go on from a checkpoint still can."""
    words = f"{type(error).__name__}: {error}"
    failure = _failure(type(error).__name__, str(error), "start", attempt.cause(error))
    trace = None if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    lost = record.read(job.folder).get("status", "failed") == "failed"
    unwritten = _write(job, "failed", words, failure, {}) if lost else None
    record.write_error_log(job.folder, f"failed: {words}", trace, [])
    if unwritten:
        words = f"{words} (and its record could not be written: {unwritten})"
    return Outcome(job, "failed", words, max(seconds, 0.001))


def verdict(job: Job, end: Exit) -> tuple[str, str, dict[str, Any]]:
    """Status, one-line error and ``failure`` block of a run that isn't completed."""
    if end.stopped == "timeout":
        error = f"exceeded timeout of {job.timeout:g} seconds"
        return "timeout", error, _failure("TimeoutError", error, end.phase, "timeout")
    if end.end:
        failure = dict(end.end.get("failure") or _failure("RuntimeError", "unknown", end.phase, "exception"))
        error = str(end.end.get("error") or failure["message"])
        status = end.end.get("status")
        if status == "completed":
            error = "finished, but its result could not be written"
        return ("interrupted" if status == "interrupted" else "failed"), error, failure
    if end.stopped == "interrupt":
        error = "interrupted, and killed before it had saved its state" if end.killed else "interrupted"
        return "interrupted", error, _failure("Interrupted", error, end.phase, _cause(end))
    error = f"{f'rank {end.rank}: ' if end.rank else ''}{_words(end)} in phase {end.phase}"
    return "failed", error, _failure("ProcessDied", error, end.phase, _cause(end))


def score(result: dict[str, Any]) -> float:
    """``val_acc`` of a result, or NaN."""
    value = (result.get("metrics") or {}).get("val_acc")
    return math.nan if value is None else float(value)


def _write(job: Job, status: str, error: str, failure: dict[str, Any], standing: dict[str, Any]) -> str | None:
    """Write the record in the run's stead; return why it could not be written, or None."""
    try:
        if not standing:
            record.save(job.folder, record.opening(job))
        record.finish(job, status, error=error, failure=failure)
    except (OSError, ValueError) as reason:
        return str(reason)
    return None


def _failure(kind: str, message: str, phase: str, cause: str) -> dict[str, Any]:
    log = None if kind == "Interrupted" else ERROR_FILE
    return {"type": kind, "message": message, "phase": phase, "cause": cause, "log": log}


def _cause(end: Exit) -> str:
    if end.code >= 0:
        return f"exit code {end.code}"
    return "oom" if end.code == -signal.SIGKILL and end.oom_kills else f"signal {-end.code}"


def _words(end: Exit) -> str:
    if end.code >= 0:
        return f"ended with exit code {end.code} and without a word"
    name = signal.Signals(-end.code).name
    if end.code != -signal.SIGKILL:
        hint = " (crashed in native code)" if name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT") else ""
    elif end.oom_kills:
        hint = ": out of memory, the kernel's OOM killer ended it"
    else:
        hint = " (by someone, or out of memory in a container that hides it)"
    return f"killed by signal {-end.code} ({name}){hint}"
