"""A folder of sounds of any task, in whatever layout."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from sousa_bench.data.sources.clip_parts import keys_of_parts, parts_of, sample_of_parts
from sousa_bench.data.sources.labelled import Labelled, Reading, labelled
from sousa_bench.data.sources.source import Audio, FolderSource, digest
from sousa_bench.errors import ConfigError
from sousa_bench.task import Task


class LabelledFolder(FolderSource):
    """A layout whose labels are the user's own; `read` is what a subclass writes.

    Args:
        root: The folder.
        cache: Folder of all caches.
        reading: What the config says about how it is to be read.

    Attributes:
        taken: For the columns that `read` gives, the column that each was taken from, or words for where else it came
            from; `read` fills it. A group is called after what stands here for `group`.
        names_columns: Whether `read` itself takes the columns that `data.columns` names.
    """

    path_column = "the file's name"
    names_columns = False

    def __init__(self, root: Path, cache: Path | None = None, reading: Reading | None = None) -> None:
        super().__init__(root, cache)
        self.reading = reading or Reading()
        self.taken: dict[str, str] = {}

    @abstractmethod
    def read(self) -> pd.DataFrame:
        """A row a clip.

        Columns: `file_name` below the folder; `label`, or `labels` (lists, or texts with commas) where a clip may have
        several; `split` (any usual spelling), `fold`, `group`, `onset` and `offset` (seconds in the file; the clip is
        that part of it) and `sample_id` as far as the layout tells them.

        Raises:
            DataError: A file is unreadable.
        """

    def classes(self) -> Sequence[str] | None:
        """The layout's own classes in their order; None: those of the clips, sorted."""
        return None

    def display_names(self) -> Mapping[str, str]:
        """Names of classes for people, where they are others than the classes."""
        return {}

    def _chosen_columns(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What was read, without the columns that `data.columns` leaves out."""
        if self.names_columns:
            return frame
        for key, name in self.reading.columns.items():
            if name is not False or key not in ("split", "fold", "group"):
                raise ConfigError(
                    f"data.columns.{key}={name} can't be: {self.root} holds {self.layout}, which has no columns to "
                    "choose from. Its split, fold or group can be left aside, as with data.columns.group=false."
                )
            self.taken.pop(key, None)
        return frame.drop(columns=list(self.reading.columns), errors="ignore")

    @cached_property
    def _labelled(self) -> Labelled:
        frame = self._chosen_columns(self.read())
        found = labelled(frame, self.taken, self.reading, self.labels, self.classes(), self.display_names())
        self.warnings += found.warnings
        return found

    @property
    def task(self) -> Task:
        """See `Source.task`."""
        return self._labelled.task

    @property
    def makes_splits(self) -> bool:
        """See `Source.makes_splits`."""
        return True

    @property
    def understood(self) -> dict[str, str]:
        """See `Source.understood`."""
        return {"layout": self.layout, **self._labelled.understood}

    def table(self) -> pd.DataFrame:
        """See `Source.table`; also `fold`, `onset` and `offset`."""
        return self._labelled.table

    @cached_property
    def identity(self) -> str:
        """Hash of the files' names, without their folders, and sizes: a corrected label decodes nothing anew."""
        paths = set(self._paths(self.table()))
        return digest(*sorted(f"{path.rpartition('/')[2]}:{_size(path)}" for path in paths)).hex()

    def sample(self, table: pd.DataFrame) -> str:
        """See `FolderSource.sample`; with the parts of the files that the clips are, where they are parts."""
        return sample_of_parts(super().sample(table), table)

    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """Hash of file, size and modification time, and of the part of the file that the clip is; see `Source.keys`.

        The file's name stands for the clip's, which a corrected table may give to another file.
        """
        return keys_of_parts(super().keys(table.assign(sample_id=table["where"])), table)

    def mean_seconds(self, table: pd.DataFrame) -> float:
        """From the parts' lengths, where clips are parts with an end, else from headers."""
        known = table["seconds"].dropna()
        return float(known.mean()) if len(known) else super().mean_seconds(table)

    def audio(self, table: pd.DataFrame, positions: np.ndarray) -> Iterator[tuple[int, Audio]]:
        """Paths, or parts of files."""
        return parts_of(super().audio(table, positions), table)


def _size(path: str) -> int:
    """Bytes; -1 for what is not there."""
    try:
        return os.path.getsize(path)  # noqa: PTH202 - asked of each of 500,000 files
    except OSError:
        return -1
