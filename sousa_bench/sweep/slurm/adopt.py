"""Takes over what Slurm jobs did while nobody watched them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousa_bench.results.manifest import MANIFEST_FILE, read_manifest
from sousa_bench.results.result import read_progress
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.slurm import queue
from sousa_bench.sweep.slurm.reason import SUBMITIT_FOLDER, Reason, why

FINAL = ("completed", "failed", "timeout")


@dataclass(frozen=True)
class Waiting:
    """A run that Slurm has in its queue, waiting or running.

    Attributes:
        job_id: Slurm's id.
        folder: The run's folder.
    """

    job_id: str
    folder: Path


def waiting(root: Path) -> dict[str, Waiting]:
    """Runs below ``root`` that Slurm still has, by fingerprint; the records of jobs that are gone are closed first."""
    found: dict[str, Waiting] = {}
    for folder in _sweeps(root):
        found |= settle(folder)
    return found


def settle(folder: Path) -> dict[str, Waiting]:
    """Close the records of a sweep's Slurm jobs that are gone.

    Returns:
        The runs that Slurm still has in its queue, by fingerprint.
    """
    entries = [entry for entry in read_manifest(folder).get("jobs", []) if entry.get("slurm_job_id")]
    entries = [entry for entry in entries if record.read(_place(folder, entry)).get("status") not in FINAL]
    places = queue.places(entry["slurm_job_id"] for entry in entries)
    if places is None:  # Slurm can't be asked here: nothing is known, and nothing is written
        return {}
    found: dict[str, Waiting] = {}
    for entry in entries:
        job_id, place = str(entry["slurm_job_id"]), _place(folder, entry)
        if job_id in places:
            found[entry["fingerprint"]] = Waiting(job_id, place)
        elif not _cause(record.read(place)).startswith("slurm"):
            with suppress(Exception):  # the job's pickle may be gone; its run then counts as never begun
                close(submitted_job(folder, job_id), folder, job_id)
    return found


def close(job: Job, sweep_folder: Path, job_id: str) -> Reason | None:
    """Write the record that a Slurm job which is gone could not write; None when it stands already.

    An interrupted run's record is completed with Slurm's reason.
    """
    standing = record.read(job.folder)
    own = (standing.get("process") or {}).get("slurm_job_id") == job_id
    interrupted = own and standing.get("status") == "interrupted"
    if own and standing.get("status") != "running" and not interrupted:
        return None
    reason = why(job_id, sweep_folder)
    if interrupted:
        if reason.status == "interrupted":  # the run said that it was stopped; Slurm knows why
            failure = {**(standing.get("failure") or {}), "cause": f"slurm {reason.state}"}
            record.finish(job, "interrupted", error=f"{reason.error}; {standing.get('error')}", failure=failure)
        return None
    phase = str(read_progress(job.folder).get("phase", "start")) if own else "start"
    if not own:
        job.folder.mkdir(parents=True, exist_ok=True)
        process = {"host": None, "pid": None, "start_time": None, "slurm_job_id": job_id}
        record.save(job.folder, {**record.opening(job), "process": process})
    record.finish(job, reason.status, error=reason.error, failure=reason.failure(phase))
    if reason.status != "interrupted":
        record.write_error_log(job.folder, f"{reason.status}: {reason.error}", None, _output(job, own, reason))
    return reason


def submitted_job(sweep_folder: Path, job_id: str) -> Job:
    """The run that a Slurm job was submitted with."""
    from submitit.core.utils import DelayedSubmission

    submission = DelayedSubmission.load(sweep_folder / SUBMITIT_FOLDER / f"{job_id}_submitted.pkl")
    job: Job = submission.args[0]
    return job


def _output(job: Job, begun: bool, reason: Reason) -> list[str]:
    lines: list[str] = []
    if begun:
        with suppress(OSError):
            lines = (job.folder / "run.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return [*lines, *reason.tail][-record.TAIL_LINES :]


def _cause(result: dict[str, Any]) -> str:
    return str((result.get("failure") or {}).get("cause") or "")


def _place(folder: Path, entry: dict[str, Any]) -> Path:
    return (folder / str(entry.get("folder", ""))).resolve()


def _sweeps(root: Path) -> Iterator[Path]:
    """Folders below ``root`` whose manifest names Slurm jobs."""
    for depth in ("*", "*/*", "*/*/*"):
        for path in root.glob(f"{depth}/{MANIFEST_FILE}"):
            with suppress(OSError):
                if '"slurm_job_id"' in path.read_text(encoding="utf-8", errors="replace"):
                    yield path.parent
