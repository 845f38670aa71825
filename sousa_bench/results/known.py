"""What earlier sweeps left behind: every result below the results roots, by fingerprint."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sousa_bench.results.process import true_status
from sousa_bench.results.result import RESULT_FILE, ResultError, read_result

ROOTS = ("multirun", "outputs")


@dataclass(frozen=True)
class Known:
    """One earlier result.

    Attributes:
        folder: The run's folder.
        status: As recorded, except ``dead``: recorded as running by a process that is gone.
        timestamp: When the record was written.
    """

    folder: Path
    status: str
    timestamp: str


class Results:
    """Index of the results below some roots.

    Args:
        roots: Folders to search.
        digest: Read only the roots themselves and what a folder's name says to be of this fingerprint.

    Attributes:
        torn: Result files that could not be read, with the reason; their runs count as not done.
    """

    def __init__(self, roots: Sequence[Path], digest: str | None = None) -> None:
        self.torn: list[str] = []
        self._by_fingerprint: dict[str, list[Known]] = defaultdict(list)
        for folder in sorted({folder for root in roots for folder in result_folders(root)}):
            if digest is None or digest[:8] in folder.name or folder in roots:
                self._read(folder)

    def _read(self, folder: Path) -> None:
        try:
            result = read_result(folder)
        except ResultError as error:
            self.torn.append(str(error))
            return
        if digest := result.get("fingerprint"):
            known = Known(folder, true_status(result, folder), str(result.get("timestamp", "")))
            self._by_fingerprint[digest].append(known)

    def of(self, digest: str, prefer: Path) -> list[Known]:
        """Results of one fingerprint, those below ``prefer`` first, newest first."""
        found = sorted(self._by_fingerprint.get(digest, []), key=lambda known: known.timestamp, reverse=True)
        return sorted(found, key=lambda known: prefer not in known.folder.parents)


def result_folders(root: Path) -> Iterator[Path]:
    """Every folder at or below ``root`` that holds a result; what lies inside a run's folder is not searched."""
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                items = list(entries)
        except OSError:
            continue
        if any(item.name == RESULT_FILE for item in items):
            yield folder.resolve()
            continue
        pending += [
            Path(item.path) for item in items if item.is_dir(follow_symlinks=False) and not item.name.startswith(".")
        ]
