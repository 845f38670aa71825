"""The files below a folder, and which of them are sounds, told by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import soundfile as sf

from sousa_bench.errors import DataError

SUFFIXES = frozenset(
    {f".{name.lower()}" for name in sf.available_formats()} - {".raw"} | {".aif", ".aifc", ".oga", ".opus", ".wave"}
)
"""The endings of the files that libsndfile reads. Raw samples say neither rate nor width, so they are no sound here."""


UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of text, and what stands for bytes that are no UTF-8."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""The endings of the tables that are read."""


def is_table(name: str) -> bool:
    """Whether a file's name ends as that of a table."""
    return name.lower().endswith(TABLE_SUFFIXES)


def is_audio(name: str) -> bool:
    """Whether a file's name ends as that of a sound."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - asked of each of 500,000 files


def files_below(root: Path) -> Iterator[str]:
    """Every file below a folder but hidden ones: its path below the folder, with slashes, folder by folder.

    Raises:
        DataError: A name can't be shown, a link leads back to a folder that it lies in, or a folder can't be listed.
    """
    todo: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while todo:
        below, above = todo.pop()
        with _listed(root, below) as entries:
            listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        folders = []
        for entry in listed:
            name = f"{below}{entry.name}"
            if UNSHOWN.search(name):
                raise DataError(f"{str(root)!r} holds {name!r}, a name with characters that can't be shown: rename it.")
            if _is_folder(entry):
                folders.append((f"{name}/", (*above, _real(root, name, above)) if entry.is_symlink() else above))
            else:
                yield name
        todo += reversed(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself
        raise DataError(f"{entry.path} can't be followed ({error.strerror}): remove the link.") from error


def _listed(root: Path, below: str) -> os._ScandirIterator[str]:
    try:
        return os.scandir(os.path.join(root, below))  # noqa: PTH118
    except OSError as error:
        raise DataError(f"{root / below} can't be listed ({error.strerror}).") from error


def _real(root: Path, name: str, above: tuple[str, ...]) -> str:
    """Where a linked folder lies in truth."""
    path = root / name
    real = os.path.realpath(path)
    inside = os.path.realpath(path.parent)
    if any(f"{folder}/".startswith(f"{real}/") for folder in (inside, *above)):
        raise DataError(f"{path} is a link back to {real}, which it lies in: a loop without end. Remove the link.")
    return real
