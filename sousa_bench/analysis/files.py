"""The comparison table on disk: CSV for people and spreadsheets, Parquet with its types."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from sousa_bench.errors import UserError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_tables(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``comparison_table.csv`` and ``comparison_table.parquet`` and return their paths.

    In the CSV alone a text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    plain = table.copy()
    plain["augmentation"] = plain["augmentation"].astype("boolean")
    for key in plain.columns:
        if plain[key].dtype == object and plain[key].isna().all():
            plain[key] = plain[key].astype("string")
    content = pa.Table.from_pandas(plain, preserve_index=False)
    csv, parquet = folder / "comparison_table.csv", folder / "comparison_table.parquet"
    replace(parquet, lambda path: pq.write_table(content, path, compression="zstd"))
    replace(csv, lambda path: pa_csv.write_csv(_defused(content), path))
    return [csv, parquet]


def write_frame(frame: pd.DataFrame, path: Path) -> Path:
    """Write a small frame (comparisons, effects) as CSV."""
    content = pa.Table.from_pandas(frame, preserve_index=False)
    return replace(path, lambda target: pa_csv.write_csv(_defused(content), target))


def _defused(content: pa.Table) -> pa.Table:
    """Texts that begin like a formula get an apostrophe."""
    for number, field in enumerate(content.schema):
        if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            continue
        values = content.column(number).to_pylist()
        if any(value and value.startswith(FORMULA_STARTS) for value in values):
            safe = [f"'{value}" if value and value.startswith(FORMULA_STARTS) else value for value in values]
            content = content.set_column(number, field.name, pa.array(safe, pa.string()))
    return content


def replace(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` make a file beside ``path`` and rename it, so that a reader never sees a part of it.

    Raises:
        UserError: The folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            write(Path(name))
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); choose another --output-dir") from error
    return path


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` as UTF-8, whole or not at all."""
    return replace(path, lambda target: target.write_text(text, encoding="utf-8"))
