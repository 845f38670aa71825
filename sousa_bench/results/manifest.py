"""``sweep.json``: which runs a sweep consists of, and where the result of each lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousa_bench.results.result import RESULT_FILE
from sousa_bench.results.run_process import alive
from sousa_bench.system.foreign import NUMBER, clean, odd_field, read_json

MANIFEST_FILE = "sweep.json"
STUDY_FILE = "study.db"  # Optuna's, beside the manifest of a search
MAX_COMMAND = 8000
JOB_TYPES = {
    **dict.fromkeys(("fingerprint", "name", "folder", "status", "result", "reason", "reads", "slurm_job_id"), str),
    "index": NUMBER,
    "overrides": list,
}


def relative(start: Path, path: Path) -> str:
    """``path`` as seen from ``start``, with forward slashes."""
    return Path(os.path.relpath(path, start)).as_posix()


def load_manifest(file: Path) -> dict[str, Any]:
    """A manifest's content: ``jobs``, a list of objects; ``processes`` is missing or a list.

    Raises:
        OSError: It is missing or can't be read.
        ValueError: It is no manifest.
    """
    content = read_json(file)
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise ValueError("'jobs' is no list of objects")
    if not isinstance(content.get("processes"), list):
        content.pop("processes", None)
    return dict(content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in ``folder`` with its proper jobs, which have a fingerprint; empty when none can be read."""
    try:
        content = load_manifest(folder / MANIFEST_FILE)
    except (OSError, ValueError):
        return {}
    if odd_field(content, {"name": str, "command": str, "created": str}):
        return {}
    jobs = [job for job in content["jobs"] if job.get("fingerprint") and not odd_field(job, JOB_TYPES)]
    return content | {"jobs": [{**job, "index": int(job.get("index") or 0)} for job in jobs]}


@dataclass(frozen=True)
class Planned:
    """One job of a manifest.

    Attributes:
        sweep: Name of the sweep.
        index: Number of the job within the sweep, from 1.
        fingerprint: The run's identity, or an empty string.
        overrides: The job's Hydra overrides.
        result: Where its result lies or will lie.
        decision: What the sweeper decided: ``pending``, ``reused``, ``refused``, ``skipped``.
        reason: Why a job was refused or skipped.
        reads: Its ``peft.reads``; None where its method has none, or the job was planned before there was that key.
        processes: The processes that may start it, as the manifest names them; None where it names none.
        command: The command that the sweep was started with, as the manifest says; foreign text, cut after one
            character more than ``MAX_COMMAND``.
    """

    sweep: str
    index: int
    fingerprint: str
    overrides: tuple[str, ...]
    result: Path
    decision: str = "pending"
    reason: str = ""
    reads: str | None = None
    processes: tuple[Any, ...] | None = None
    command: str = ""

    def may_start(self) -> bool:
        """Whether a living process may still start it; a manifest that names none is taken for one that goes on."""
        return self.processes is None or any(alive(process, self.result.parent) for process in self.processes)


def planned_jobs(file: Path, roots: Sequence[Path]) -> tuple[list[Planned], list[str]]:
    """The jobs of a manifest that lie inside ``roots``, duplicates left out, and a line for each thing passed over."""
    try:
        manifest = load_manifest(file)
    except (OSError, ValueError) as error:
        return [], [f"{file}: no readable manifest ({error}), passed over"]
    sweep = clean(str(manifest.get("name") or file.parent.name)[:MAX_COMMAND])
    command = clean(str(manifest.get("command") or "")[: MAX_COMMAND + 1])
    jobs: list[Planned] = []
    problems = []
    for number, job in enumerate(manifest["jobs"], start=1):
        decision = str(job.get("status") or "pending")
        if decision == "duplicate":
            continue
        pointer = job.get("result")
        if not isinstance(pointer, str) or not pointer:
            pointer = f"{job.get('folder') or '.'}/{RESULT_FILE}"
        try:
            result = (file.parent / pointer).resolve()
            inside = any(result.is_relative_to(root) for root in roots)
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            problems.append(
                f"{file}: job {number} points at {pointer!r}, outside of {' and '.join(map(str, roots))}; passed over "
                "(--results-root FOLDER allows a wider one)"
            )
            continue
        overrides, index, reads = job.get("overrides"), job.get("index"), job.get("reads")
        jobs.append(
            Planned(
                sweep=sweep,
                index=index if isinstance(index, int) else number,
                fingerprint=clean(str(job.get("fingerprint") or "")),
                overrides=tuple(clean(str(item)) for item in overrides) if isinstance(overrides, list) else (),
                result=result,
                decision=decision,
                reason=clean(str(job.get("reason") or "")),
                reads=clean(reads) if isinstance(reads, str) else None,
                processes=_processes(manifest, job),
                command=command,
            )
        )
    return jobs, problems


def _processes(manifest: dict[str, Any], job: dict[str, Any]) -> tuple[Any, ...] | None:
    """The commands that do the sweep (none: all are done with it), and the job's place in Slurm's queue."""
    if "processes" not in manifest:
        return None
    queued = {"host": None, "pid": 1, "slurm_job_id": job.get("slurm_job_id")}
    return (*manifest["processes"], queued) if queued["slurm_job_id"] else tuple(manifest["processes"])
