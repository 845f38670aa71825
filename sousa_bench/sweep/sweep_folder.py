"""A sweep's folder: its name, the manifest ``sweep.json`` in it, and its end when nothing was started."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sousa_bench.errors import ConfigError
from sousa_bench.results.locks import folder_lock
from sousa_bench.results.manifest import MANIFEST_FILE, read_manifest, relative
from sousa_bench.results.process import alive, identity
from sousa_bench.results.result import RESULT_FILE, write_json
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.output import say

SCHEMA_VERSION = 1


def claim_folder(root: Path, name: str | None) -> Path:
    """The folder of a sweep: ``root/name``, or one by date and time that no other sweep has.

    Raises:
        ConfigError: ``name`` is no relative path below the root.
    """
    if name:
        if Path(name).is_absolute() or not re.fullmatch(r"[\w.,=+@-]+(/[\w.,=+@-]+)*", name) or ".." in name:
            raise ConfigError(
                f"sweep={name}: a sweep's name is a folder below {root.name}/; "
                "it can hold letters, digits, '.', '-', '_' and '/'"
            )
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    now = datetime.now()
    day = root / f"{now:%Y-%m-%d}"
    day.mkdir(parents=True, exist_ok=True)
    for count in range(1, 10_000):
        folder = day / (f"{now:%H-%M-%S}" if count == 1 else f"{now:%H-%M-%S}_{count}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another sweep began in the same second
            continue
    raise ConfigError(f"{day}: no free folder for a sweep at {now:%H:%M:%S}; name it with sweep=NAME")


def write_manifest(
    folder: Path,
    jobs: Sequence[Job],
    *,
    name: str,
    command: str,
    facts: dict[str, Any],
    ended: bool = False,
    numbered: bool = False,
) -> Path:
    """Write the plan of a sweep.

    Jobs that an earlier or a simultaneous command put into the same folder, and that this one doesn't name, stay
    listed after this sweep's own, marked ``earlier``. ``processes`` names the commands that do the sweep: one that is
    listed and gone was killed.

    Args:
        folder: The sweep's.
        jobs: Its jobs.
        name: Its name.
        command: The command that goes on with it.
        facts: Its switches.
        ended: Whether this command is done with it.
        numbered: Whether all jobs in the folder have places in one numbering, as a search's batches have.

    Returns:
        Path of ``sweep.json``.
    """
    with folder_lock(folder):
        path = folder / MANIFEST_FILE
        old = read_manifest(folder)
        if not old and path.exists():
            path.replace(bad := path.with_name(f"{MANIFEST_FILE}.bad"))
            say(f"Warning: {path} can't be read; it is kept as {bad.name}, and a new one is written")
        entries = [job_entry(folder, job) for job in jobs]
        own = {entry["fingerprint"] for entry in entries}
        earlier = [{**entry, "earlier": True} for entry in old.get("jobs", []) if entry["fingerprint"] not in own]
        if not numbered:
            for index, entry in enumerate(earlier, max((entry["index"] for entry in entries), default=0) + 1):
                entry["index"] = index
        me = identity()
        others = [each for each in old.get("processes", []) if each != me and alive(each)]
        write_json(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "name": name,
                "created": old.get("created") or f"{datetime.now():%Y-%m-%dT%H:%M:%S}",
                "updated": f"{datetime.now():%Y-%m-%dT%H:%M:%S}",
                "folder": str(folder),
                "command": command,
                **facts,
                "process": me,
                "processes": others if ended else [*others, me],
                "jobs": sorted([*entries, *earlier], key=lambda entry: int(entry["index"])),
            },
        )
        return path


def job_entry(folder: Path, job: Job) -> dict[str, Any]:
    """One job as the manifest lists it; paths are relative to the manifest."""
    result = relative(folder, job.result / RESULT_FILE) if job.result and folder not in job.result.parents else None
    return {
        "index": job.index,
        "fingerprint": job.fingerprint,
        "name": job.name,
        "overrides": list(job.overrides),
        "folder": relative(folder, job.result or job.folder),
        "status": job.decision,
        "result": result,
        "reason": job.reason,
        **({"slurm_job_id": job.slurm_job_id} if job.slurm_job_id else {}),
    }


def withdraw(folder: Path) -> None:
    """Remove the folder of a sweep of which nothing was started, unless there is a result, or a run that Slurm has."""
    with suppress(OSError):
        on_slurm = any(entry.get("slurm_job_id") for entry in read_manifest(folder).get("jobs", []))
        if not on_slurm and not any(folder.rglob(RESULT_FILE)):
            shutil.rmtree(folder)
            folder.parent.rmdir()  # the day's folder, when this was its first
