"""What earlier sweeps left behind: every result below the results roots, by fingerprint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sousa_bench.results.result import NETWORK_KEYS, PRECISION_KEY, ResultError, read_result
from sousa_bench.results.run_process import true_status
from sousa_bench.results.scan import result_folders

RUN_NAME = re.compile(r"_(?:aug|noaug)_.*_s\d+_([0-9a-f]{8})(?:_\d+)?\Z")
"""The end of a run's folder name (:func:`~sousa_bench.config.fingerprint.run_name`): the first of its fingerprint."""


@dataclass(frozen=True)
class EarlierResult:
    """A result that stands already.

    Attributes:
        folder: The run's folder.
        status: As recorded, except ``dead``: recorded as running by a process that is gone.
        timestamp: When the record was written.
        network: Values of its config's :data:`~sousa_bench.results.result.NETWORK_KEYS`.
        cpu_precision: Its ``trainer.precision``; None for one on a GPU.
    """

    folder: Path
    status: str
    timestamp: str
    network: tuple[str | None, ...] = ()
    cpu_precision: str | None = None


class ResultIndex:
    """The results below some roots.

    Args:
        roots: Folders to search.
        digest: Read only the roots themselves and what a folder's name says to be of this fingerprint; the folders of
            other runs aren't even listed, since a sweep asks once for each of its runs.

    Attributes:
        torn: Result files that could not be read, with the reason; their runs count as not done.
    """

    def __init__(self, roots: Sequence[Path], digest: str | None = None) -> None:
        self.torn: list[str] = []
        self._by_fingerprint: dict[str, list[EarlierResult]] = defaultdict(list)

        def enter(folder: Path) -> bool:
            told = None if digest is None else RUN_NAME.search(folder.name)
            return told is None or told[1] == str(digest)[:8]

        for folder in sorted({folder for root in roots for folder in result_folders(root, enter)}):
            if digest is None or digest[:8] in folder.name or folder in roots:
                self._read(folder)

    def _read(self, folder: Path) -> None:
        try:
            result = read_result(folder)
        except ResultError as error:
            self.torn.append(str(error))
            return
        if digest := result.get("fingerprint"):
            status, config = true_status(result, folder), result.get("resolved_config") or {}
            network = tuple(_text(config, key) for key in NETWORK_KEYS)
            on_gpu = "gpu" in (_text(result, "environment.accelerator"), _text(config, "trainer.accelerator"))
            precision = None if on_gpu else _text(config, PRECISION_KEY)
            found = EarlierResult(folder, status, str(result.get("timestamp", "")), network, precision)
            self._by_fingerprint[digest].append(found)

    def __iter__(self) -> Iterator[EarlierResult]:
        """Every result that has a fingerprint."""
        return chain.from_iterable(self._by_fingerprint.values())

    def of(self, digest: str, prefer: Path) -> list[EarlierResult]:
        """Results of one fingerprint, those below ``prefer`` first, newest first."""
        found = sorted(self._by_fingerprint.get(digest, []), key=lambda result: result.timestamp, reverse=True)
        return sorted(found, key=lambda result: prefer not in result.folder.parents)


def _text(record: Mapping[str, Any], key: str) -> str | None:
    """What a record says at ``group.name``, or None."""
    group, _, name = key.partition(".")
    node = record.get(group)
    value = node.get(name) if isinstance(node, Mapping) else None
    return None if value is None else str(value)
