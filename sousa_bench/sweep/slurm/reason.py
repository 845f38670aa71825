"""Why a Slurm job ended, from what it left behind: the last lines of its step, the controller, the accounting."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousa_bench.results.result import ERROR_FILE
from sousa_bench.sweep.slurm import queue

SUBMITIT_FOLDER = ".submitit"
LAST_LINES = 40
# What Slurm's daemons write to the end of a step's stderr, and the state that it stands for; the first match counts.
WORDS = (
    (r"DUE TO TIME LIMIT", "TIMEOUT"),
    (r"oom.?kill|out of memory|exceeded .*memory limit|memory limit at some point", "OUT_OF_MEMORY"),
    (r"DUE TO PREEMPTION", "PREEMPTED"),
    (r"DUE TO NODE FAIL|NODE FAILURE", "NODE_FAIL"),
    (r"\*\*\* (STEP|JOB) .* CANCELLED AT (?!.*DUE TO JOB REQUEUE)", "CANCELLED"),
    (r"task \d+: Killed", "KILLED"),
    (r"task \d+: (Exited with exit code|[A-Z])", "FAILED"),
)
VAGUE = (None, "FAILED", "COMPLETED", "CANCELLED")


@dataclass(frozen=True)
class Reason:
    """Why a job ended.

    Attributes:
        job_id: Slurm's id.
        state: Slurm's word for it (``KILLED`` for a step that a signal ended), or ``UNKNOWN``.
        line: What Slurm wrote about it to the job's stderr, or empty.
        tail: The last lines of the job's stderr.
    """

    job_id: str
    state: str
    line: str = ""
    tail: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """The result status that it means; a run that was only stopped goes on from its checkpoint."""
        if self.state in ("TIMEOUT", "DEADLINE"):
            return "timeout"
        return "interrupted" if self.state in ("CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL") else "failed"

    @property
    def error(self) -> str:
        """One line for the record."""
        job = f"Slurm job {self.job_id}"
        text = {
            "TIMEOUT": f"{job} reached Slurm's time limit (hydra.launcher.timeout_min, else timeout plus margin_min)",
            "DEADLINE": f"{job} reached its deadline",
            "OUT_OF_MEMORY": f"{job} was killed for memory (ask for more: hydra.launcher.mem_gb)",
            "CANCELLED": f"{job} was cancelled",
            "PREEMPTED": f"{job} was preempted",
            "NODE_FAIL": f"the node of {job} failed",
            "BOOT_FAIL": f"the node of {job} did not start",
            "KILLED": f"{job} was killed by signal 9 (SIGKILL)",
            "FAILED": f"{job} failed",
        }.get(self.state, f"{job} is gone, and neither its output nor Slurm says why")
        return f"{text}: {self.line}" if self.line else text

    def failure(self, phase: str) -> dict[str, Any]:
        """The result's ``failure`` block."""
        cause = {"OUT_OF_MEMORY": "oom", "KILLED": "signal 9"}.get(self.state, f"slurm {self.state}")
        return {"type": "SlurmJobEnded", "message": self.error, "phase": phase, "cause": cause, "log": ERROR_FILE}


def why(job_id: str, sweep_folder: Path) -> Reason:
    """Find out why a job ended."""
    tail = last_lines(log_file(job_id, sweep_folder))
    state, line = read_words(tail)
    told = queue.ended_as(job_id)
    if told not in VAGUE or state is None:
        state = told if told != "COMPLETED" else None
    return Reason(job_id, state or "UNKNOWN", line, tuple(tail))


def read_words(tail: list[str]) -> tuple[str | None, str]:
    """State and line that Slurm's daemons wrote among the last lines of a step's stderr."""
    spoken = [line for line in tail if re.match(r"(slurmstepd|srun|slurmd)[^:]*: ", line)]
    for pattern, state in WORDS:
        for line in reversed(spoken):
            if re.search(pattern, line, re.IGNORECASE if state == "OUT_OF_MEMORY" else 0):
                return state, line
    return None, ""


def log_file(job_id: str, sweep_folder: Path) -> Path:
    """The stderr of a job's step."""
    return sweep_folder / SUBMITIT_FOLDER / f"{job_id}_0_log.err"


def last_lines(path: Path) -> list[str]:
    """The last lines of a text file, or none."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return []
