"""Finding what runs left: their folders, sweeps, the original flat layout, and what a manifest points at.

Nothing here follows a link or opens anything but a regular file, so a foreign folder can't lead a reader astray.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sousa_bench.errors import UserError
from sousa_bench.results.manifest import MANIFEST_FILE, Planned, planned_jobs
from sousa_bench.results.result import PROGRESS_FILE, RESULT_FILE
from sousa_bench.system.files import is_there

ROOT_NAMES = ("multirun", "outputs")
SKIPPED_FOLDERS = frozenset(
    {"analysis", "checkpoints", "adapter", "wandb", "lightning_logs", "node_modules", "__pycache__"}
)
DATE = re.compile(r"\d{4}-\d\d-\d\d")
NOT_RESULTS = frozenset({MANIFEST_FILE, PROGRESS_FILE})


def walk(
    top: Path, enter: Callable[[Path], bool] = lambda _: True, problems: list[str] | None = None
) -> Iterator[tuple[Path, dict[str, os.DirEntry[str]]]]:
    """Folders at and below ``top`` in a fixed order; none that is hidden, linked, or inside of a run's folder.

    Args:
        top: Where to begin.
        enter: Whether a folder is looked at.
        problems: Gets a line for each folder that can't be listed.

    Yields:
        Each folder with its entries by name.
    """
    pending = [top]
    while pending:
        folder = pending.pop()
        if not enter(folder):
            continue
        try:
            with os.scandir(folder) as listing:
                entries = {entry.name: entry for entry in sorted(listing, key=lambda entry: entry.name)}
        except OSError as error:
            if problems is not None:
                problems.append(f"{folder}: can't be listed ({error.strerror})")
            continue
        yield folder, entries
        result = entries.get(RESULT_FILE)
        if result is None or not result.is_file(follow_symlinks=False):
            below = [entry for entry in entries.values() if entry.is_dir(follow_symlinks=False)]
            pending += [folder / entry.name for entry in reversed(below) if not entry.name.startswith(".")]


def result_folders(root: Path, enter: Callable[[Path], bool] = lambda _: True) -> Iterator[Path]:
    """Every folder at or below ``root`` that holds a result, of those that :func:`walk` enters."""
    return (folder.resolve() for folder, entries in walk(root, enter) if RESULT_FILE in entries)


def sweep_folders(root: Path) -> Iterator[Path]:
    """Every folder at or below ``root`` that holds a manifest."""
    found = ((folder, entries.get(MANIFEST_FILE)) for folder, entries in walk(root))
    return (folder for folder, file in found if file is not None and file.is_file(follow_symlinks=False))


def latest_sweep(folder: Path) -> Path | None:
    """``folder`` when it holds a manifest, else the sweep below it whose manifest changed last."""
    if _changed(folder) is not None:
        return folder
    found = ((changed, path) for path in sweep_folders(folder) if (changed := _changed(path)) is not None)
    return max(found, key=lambda each: each[0], default=(None, None))[1]


def latest_place() -> Path:
    """Where commands look that are given no folder: the latest sweep, or the single runs where there is none."""
    sweeps, singles = map(Path, ROOT_NAMES)
    if found := latest_sweep(sweeps):
        return found
    return singles if not any(result_folders(sweeps)) and any(result_folders(singles)) else sweeps


def _changed(sweep: Path) -> float | None:
    """When the manifest of a folder changed last; None where it is no regular file, or gone meanwhile."""
    try:
        state = (sweep / MANIFEST_FILE).lstat()
    except OSError:
        return None
    return state.st_mtime if stat.S_ISREG(state.st_mode) else None


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

    def add_manifest(self, file: Path, roots: Sequence[Path]) -> None:
        """Add a manifest's jobs, and the results that it reused from elsewhere, as far as they lie inside ``roots``."""
        jobs, problems = planned_jobs(file, roots)
        self.manifests.append(file)
        self.planned += jobs
        self.problems += problems
        self.files += [job.result for job in jobs if is_there(job.result) and job.result.is_file()]


def results_roots(folder: Path) -> tuple[Path, ...]:
    """The folders that a manifest's pointers stay in, decided by where ``folder`` lies and by no file in it.

    A sweep reuses results from ``multirun`` and ``outputs``: those of the nearest such folder above. Elsewhere
    (``hydra.sweep.dir=…``) it is the folder that holds the sweep, and the ``multirun`` and ``outputs`` of the current
    folder.
    """
    resolved = folder.resolve()
    for place in (Path(os.path.normpath(folder.absolute())), resolved):
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
        if not is_there(folder):
            raise NothingYetError(f"{folder}: no such folder; give the folder of a sweep, such as multirun/2026-02-01")
        roots = (root.resolve(),) if root else results_roots(folder if folder.is_dir() else folder.parent)
        if folder.is_dir():
            _scan_folder(folder, roots, skipped, found)
        elif folder.name == MANIFEST_FILE:
            found.add_manifest(folder, roots)
        else:
            found.files.append(folder)
    resolved = cache(Path.resolve)  # for the few folders that hold those of runs
    found.files = list({_key(path, resolved): path for path in found.files}.values())
    return found


def _key(path: Path, resolved: Callable[[Path], Path]) -> tuple[Path, str, str]:
    """What tells a file from others, whether its folder is named through a link or not."""
    folder = path.parent
    if folder.name in ("", "..") or folder.is_symlink():
        folder = folder.resolve()
    return resolved(folder.parent), folder.name, path.name


def _scan_folder(top: Path, roots: Sequence[Path], skipped: set[Path], found: Scan) -> None:
    """Collect below ``top``: ``result.json`` of run folders, other JSON files of folders that are none."""
    names = {top.name, *(path.name for path in skipped)}  # no folder below is a link, so each has its own name

    def enter(folder: Path) -> bool:
        hidden = folder.name in SKIPPED_FOLDERS and folder != top
        return not hidden and not (folder.name in names and folder.resolve() in skipped)

    for folder, entries in walk(top, enter, found.problems):
        visible = [entry for name, entry in entries.items() if not name.startswith(".")]
        found.problems += [f"{entry.path}: a link, not followed" for entry in visible if _is_linked_result(entry)]
        files = [
            entry.name for entry in visible if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False)
        ]
        if RESULT_FILE in files:
            found.files.append(folder / RESULT_FILE)
            continue
        if MANIFEST_FILE in files:
            found.add_manifest(folder / MANIFEST_FILE, roots)
        found.files += [folder / name for name in files if name not in NOT_RESULTS]


def _is_linked_result(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and (entry.name.endswith(".json") or entry.is_dir())


def snapshot(folders: Sequence[Path]) -> frozenset[tuple[str, int, int]]:
    """Name, time and size of every result, progress file and manifest below ``folders``: what changes as runs go on."""
    facts = set()
    found = scan([folder for folder in folders if is_there(folder)])
    for file in (*found.manifests, *found.files, *(path.with_name(PROGRESS_FILE) for path in found.files)):
        try:
            state = file.stat()
        except OSError:
            continue
        facts.add((str(file), state.st_mtime_ns, state.st_size))
    return frozenset(facts)
