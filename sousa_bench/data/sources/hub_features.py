"""What the schema of a Parquet file says about the columns of a dataset of the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sousa_bench.errors import DataError


def label_columns(schema: pa.Schema) -> list[str]:
    """The columns that may say something about a clip: text, numbers and lists of these; no audio, no nested ones."""
    return [
        field.name for field in schema if _plain(field.type) or (_list(field.type) and _plain(field.type.value_type))
    ]


def _list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
    )
    return any(test(kind) for test in tests)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names behind the numbers, of each column that is a `ClassLabel` or a list of these.

    The library `datasets` writes them as JSON into the schema's metadata, under `huggingface`.

    Source: https://huggingface.co/docs/datasets/about_dataset_features.
    """
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
        found = {name: _names(feature) for name, feature in features.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if names}


def _names(feature: Any) -> list[str]:
    """A list's feature stands in brackets, or under `feature`, by the library's version."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, Mapping):
        return []
    if feature.get("_type") == "ClassLabel":
        return list(map(str, feature["names"]))
    return _names(feature.get("feature"))


def with_names(numbers: pd.Series, names: Sequence[str], origin: str) -> pd.Series:
    """(clips,) names in place of numbers, or lists of names in place of lists of numbers; None for -1, the hub's none.

    Raises:
        DataError: A number without a name.
    """

    def name(number: Any) -> str | None:
        if pd.isna(number) or int(number) == -1:
            return None
        if not 0 <= int(number) < len(names):
            raise DataError(f"{origin}: the label {number} has no name; its schema names {len(names)}, from 0 on.")
        return names[int(number)]

    def named(cell: Any) -> Any:
        return [name(number) for number in cell] if isinstance(cell, list | np.ndarray) else name(cell)

    return numbers.map(named)
