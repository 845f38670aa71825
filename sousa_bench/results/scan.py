"""Finding result files: folders that runs left, the original flat layout, and what a manifest points at.

Nothing here follows a link or opens anything but a regular file, so a foreign folder can't lead a reader astray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousa_bench.errors import UserError
from sousa_bench.results.process import alive
from sousa_bench.results.result import PROGRESS_FILE, RESULT_FILE, clean, read_json

MANIFEST_FILE = "sweep.json"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
ROOT_NAMES = ("multirun", "outputs")
SKIPPED_FOLDERS = frozenset(
    {"analysis", "checkpoints", "adapter", "wandb", "lightning_logs", "node_modules", "__pycache__"}
)
DATE = re.compile(r"\d{4}-\d\d-\d\d")
NOT_RESULTS = frozenset({MANIFEST_FILE, PROGRESS_FILE})


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
        processes: The processes that may start it, as the manifest names them; None where it names none.
    """

    sweep: str
    index: int
    fingerprint: str
    overrides: tuple[str, ...]
    result: Path
    decision: str = "pending"
    reason: str = ""
    processes: tuple[Any, ...] | None = None

    def may_start(self) -> bool:
        """Whether a living process may still start it; a manifest that names none is taken for one that goes on."""
        return self.processes is None or any(alive(process, self.result.parent) for process in self.processes)


class NothingYetError(UserError):
    """There is nothing to analyse so far; ``--watch`` waits."""


@dataclass
class Scan:
    """What a walk found.

    Attributes:
        files: Candidate result files, each once, in a fixed order.
        manifests: The manifests that were met.
        planned: Their jobs.
        problems: One line for each thing that was passed over.
    """

    files: list[Path] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def results_roots(folder: Path) -> tuple[Path, ...]:
    """The folders that a manifest's pointers stay in, decided by where ``folder`` lies and by no file in it.

    A sweep reuses results from ``multirun`` and ``outputs``: those of the nearest such folder above. Elsewhere
    (``hydra.sweep.dir=…``) it is the folder that holds the sweep, and the ``multirun`` and ``outputs`` of the current
    folder.
    """
    resolved = folder.resolve()
    for place in (Path(_key(folder)), resolved):
        for path in (place, *place.parents):
            if path.name in ROOT_NAMES:
                return tuple((path.parent / name).resolve() for name in ROOT_NAMES)
    own = resolved.parent if (resolved / MANIFEST_FILE).exists() else resolved
    own = own.parent if DATE.fullmatch(own.name) else own
    return (own, *((Path.cwd() / name).resolve() for name in ROOT_NAMES))


def scan(folders: Sequence[Path], root: Path | None = None, skip: Sequence[Path] = ()) -> Scan:
    """Walk ``folders`` (or single result files) and list their results.

    Args:
        folders: Folders to walk; a file is taken as a result or a manifest.
        root: Folder that a manifest's pointers must not leave; default ``results_roots`` of each folder.
        skip: Folders that are not entered, such as the output folder.

    Raises:
        NothingYetError: One of ``folders`` does not exist.
    """
    found = Scan()
    skipped = {path.resolve() for path in skip}
    for folder in folders:
        if not folder.exists():
            raise NothingYetError(f"{folder}: no such folder; give the folder of a sweep, such as multirun/2026-02-01")
        allowed = (root.resolve(),) if root else results_roots(folder if folder.is_dir() else folder.parent)
        if folder.is_dir():
            _walk(folder, allowed, skipped, found)
        elif folder.name == MANIFEST_FILE:
            _read_manifest(folder, allowed, found)
        else:
            found.files.append(folder)
    found.files = list({_key(path): path for path in found.files}.values())
    return found


def _key(path: Path) -> str:
    return os.path.normpath(path.absolute())


def _walk(top: Path, roots: Sequence[Path], skipped: set[Path], found: Scan) -> None:
    """Collect below ``top``: ``result.json`` of run folders, other JSON files of folders that are none."""
    pending = [top]
    while pending:
        folder = pending.pop()
        if skipped and folder.resolve() in skipped:
            continue
        try:
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found.problems.append(f"{folder}: can't be listed ({error.strerror})")
            continue
        files = {entry.name: entry for entry in children if entry.is_file(follow_symlinks=False)}
        found.problems += [f"{entry.path}: a link, not followed" for entry in children if _is_linked_result(entry)]
        if RESULT_FILE in files:
            found.files.append(folder / RESULT_FILE)
            continue
        if MANIFEST_FILE in files:
            _read_manifest(folder / MANIFEST_FILE, roots, found)
        found.files += [
            folder / name
            for name in files
            if name.endswith(".json") and name not in NOT_RESULTS and not name.startswith(".")
        ]
        below = [folder / entry.name for entry in children if entry.is_dir(follow_symlinks=False)]
        pending += [path for path in reversed(below) if path.name not in SKIPPED_FOLDERS and path.name[0] != "."]


def _is_linked_result(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink() or entry.name.startswith("."):
        return False
    return entry.name.endswith(".json") or entry.is_dir()


def _read_manifest(path: Path, roots: Sequence[Path], found: Scan) -> None:
    """Add a manifest's jobs, and the results that it reused from elsewhere, as far as they lie inside ``roots``."""
    found.manifests.append(path)
    try:
        content = read_json(path, MAX_MANIFEST_BYTES)
        jobs = content["jobs"]
        if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
            raise ValueError("'jobs' is no list of objects")
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.problems.append(f"{path}: no readable manifest ({error}), passed over")
        return
    for number, job in enumerate(jobs, start=1):
        _add_job(path.parent, roots, content, number, job, found)


def _add_job(
    base: Path, roots: Sequence[Path], manifest: dict[str, Any], number: int, job: dict[str, Any], found: Scan
) -> None:
    decision = str(job.get("status") or "pending")
    if decision == "duplicate":
        return
    reused = job.get("result")
    pointer = reused if isinstance(reused, str) and reused else f"{job.get('folder') or ''}/{RESULT_FILE}"
    try:
        result = (base / pointer.lstrip("/") if not reused else base / pointer).resolve()
        inside = any(result.is_relative_to(root) for root in roots)
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        found.problems.append(
            f"{base / MANIFEST_FILE}: job {number} points at {pointer!r}, outside of "
            f"{' and '.join(map(str, roots))}; passed over (--results-root FOLDER allows a wider one)"
        )
        return
    overrides = job.get("overrides")
    index = job.get("index")
    found.planned.append(
        Planned(
            sweep=clean(str(manifest.get("name") or base.name)),
            index=index if isinstance(index, int) else number,
            fingerprint=clean(str(job.get("fingerprint") or "")),
            overrides=tuple(clean(str(item)) for item in overrides) if isinstance(overrides, list) else (),
            result=result,
            decision=decision,
            reason=clean(str(job.get("reason") or "")),
            processes=_starters(manifest, job),
        )
    )
    if result.is_file():
        found.files.append(result)


def _starters(manifest: dict[str, Any], job: dict[str, Any]) -> tuple[Any, ...] | None:
    """The commands that do the sweep (none: all are done with it), and the job's place in Slurm's queue."""
    named = manifest.get("processes")
    if not isinstance(named, list):
        return None
    queued = {"host": None, "pid": 1, "slurm_job_id": job.get("slurm_job_id")}
    return (*named, queued) if queued["slurm_job_id"] else tuple(named)


def snapshot(folders: Sequence[Path]) -> frozenset[tuple[str, int, int]]:
    """Name, time and size of every result, progress file and manifest below ``folders``: what changes as runs go on."""
    facts = set()
    found = scan([folder for folder in folders if folder.exists()])
    for file in (*found.manifests, *found.files, *(path.with_name(PROGRESS_FILE) for path in found.files)):
        try:
            state = file.stat()
        except OSError:
            continue
        facts.add((str(file), state.st_mtime_ns, state.st_size))
    return frozenset(facts)
