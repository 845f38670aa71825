"""Reading the tables of data sets whose form is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.data.sources.source import is_file, need_columns
from sousa_bench.data.sources.table_folder import read_table
from sousa_bench.errors import DataError


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        DataError: It is missing or no text.
    """
    if not is_file(path):
        raise _missing(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({error}): unpack it anew.") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: It is missing or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read as JSON ({error}): unpack it anew.") from error


def read_columns(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Columns of a CSV file as text, without an empty cell.

    Raises:
        DataError: It is missing, no CSV, or lacks a column or a value.
    """
    if not is_file(path):
        raise _missing(path)
    frame = read_table(path)
    need_columns(frame.columns, needed, path)
    for name in needed:
        if (empty := frame[name].isna()).any():
            raise DataError(f"{path}, row {int(empty.argmax()) + 1}: {name} is empty.")
    return frame[list(needed)]


def _missing(path: Path) -> DataError:
    return DataError(f"{path} is missing: unpack the data set anew.")


def by_number(numbers: pd.Series, names: pd.Series, path: Path) -> list[str]:
    """Names in the order of the numbers that stand beside them.

    Raises:
        DataError: A number that is none, or one with two names, or a name with two numbers.
    """
    pairs = pd.DataFrame({"number": numbers, "name": names}).drop_duplicates()
    for key, other in (("number", "name"), ("name", "number")):
        if (twice := pairs.duplicated(key)).any():
            value = pairs[key][twice].iloc[0]
            both = " and ".join(pairs[other][pairs[key] == value].head(2))
            raise DataError(f"{path}: the class {value} is both {both}; correct the table.")
    if (odd := ~pairs["number"].str.fullmatch(r"\d{1,9}")).any():
        raise DataError(f"{path}: {pairs['number'][odd].iloc[0]!r} is no class's number.")
    return pairs["name"].iloc[pairs["number"].astype(int).argsort()].tolist()


def check_folds(folds: pd.Series, count: int, path: Path) -> None:
    """Refuse a table that doesn't hold exactly the folds 1 to `count`.

    Raises:
        DataError: It names the folds that are missing or unknown.
    """
    there, wanted = set(folds), {str(number) for number in range(1, count + 1)}
    if there != wanted:
        missing, unknown = sorted(wanted - there, key=int), sorted(there - wanted)
        what = f"fold {', '.join(missing)} is missing" if missing else f"no fold is called {', '.join(unknown)}"
        raise DataError(f"{path}: {what}. There are {count} folds, 1 to {count}: unpack the table anew.")
