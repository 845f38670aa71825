"""What the columns of a table of clips may be called, and which column was taken for what."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from sousa_bench.data.sources.source import near_words
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.task import CLIP

ALIASES = {
    "file_name": (
        *("file_name", "filename", "slice_file_name", "fname", "file", "path", "file_path", "filepath"),
        *("audio_path", "wav"),
    ),
    "label": ("label", "class", "category", "class_name", "target", "class_id", "classid"),
    "labels": ("labels", "tags"),
    "split": ("split", "subset"),
    "fold": ("fold",),
    "group": (
        *("group", "player", "player_id", "speaker", "speaker_id", "profile_id", "fsid", "src_file"),
        *("recording", "recording_id"),
    ),
    "onset": ("onset",),
    "offset": ("offset",),
    "sample_id": ("sample_id",),
}
"""The columns that a table of clips may have, each with its usual names, in the order in which they are looked for."""

_RECORDINGS = ("fsid", "src_file")
"""Names of a column that says which recording a clip was cut from."""


def known_columns(frame: pd.DataFrame, wanted: Mapping[str, str | bool], origin: str) -> dict[str, str]:
    """Which column of a table is what: those of `ALIASES` that there are, each with the table's own name for it.

    Args:
        frame: The table.
        wanted: `data.columns`: the table's own name of a column, or false for one that is not to be used.
        origin: The file, for messages.

    Raises:
        ConfigError: The table has no column of a name that is wanted.
        DataError: Two columns say what the labels are.
    """
    spelt = {str(name).strip().lower(): str(name) for name in reversed(frame.columns)}
    found: dict[str, str] = {}
    for known, aliases in ALIASES.items():
        name = wanted.get(known)
        if isinstance(name, str):
            if name.lower() not in spelt:
                near = near_words(name, map(str, frame.columns))
                raise ConfigError(f"data.columns.{known}={name}: {origin} has no such column{near}.")
            found[known] = spelt[name.lower()]
        elif name is None and (alias := next((alias for alias in aliases if alias in spelt), None)):
            found[known] = spelt[alias]
    if {"label", "labels"} <= set(found):
        if wanted.get("label") and wanted.get("labels"):
            raise ConfigError("data.columns.label and data.columns.labels can't both be given: choose one.")
        if not (wanted.get("label") or wanted.get("labels")):
            raise DataError(
                f"{origin} has both a column {found['label']!r}, one label a clip, and {found['labels']!r}, several: "
                f"say which with data.columns.label={found['label']} or data.columns.labels={found['labels']}."
            )
        del found["labels" if wanted.get("label") else "label"]
    return found


def with_known_names(frame: pd.DataFrame, found: Mapping[str, str]) -> pd.DataFrame:
    """The columns that `known_columns` found, under their common names."""
    return pd.DataFrame({known: frame[name] for known, name in found.items()})


def group_noun(name: str) -> str:
    """What a group is called, from the name of the column that tells it: `bird_id` → `bird`, `src_file` → `recording`.

    A name of which nothing is left is a `group`, and so is `clip_id`: clips in groups are more than clips.
    """
    if name.lower() in _RECORDINGS:
        return "recording"
    spaced = re.sub(r"(?<=[a-z])(?=ID$|Id$)", "_", name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word and word != "id"]
    noun = " ".join(words)
    return {"profile": "player", "": "group", CLIP: "group"}.get(noun, noun)
