"""What became of a run: the verdict on a process or a Slurm job that ended, and the record that says so."""

from __future__ import annotations

import errno
import signal
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sousa_bench.errors import Interrupted, UserError, out_of_memory
from sousa_bench.results import stop_request
from sousa_bench.results.result import ERROR_FILE, RESULT_FILE
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job, Outcome, score, test_score
from sousa_bench.system.gpus import shares_gpu

if TYPE_CHECKING:
    from sousa_bench.sweep.supervised_process import Exit


@dataclass(frozen=True)
class Verdict:
    """Why a run isn't completed.

    Attributes:
        status: ``failed``, ``timeout`` or ``interrupted``.
        error: One line.
        failure: The result's ``failure`` block.
    """

    status: str
    error: str
    failure: dict[str, Any]

    @classmethod
    def of(cls, status: str, kind: str, error: str, *, phase: str, cause: str, message: str | None = None) -> Verdict:
        """A verdict whose ``failure`` block has all its keys; an interrupted run has no ``error.log``."""
        log = None if status == "interrupted" else ERROR_FILE
        message = error if message is None else message
        return cls(status, error, {"type": kind, "message": message, "phase": phase, "cause": cause, "log": log})

    @classmethod
    def of_error(cls, error: BaseException, phase: str) -> Verdict:
        """The verdict on a run that an exception ended."""
        kind = type(error).__name__
        text = f"{kind}: {error}" if str(error) else kind
        status, cause = "failed", cause_of(error)
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            status, cause = (
                "interrupted",
                stop_request.CAUSE if isinstance(error, stop_request.Pruned) else "interrupted",
            )
        elif cause == "oom" and shares_gpu():  # it may fit with fewer beside it, and its checkpoint stands
            status = "interrupted"
        return cls.of(status, kind, text, phase=phase, cause=cause, message=str(error))

    @classmethod
    def of_exit(cls, end: Exit, timeout: float | None) -> Verdict:
        """The verdict on a process that ended; the run's own word counts unless its time was up."""
        if end.stopped == "timeout":
            error = f"exceeded timeout of {timeout:g} seconds"
            return cls.of("timeout", "TimeoutError", error, phase=end.phase, cause="timeout")
        if end.end:
            unknown = cls.of("failed", "RuntimeError", "unknown", phase=end.phase, cause="exception").failure
            failure = dict(end.end.get("failure") or unknown)
            error = str(end.end.get("error") or failure["message"])
            status = end.end.get("status")
            if status == "completed":
                error = "finished, but its result could not be written"
            return cls("interrupted" if status == "interrupted" else "failed", error, failure)
        cause, words = _how_it_died(end)
        if end.stopped == "interrupt":
            error = "interrupted, and killed before it had saved its state" if end.killed else "interrupted"
            return cls.of("interrupted", "Interrupted", error, phase=end.phase, cause=cause)
        error = f"{f'rank {end.rank}: ' if end.rank else ''}{words} in phase {end.phase}"
        return cls.of("failed", "ProcessDied", error, phase=end.phase, cause=cause)


def cause_of(error: BaseException) -> str:
    """What lies behind an exception: ``oom``, ``disk full`` or just ``exception``."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return "disk full"
        link = link.__cause__ or link.__context__
    return "oom" if out_of_memory(error) else "exception"


def _how_it_died(end: Exit) -> tuple[str, str]:
    """Cause and description of a process that ended without a message."""
    if end.code >= 0:
        return f"exit code {end.code}", f"ended with exit code {end.code} without a message"
    cause, name, hint = f"signal {-end.code}", signal.Signals(-end.code).name, ""
    if end.code == -signal.SIGKILL and end.oom_kills:
        cause, hint = "oom", ": out of memory, the kernel's OOM killer ended it"
    elif end.code == -signal.SIGKILL:
        hint = " (by someone, or out of memory in a container that hides it)"
    elif name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"):
        hint = " (crashed in native code)"
    return cause, f"killed by signal {-end.code} ({name}){hint}"


def close(
    job: Job,
    verdict: Verdict,
    standing: Mapping[str, Any] | None,
    *,
    trace: str | None = None,
    tail: Sequence[str] = (),
    process: Mapping[str, Any] | None = None,
) -> str:
    """Write the record, and ``error.log`` beside it, of a run that could not do so itself.

    Args:
        job: The run.
        verdict: What became of it.
        standing: This attempt's own record, if it opened one.
        trace: Full traceback.
        tail: The last lines of its output.
        process: Who did the run, where that was not a process of this machine.

    Returns:
        The verdict's error, with the reason when the record could not be written.
    """
    error = verdict.error
    if not standing or (standing.get("status"), standing.get("error")) != (verdict.status, error):
        try:
            if not standing:
                record.save(job.folder, record.opening(job) | ({"process": process} if process else {}))
            record.finish(job, verdict.status, error=error, failure=verdict.failure)
        except (OSError, ValueError) as reason:
            error = f"{error} (and its record could not be written: {reason})"
    if verdict.status != "interrupted":
        record.write_error_log(job.folder, f"{verdict.status}: {verdict.error}", trace, tail)
    return error


def conclude(job: Job, end: Exit) -> Outcome:
    """Decide what became of a run, and make sure that its record says so.

    A completed record always stands, however the process ended after it was written.
    """
    standing = record.read(job.folder)
    own = (standing.get("process") or {}).get("pid") == end.pid
    if own and standing.get("status") == "completed":
        return Outcome(job, "completed", seconds=end.seconds, score=score(standing), test=test_score(standing))
    said_completed = end.end.get("recorded") and end.end.get("status") == "completed"
    if not standing and said_completed and (job.folder / RESULT_FILE).is_file():
        return Outcome(job, "completed", seconds=end.seconds)  # this process can't open it: out of descriptors
    verdict = Verdict.of_exit(end, job.timeout)
    error = close(job, verdict, standing if own else None, trace=end.end.get("traceback"), tail=end.tail)
    if verdict.failure["cause"] == "disk full":
        record.free_space(job.folder)
        record.drop_checkpoints(job.folder)
    pruned = stop_request.is_pruned({"status": verdict.status, "failure": verdict.failure})
    return Outcome(job, "pruned" if pruned else verdict.status, error, end.seconds)


def not_started(job: Job, error: Exception, seconds: float) -> Outcome:
    """Record that a run could not be started, or not be watched; one that can go on from a checkpoint still can."""
    found = Verdict.of_error(error, "start")
    trace = None if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    text = found.error
    if record.read(job.folder).get("status", "failed") == "failed":
        text = close(job, found, None, trace=trace)
    else:
        record.write_error_log(job.folder, f"failed: {found.error}", trace, [])
    return Outcome(job, "failed", text, max(seconds, 0.001))
