"""Clips that are parts of files, by `onset` and `offset`: how they are read, and how they are told from the files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from sousa_bench.data.decode import Part
from sousa_bench.data.sources.source import Audio, digest


def parts_of(files: Iterator[tuple[int, Audio]], table: pd.DataFrame) -> Iterator[tuple[int, Audio]]:
    """(position, audio) of each clip, from those of the files that hold them."""
    onset, offset = table["onset"].to_numpy(), table["offset"].to_numpy()
    for position, audio in files:
        begin, end = float(onset[position]), float(offset[position])
        if math.isnan(begin) or isinstance(audio, Part):
            yield position, audio
        else:
            yield position, Part(audio, begin, None if math.isnan(end) else end)


def sample_of_parts(sample: str, table: pd.DataFrame) -> str:
    """A dataset's `sample`, with the parts of the files that the clips are, where they are parts."""
    if table["onset"].isna().all():
        return sample
    return digest(sample, *np.sort((table["sample_id"] + _stretches(table)).to_numpy(str))).hex()


def keys_of_parts(keys: Sequence[bytes], table: pd.DataFrame) -> list[bytes]:
    """The files' keys, made those of the clips; zeros stay zeros, which stand for a missing file."""
    if table["onset"].isna().all():
        return list(keys)
    parts = _stretches(table)
    return [key if not part or not any(key) else digest(key.hex(), part) for key, part in zip(keys, parts, strict=True)]


def _stretches(table: pd.DataFrame) -> pd.Series:
    """(clips,) texts: the part of its file that each clip is; "" for the whole."""
    both = table["onset"].map(lambda value: f" {value!r}") + table["offset"].map(lambda value: f" {value!r}")
    return both.where(table["onset"].notna(), "")
