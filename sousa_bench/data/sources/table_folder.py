"""Sounds beside a table that says what they are: `metadata.csv`, `.tsv`, `.jsonl`, `.parquet`, or a named file."""

from __future__ import annotations

import json
from collections.abc import Container
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from warnings import catch_warnings, simplefilter

import pandas as pd

from sousa_bench.data.sources.audio_files import TABLE_SUFFIXES
from sousa_bench.data.sources.column_names import known_columns, with_known_names
from sousa_bench.data.sources.labelled import Reading, label_text, refuse_unshown
from sousa_bench.data.sources.labelled_folder import LabelledFolder
from sousa_bench.data.sources.source import is_file, is_split, near_names
from sousa_bench.errors import ConfigError, DataError

NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


class TableFolder(LabelledFolder):
    """A table with a row a clip; the files that it names lie below its folder.

    A folder for each split may hold a table of its own.

    Args:
        root: See `LabelledFolder`.
        cache: See `LabelledFolder`.
        reading: See `LabelledFolder`.
    """

    layout = "table"
    names_columns = True
    labels = ", ".join(NAMES)

    def __init__(self, root: Path, cache: Path | None = None, reading: Reading | None = None) -> None:
        super().__init__(root, cache, reading)
        self.labels = ", ".join(self._name(table) for table in self._tables)

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether one of `NAMES` is there, or in a folder that is called like a split."""
        return bool(_tables_in(root))

    @cached_property
    def _tables(self) -> list[Path]:
        """The tables that hold: one in each folder.

        Raises:
            ConfigError: `data.table` isn't there.
            DataError: There are two in one folder.
        """
        if self.reading.table:
            return [self._wanted(self.root / self.reading.table)]
        tables = _tables_in(self.root)
        for one, other in pairwise(tables):
            if one.parent == other.parent:
                raise DataError(
                    f"{self.root} holds two tables, {self._name(one)} and {self._name(other)}: say which one holds "
                    f"with data.table={self._name(one)}."
                )
        return tables

    def holds_only(self, names: Container[str]) -> bool:
        """Whether a column `label` holds one of these names for every clip that has a label.

        Raises:
            DataError: A table is unreadable.
            ConfigError: `data.columns` names a column that it doesn't have.
        """
        columns = tuple(self.reading.columns.items())
        found = [_labels(table, table.stat().st_mtime_ns, columns) for table in self._tables]
        return all(found) and all(label in names for labels in found for label in labels)

    def _wanted(self, path: Path) -> Path:
        if is_file(path):
            return path
        near = near_names(path.parent, path.name) if path.parent.is_dir() else []
        hint = f" (near: {', '.join(near)})" if near else ""
        raise ConfigError(f"data.table={self.reading.table}: there is no such file in {self.root}{hint}.")

    def _name(self, table: Path) -> str:
        return table.relative_to(self.root).as_posix()

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`.

        Raises:
            DataError: A table is unreadable, or lacks a column.
            ConfigError: `data.columns` names a column that it doesn't have.
        """
        return pd.concat([self._read(table) for table in self._tables], ignore_index=True)

    def _read(self, table: Path) -> pd.DataFrame:
        frame = read_table(table)
        refuse_unshown(map(str, frame.columns), "column", self._name(table))
        found = known_columns(frame, self.reading.columns, self._name(table))
        self._need(frame, found, "file_name")
        if "labels" not in found:
            self._need(frame, found, "label")
        self.taken |= found
        known = with_known_names(frame, found)
        top = f"{self.root}/"
        known["file_name"] = [n.removeprefix(top) if isinstance(n, str) else n for n in known["file_name"]]
        if self.reading.table or table.parent == self.root:
            return known
        folder = table.parent.name
        known["file_name"] = [f"{folder}/{name}" if isinstance(name, str) else name for name in known["file_name"]]
        if "split" in known or self.reading.columns.get("split") is False:
            return known
        self.taken.setdefault("split", "the table's folder")
        return known.assign(split=folder)

    def _need(self, frame: pd.DataFrame, found: dict[str, str], known: str) -> None:
        if known not in found:
            what = {"file_name": "the files' names", "label": "the labels"}[known]
            raise DataError(
                f"{self.labels}: no column was recognised as {what}; it has: {', '.join(map(str, frame.columns))}. "
                f"Name it with data.columns.{known}=NAME."
            )


@lru_cache(maxsize=16)  # each composing of a config asks; a table that was changed is read anew
def _labels(table: Path, changed: int, columns: tuple[tuple[str, str | bool], ...]) -> frozenset[str]:
    """The labels in a table's column `label`; none where there is no such column."""
    frame = read_table(table)
    found = known_columns(frame, dict(columns), table.name)
    return frozenset(map(label_text, frame[found["label"]].dropna())) if "label" in found else frozenset()


def _tables_in(root: Path) -> list[Path]:
    """Those of `NAMES` in a folder itself, else in its folders that are called like splits."""
    splits = sorted(path for path in root.iterdir() if is_split(path.name) and path.is_dir())
    here, below = ([folder / name for folder in folders for name in NAMES] for folders in ([root], splits))
    return [table for table in here if is_file(table)] or [table for table in below if is_file(table)]


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
            with catch_warnings():
                simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than there are columns
                return pd.read_csv(path, sep=comma, dtype=str, index_col=False, keep_default_na=False, na_values=[""])
        if kind == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return pd.DataFrame([_object(line) for line in lines if line.strip()], dtype=object)
        if kind == ".parquet":
            return pd.read_parquet(path)
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: a row holds more cells than there are columns; a text with the separator in it stands in quotes."
        ) from error
    except (ValueError, OSError, RecursionError) as error:  # the errors of pandas, json and pyarrow are among these
        raise DataError(f"{path} can't be read as {kind[1:].upper()} ({error}).") from error
    raise DataError(f"{path}: a table's name ends in {', '.join(TABLE_SUFFIXES)}.")


def _object(line: str) -> dict[str, object]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"a line that is no object: {line[:60]}")
    return found
