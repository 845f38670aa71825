"""Slurm jobs that ended while nobody watched them: why they did, and the records that they could not write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousa_bench.results.manifest import read_manifest
from sousa_bench.results.result import LOG_FILE, read_progress
from sousa_bench.results.scan import sweep_folders
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.verdict import Verdict
from sousa_bench.sweep.verdict import close as write_record
from sousa_bench.system.slurm_queue import ask_slurm, job_details, queue_places

FINAL = ("completed", "failed", "timeout")
SUBMITIT_FOLDER = ".submitit"
LAST_LINES = 40
# What Slurm's daemons write to the end of a step's stderr, and the state that it stands for; the first match counts.
SLURM_LINES = (
    (r"DUE TO TIME LIMIT", "TIMEOUT"),
    (r"(?i)oom.?kill|out of memory|exceeded .*memory limit|memory limit at some point", "OUT_OF_MEMORY"),
    (r"DUE TO PREEMPTION", "PREEMPTED"),
    (r"DUE TO NODE FAIL|NODE FAILURE", "NODE_FAIL"),
    (r"\*\*\* (STEP|JOB) .* CANCELLED AT (?!.*DUE TO JOB REQUEUE)", "CANCELLED"),
    (r"task \d+: Killed", "KILLED"),
    (r"task \d+: (Exited with exit code|[A-Z])", "FAILED"),
)
VAGUE = (None, "FAILED", "COMPLETED", "CANCELLED")
# State (KILLED: a step that a signal ended) → the result's status, and what is said of "Slurm job 12".
STATES = {
    "TIMEOUT": ("timeout", "{} reached Slurm's time limit (hydra.launcher.timeout_min, else timeout plus margin_min)"),
    "DEADLINE": ("timeout", "{} reached its deadline"),
    "OUT_OF_MEMORY": ("failed", "{} was killed for memory (ask for more: hydra.launcher.mem_gb)"),
    # A run that was only stopped goes on from its checkpoint.
    "CANCELLED": ("interrupted", "{} was cancelled"),
    "PREEMPTED": ("interrupted", "{} was preempted"),
    "NODE_FAIL": ("interrupted", "the node of {} failed"),
    "BOOT_FAIL": ("interrupted", "the node of {} did not start"),
    "KILLED": ("failed", "{} was killed by signal 9 (SIGKILL)"),
    "FAILED": ("failed", "{} failed"),
    "UNKNOWN": ("failed", "{} is gone, and neither its output nor Slurm says why"),
}


@dataclass(frozen=True)
class Reason:
    """Why a job ended.

    Attributes:
        job_id: Slurm's id.
        state: One of ``STATES``.
        line: What Slurm wrote about it to the job's stderr, or empty.
        tail: The last lines of the job's stderr.
    """

    job_id: str
    state: str
    line: str = ""
    tail: tuple[str, ...] = ()

    def verdict(self, phase: str) -> Verdict:
        """What it means for the run."""
        status, text = STATES.get(self.state, STATES["UNKNOWN"])
        error = text.format(f"Slurm job {self.job_id}") + (f": {self.line}" if self.line else "")
        cause = {"OUT_OF_MEMORY": "oom", "KILLED": "signal 9"}.get(self.state, f"slurm {self.state}")
        return Verdict.of(status, "SlurmJobEnded", error, phase=phase, cause=cause)


def submission(job: Job) -> Path:
    """The folder of what a run was submitted with, in the folder of the sweep that submitted it."""
    return job.folder.parent / SUBMITIT_FOLDER


def stop_file(job: Job, job_id: str) -> Path:
    """What tells the tasks of a run's array to start nothing more."""
    return submission(job) / f"{job_id.partition('_')[0]}.stop"


def reason_of(job_id: str, folder: Path) -> Reason:
    """Find out why a job ended: from the last lines of its step, in the folder, the controller, the accounting."""
    tail: list[str] = []
    with suppress(OSError):
        log = folder / f"{job_id}_0_log.err"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    state, line = read_slurm_lines(tail)
    told = ended_as(job_id)
    if told not in VAGUE or state is None:
        state = told if told != "COMPLETED" else None
    return Reason(job_id, state or "UNKNOWN", line, tuple(tail))


def ended_as(job_id: str) -> str | None:
    """The state in which a job ended, from the controller or the accounting; None when neither knows."""
    ends = (*STATES, "COMPLETED")
    if (state := job_details(job_id).get("JobState")) in ends:
        return state
    answer = ask_slurm("sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={job_id}")
    if answer is None or answer.returncode or not answer.stdout.strip():
        return None
    state = answer.stdout.split()[-1] if "CANCELLED" not in answer.stdout else "CANCELLED"
    return state if state in ends else None


def read_slurm_lines(tail: list[str]) -> tuple[str | None, str]:
    """State and line that Slurm's daemons wrote among the last lines of a step's stderr."""
    lines = [line for line in reversed(tail) if re.match(r"(slurmstepd|srun|slurmd)[^:]*: ", line)]
    for pattern, state in SLURM_LINES:
        if line := next((line for line in lines if re.search(pattern, line)), None):
            return state, line
    return None, ""


def runs_in_queue(root: Path) -> dict[str, tuple[str, Path]]:
    """Runs below ``root`` that Slurm still has, by fingerprint, with the job's id and the run's folder.

    The records of jobs that are gone are closed first.
    """
    found: dict[str, tuple[str, Path]] = {}
    for folder in sweep_folders(root):
        found |= settle(folder, read_manifest(folder))
    return found


def settle(folder: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[str, Path]]:
    """Close the records of a sweep's Slurm jobs that are gone.

    Args:
        folder: The sweep's.
        manifest: From :func:`sousa_bench.results.manifest.read_manifest`.

    Returns:
        The runs that Slurm still has in its queue, by fingerprint: the job's id and the run's folder.
    """
    open_runs: dict[str, tuple[str, Path]] = {}
    for entry in manifest.get("jobs", []):
        if not entry.get("slurm_job_id"):
            continue
        place = (folder / str(entry.get("folder", ""))).resolve()
        if record.read(place).get("status") not in FINAL:
            open_runs[entry["fingerprint"]] = str(entry["slurm_job_id"]), place
    places = queue_places(job_id for job_id, _ in open_runs.values())
    if places is None:  # Slurm can't be asked here: nothing is known, and nothing is written
        return {}
    for digest, (job_id, place) in open_runs.items():
        cause = (record.read(place).get("failure") or {}).get("cause")
        if job_id not in places and not str(cause).startswith("slurm"):
            with suppress(Exception):  # the job's pickle may be gone; its run then counts as never begun
                jobs = submitted_jobs(place.parent / SUBMITIT_FOLDER, job_id)
                close(next(job for job in jobs if job.fingerprint == digest), job_id)
    return {digest: run for digest, run in open_runs.items() if run[0] in places}


def close(job: Job, job_id: str) -> None:
    """Write the record of a run that a Slurm job which is gone could not write, unless it stands already.

    An interrupted run's record is completed with Slurm's reason. A run whose turn did not come before the job ended has
    no record: it is still to be done.
    """
    standing = record.read(job.folder)
    own = is_from(standing, job_id)
    status = standing.get("status") if own else None
    if status not in (None, "running", "interrupted"):
        return
    if not own and _began_another(job, job_id):
        return
    reason = reason_of(job_id, submission(job))
    verdict = reason.verdict(str(read_progress(job.folder).get("phase", "start")) if own else "start")
    if status == "interrupted":
        if verdict.status == "interrupted":  # the run said that it was stopped; Slurm knows why
            failure = {**(standing.get("failure") or {}), "cause": f"slurm {reason.state}"}
            error = f"{verdict.error}; {standing.get('error')}"
            record.finish(job, "interrupted", error=error, failure=failure)
        return
    process = {"host": None, "pid": None, "start_time": None, "slurm_job_id": job_id}
    tail = [*(last_output(job) if own else []), *reason.tail][-record.TAIL_LINES :]
    write_record(job, verdict, standing if own else None, tail=tail, process=process)


def is_from(standing: Mapping[str, Any], job_id: str) -> bool:
    """Whether a Slurm job wrote this record."""
    return (standing.get("process") or {}).get("slurm_job_id") == job_id


def _began_another(job: Job, job_id: str) -> bool:
    """Whether a run's Slurm job began any of its runs: a record by another, such as this one's, names no process."""
    with suppress(Exception):  # its pickle may be gone
        records = [record.read(each.folder) for each in submitted_jobs(submission(job), job_id)]
        return any(is_from(each, job_id) and each["process"].get("pid") is not None for each in records)
    return False


def last_output(job: Job) -> list[str]:
    """The lines of a run's output, or none."""
    with suppress(OSError):
        return (job.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def submitted_jobs(folder: Path, job_id: str) -> Sequence[Job]:
    """The runs that a Slurm job was submitted with, from the folder of the submission."""
    from submitit.core.utils import DelayedSubmission

    submitted: Any = DelayedSubmission.load(folder / f"{job_id}_submitted.pkl")
    runs: Sequence[Job] | Job = submitted.args[0]
    return [runs] if isinstance(runs, Job) else runs
