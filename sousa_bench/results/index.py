"""What earlier sweeps left behind: every result below the results roots, by fingerprint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sousa_bench.results.result import ResultError, read_result
from sousa_bench.results.run_process import true_status
from sousa_bench.results.scan import result_folders


@dataclass(frozen=True)
class EarlierResult:
    """A result that stands already.

    Attributes:
        folder: The run's folder.
        status: As recorded, except ``dead``: recorded as running by a process that is gone.
        timestamp: When the record was written.
    """

    folder: Path
    status: str
    timestamp: str


class ResultIndex:
    """The results below some roots.

    Args:
        roots: Folders to search.
        digest: Read only the roots themselves and what a folder's name says to be of this fingerprint.

    Attributes:
        torn: Result files that could not be read, with the reason; their runs count as not done.
    """

    def __init__(self, roots: Sequence[Path], digest: str | None = None) -> None:
        self.torn: list[str] = []
        self._by_fingerprint: dict[str, list[EarlierResult]] = defaultdict(list)
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
            found = EarlierResult(folder, true_status(result, folder), str(result.get("timestamp", "")))
            self._by_fingerprint[digest].append(found)

    def of(self, digest: str, prefer: Path) -> list[EarlierResult]:
        """Results of one fingerprint, those below ``prefer`` first, newest first."""
        found = sorted(self._by_fingerprint.get(digest, []), key=lambda result: result.timestamp, reverse=True)
        return sorted(found, key=lambda result: prefer not in result.folder.parents)
