"""From what the command line names to files: files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64")
)
"""What is taken from a folder; a file that is named itself is read whatever it is called."""


def find_files(words: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """The files that some words name, each once, in the order of the words.

    Args:
        words: Files, folders (searched to the bottom, hidden files left out), or patterns (``**`` for any depth).

    Returns:
        The files, and what is wrong with a word that names none.
    """
    files: dict[Path, None] = {}
    problems: dict[str, str] = {}
    for word in words:
        path = Path(word)
        if path.is_dir():
            found = _inside(path)
            problem = "is a folder without audio files"
        elif path.exists() or not glob.has_magic(word):
            found = [path] if path.exists() else []
            problem = "is missing: there is no such file or folder"
        else:
            found = [Path(name) for name in sorted(glob.glob(word, recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern
            found = [file for name in found for file in (_inside(name) if name.is_dir() else [name])]
            problem = "is a pattern that no file matches"
        if not found:
            problems[word] = problem
        files |= dict.fromkeys(found)
    return list(files), problems


def _inside(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
