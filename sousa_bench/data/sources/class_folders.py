"""Sounds in folders that are called by their class: `class/*.wav`, or `train/class/*.wav`."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import cached_property
from pathlib import Path

import pandas as pd

from sousa_bench.data.sources.audio_files import files_below, is_audio, is_table
from sousa_bench.data.sources.labelled_folder import LabelledFolder
from sousa_bench.data.sources.source import is_split
from sousa_bench.errors import DataError
from sousa_bench.task import counted


class ClassFolders(LabelledFolder):
    """A folder for each class, by itself or in a folder for each split; deeper folders belong to their class.

    Args:
        root: See `LabelledFolder`.
        cache: See `LabelledFolder`.
        reading: See `LabelledFolder`.
    """

    layout = "class folders"
    labels = "class folders (two or more folders with sounds in them, by themselves or below train, val and test)"

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether two folders in `root` hold sounds, or one that is called like a split."""
        holding = 0
        for folder in _with_sounds(root):
            holding += 2 if is_split(folder.name) else 1
            if holding > 1:
                return True
        return False

    @staticmethod
    def holds_only(root: Path, names: Container[str]) -> bool:
        """Whether every class of a folder in this layout has one of these names; it looks into others alone."""
        if not all(is_split(folder.name) for folder in _with_sounds(root, but=names)):
            return False
        splits = list(_with_sounds(root, but=names))
        if not splits:
            return True
        return list(_with_sounds(root)) == splits and not any(any(_with_sounds(each, but=names)) for each in splits)

    @cached_property
    def _sounds(self) -> list[str]:
        """The files below class folders; what is no sound is told, not taken."""
        sounds: list[str] = []
        others: list[str] = []
        tables: list[str] = []
        for name in files_below(self.root):
            if "/" in name:
                (sounds if is_audio(name) else others).append(name)
            elif is_audio(name):
                raise DataError(
                    f"{self.root} holds class folders, and {name} beside them, whose class nothing tells: move it into "
                    "a folder."
                )
            elif is_table(name):
                tables.append(name)
        if tables:
            self.warnings.append(
                f"{', '.join(tables)} beside the class folders was not read, the labels are the folders' names; "
                f"data.table={tables[0]} reads it"
            )
        if others:
            self.warnings.append(
                f"{counted(len(others), 'file')} in the class folders left out, since no sound: "
                f"{', '.join(others[:3])}{', …' if len(others) > 3 else ''}"
            )
        return sounds

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`.

        Raises:
            DataError: Folders of splits and of classes side by side, or sounds in a split's folder itself.
        """
        sounds = self._sounds
        tops = sorted({name.partition("/")[0] for name in sounds})
        splits = [top for top in tops if is_split(top)]
        if len(splits) > 1 and len(splits) < len(tops):
            other = next(top for top in tops if top not in splits)
            raise DataError(
                f"{self.root} holds folders that are called like splits ({', '.join(splits)}) beside others ({other}): "
                "put the others into these, or elsewhere."
            )
        below_splits = len(splits) == len(tops)
        self.taken = {"label": "the folder's name", **({"split": "the folder above"} if below_splits else {})}
        if not below_splits:
            return pd.DataFrame({"file_name": sounds, "label": [name.partition("/")[0] for name in sounds]})
        parts = [name.split("/", 2) for name in sounds]
        if bare := next((name for name, part in zip(sounds, parts, strict=True) if len(part) < 3), None):
            raise DataError(f"{self.root}: {bare} lies in a split's folder, and not in a class folder below it.")
        return pd.DataFrame(
            {"file_name": sounds, "split": [part[0] for part in parts], "label": [part[1] for part in parts]}
        )


def _with_sounds(root: Path, but: Container[str] = ()) -> Iterator[Path]:
    """The folders in `root` below which sounds lie, by name, without those that have one of certain names."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if folder.name not in but and any(map(is_audio, files_below(folder))):
            yield folder
