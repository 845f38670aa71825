"""Sounds beside a table that says what they are: `metadata.csv`, `.tsv`, `.jsonl`, `.parquet`, or a named file."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import pandas as pd

from sousa_bench.data.sources.column_names import known_columns, with_known_names
from sousa_bench.data.sources.labelled import Reading
from sousa_bench.data.sources.labelled_folder import LabelledFolder
from sousa_bench.data.sources.source import file_digest, is_file, near_names
from sousa_bench.errors import ConfigError, DataError

NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


class TableFolder(LabelledFolder):
    """A table with a row a clip; the files that it names lie below the same folder.

    Args:
        root: See `LabelledFolder`.
        cache: See `LabelledFolder`.
        reading: See `LabelledFolder`.
    """

    layout = "table"
    labels = ", ".join(NAMES)

    def __init__(self, root: Path, cache: Path | None = None, reading: Reading | None = None) -> None:
        super().__init__(root, cache, reading)
        self.labels = self._table.relative_to(root).as_posix() if self._table.is_relative_to(root) else str(self._table)

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether one of `NAMES` is there."""
        return any(is_file(root / name) for name in NAMES)

    @cached_property
    def _table(self) -> Path:
        if self.reading.table:
            path = self.root / self.reading.table
            if not is_file(path):
                near = near_names(path.parent, path.name) if path.parent.is_dir() else []
                raise ConfigError(
                    f"data.table={self.reading.table}: there is no such file in {self.root}"
                    f"{' (near: ' + ', '.join(near) + ')' if near else ''}."
                )
            return path
        there = [name for name in NAMES if is_file(self.root / name)]
        if len(there) > 1:
            raise DataError(
                f"{self.root} holds {len(there)} tables, {' and '.join(there)}: say which one holds with "
                f"data.table={there[0]}."
            )
        return self.root / there[0]

    @cached_property
    def identity(self) -> str:
        """Hash of the table."""
        return file_digest(self._table)

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`.

        Raises:
            DataError: The table is unreadable, or lacks a column.
            ConfigError: `data.columns` names a column that it doesn't have.
        """
        frame = read_table(self._table)
        found = known_columns(frame, self.reading.columns, self.labels)
        self._need(frame, found, "file_name")
        if "labels" not in found:
            self._need(frame, found, "label")
        self.taken = dict(found)
        return with_known_names(frame, found)

    def _need(self, frame: pd.DataFrame, found: dict[str, str], known: str) -> None:
        if known not in found:
            what = {"file_name": "the files' names", "label": "the labels"}[known]
            raise DataError(
                f"{self.labels}: no column was recognised as {what}; it has: {', '.join(map(str, frame.columns))}. "
                f"Name it with data.columns.{known}=NAME."
            )


def read_table(path: Path) -> pd.DataFrame:
    """A table, told by its name's ending; text stays text, and only an empty cell is missing.

    Raises:
        DataError: It can't be read, or its ending is none that is known.
    """
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            if b"\0" in path.read_bytes():
                raise ValueError("it holds NUL bytes; save it as UTF-8")
            comma = "\t" if kind == ".tsv" else ","
            return pd.read_csv(path, sep=comma, dtype=str, keep_default_na=False, na_values=[""])
        if kind == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return pd.DataFrame([_object(line) for line in lines if line.strip()], dtype=object)
        if kind == ".parquet":
            return pd.read_parquet(path)
    except (ValueError, OSError) as error:  # the errors of pandas, json and pyarrow are among these
        raise DataError(f"{path} can't be read as {kind[1:].upper()} ({error}).") from error
    raise DataError(f"{path}: a table's name ends in .csv, .tsv, .jsonl or .parquet.")


def _object(line: str) -> dict[str, object]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"a line that is no object: {line[:60]}")
    return found
