"""Reading thousands of result files: chunks of columns, on every core where it pays.

Run as a module it is a reader process: file names on standard input, pickled columns on standard output. A process of
its own, not ``multiprocessing``, since that would import the caller's script again, and a notebook has none.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias

from sousa_bench.analysis.flatten import Row, read_row
from sousa_bench.results.result import ResultError
from sousa_bench.system.python import python_environment

PARALLEL_FROM = 3000  # half of them takes two cores as long as a reader's start, 0.3 s
ROWS_AT_ONCE = 200  # a row as a dictionary takes some 20 KB
Values: TypeAlias = "list[Any] | array[Any]"
"""Of a column: an array (8 bytes a value, not 32) where all are whole numbers, or all floats, with NaN for None."""


@dataclass
class Columns:
    """Rows, stored by column.

    Attributes:
        size: Number of rows.
        fields: Values of each field, in order of the rows, None (in an array NaN) where a row has none.
        resolved: The resolved config of each row.
        overrides: The Hydra overrides of each row.
        tasks: The block ``task`` of each row as JSON, "" where there is none.
        problems: One line for each file that was passed over.
        config_keys: Fields that some result's ``config`` block named, in order of appearance.
    """

    size: int = 0
    fields: dict[str, Values] = field(default_factory=dict)
    resolved: list[dict[str, Any]] = field(default_factory=list)
    overrides: list[tuple[str, ...]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    config_keys: dict[str, None] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows, a column at a time."""
        fields = [row.fields for row in rows]
        if len({tuple(each) for each in fields}) == 1:  # as of most runs of a sweep
            for key, values in zip(fields[0], zip(*(each.values() for each in fields), strict=True), strict=True):
                self._extend(key, _packed(list(values)))
        else:
            for key in dict.fromkeys(key for each in fields for key in each):
                self._extend(key, _packed([each.get(key) for each in fields]))
        for row in rows:
            self.resolved.append(row.resolved)
            self.overrides.append(row.overrides)
            self.tasks.append(row.task)
            self.config_keys.update(dict.fromkeys(row.config_keys))
        self.size += len(rows)

    def extend(self, other: Columns) -> None:
        """Append all rows of ``other``."""
        for key, values in other.fields.items():
            self._extend(key, values)
        self.size += other.size
        self.resolved += other.resolved
        self.overrides += other.overrides
        self.tasks += other.tasks
        self.problems += other.problems
        self.config_keys |= other.config_keys

    def filled(self) -> dict[str, Values]:
        """The columns, all of full length."""
        for key in self.fields:
            self._extend(key, [])
        return self.fields

    def _extend(self, key: str, values: Values) -> None:
        """Append values of new rows to a column, with None for the earlier rows that lack them."""
        column = self.fields.get(key, [])
        column = _joined(column, [None] * (self.size - len(column)))
        self.fields[key] = _joined(column, values)


def _packed(values: list[Any]) -> Values:
    """The values as an array where one can hold them; of equal texts one object."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return array("q", values)
    if kinds == {float}:
        return array("d", values)
    if kinds == {float, NoneType}:
        return array("d", [nan if value is None else value for value in values])
    if kinds == {str}:
        shared: dict[str, str] = {}
        return [shared.setdefault(value, value) for value in values]
    return values


def _joined(column: Values, more: Values) -> Values:
    """Both, one after the other, in place where ``column`` can hold ``more``."""
    if not column or not more:
        return column or more
    if _kind(column) != _kind(more):
        if {_kind(column), _kind(more)} == {"d", "list"}:
            column, more = (_as_floats(values) for values in (column, more))
        if _kind(column) != _kind(more):
            column, more = (_as_list(values) for values in (column, more))
    column.extend(more)
    return column


def _kind(values: Values) -> str:
    return values.typecode if isinstance(values, array) else "list"


def _as_floats(values: Values) -> Values:
    """A list of None as an array; anything else as it is."""
    if isinstance(values, array) or any(value is not None for value in values):
        return values
    return array("d", [nan]) * len(values)


def _as_list(values: Values) -> list[Any]:
    """The values of a column, with None for NaN, which no field holds."""
    return [None if value != value else value for value in values] if isinstance(values, array) else values


def read_files(paths: Sequence[Path]) -> Columns:
    """Read the result files ``paths``, with one process a core where there are many."""
    workers = min(os.cpu_count() or 1, 8)
    if len(paths) < PARALLEL_FROM or workers < 2:
        return _read(paths)
    size = -(-len(paths) // workers)
    total = Columns()
    own, *others = [paths[start : start + size] for start in range(0, len(paths), size)]
    readers = [_start(part) for part in others]
    total.extend(_read(own))
    for part, reader in zip(others, readers, strict=True):
        output, _ = reader.communicate()
        total.extend(pickle.loads(output) if reader.returncode == 0 else _read(part))  # noqa: S301 - from our own process
    return total


@contextmanager
def _without_collector() -> Iterator[None]:
    """Spare the search for garbage in cycles: parsed JSON has none, and its millions of values are searched anew."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_without_collector()
def _read(paths: Iterable[Path]) -> Columns:
    columns = Columns()
    shared: dict[Any, Any] = {}
    waiting: list[Row] = []
    for path in paths:
        try:
            row = read_row(path)
        except ResultError as error:
            columns.problems.append(str(error))
            continue
        waiting.append(row._replace(resolved=_share(row.resolved, shared), task=shared.setdefault(row.task, row.task)))
        if len(waiting) == ROWS_AT_ONCE:
            columns.add(waiting)
            waiting = []
    columns.add(waiting)
    return columns


def _share(resolved: dict[str, Any], shared: dict[Any, Any]) -> dict[str, Any]:
    """Let equal texts be one object: a sweep's configs differ in few values."""
    return {
        key: shared.setdefault(value, value) if isinstance(value, str) else value for key, value in resolved.items()
    }


def _start(paths: Sequence[Path]) -> subprocess.Popen[bytes]:
    reader = subprocess.Popen(
        [sys.executable, "-m", "sousa_bench.analysis.read"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=python_environment(),
    )
    assert reader.stdin is not None
    reader.stdin.write(pickle.dumps([str(path) for path in paths]))
    reader.stdin.close()
    reader.stdin = None
    return reader


def _main() -> None:
    paths = [Path(name) for name in pickle.load(sys.stdin.buffer)]  # noqa: S301 - from our own process
    columns = _read(paths)
    # Under ``-m`` this class is ``__main__.Columns``, which the parent can't find: hand back plain attributes.
    from sousa_bench.analysis import read

    pickle.dump(read.Columns(**vars(columns)), sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _main()
