"""The hub's Parquet layout in a local folder: shards `train-00000-of-00012.parquet` with the audio in their rows."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sousa_bench.data.sources.source import (
    LABEL_COLUMNS,
    Audio,
    Source,
    digest,
    homes,
    is_file,
    need_columns,
    outside,
    split_name,
    standard_table,
    texts,
)
from sousa_bench.errors import DataError
from sousa_bench.system.files import replaced

_SHARD = re.compile(r"^(train|training|val|valid|validation|dev|test)(-(\d+)-of-(\d+))?(-[0-9a-f]+)?\.parquet$")
_FOLDERS = ("audio", "data", "")
_AT_ONCE = 16
"""Clips read from a row group at a time: about 16 MB."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file.

    Attributes:
        name: Path below the dataset's top folder, with slashes.
        size: Bytes.
    """

    name: str
    size: int

    @property
    def folder(self) -> str:
        """The folder that it lies in; "" for the top one."""
        return self.name.rpartition("/")[0]

    @property
    def match(self) -> re.Match[str] | None:
        """What its file name says, where it is one of a shard: split, number, how many there are."""
        return _SHARD.match(self.name.rpartition("/")[2])

    @property
    def split(self) -> str:
        """The split that its name says."""
        assert self.match is not None
        return split_name(self.match[1], self.name)


def choose_shards(files: Sequence[Shard]) -> list[Shard]:
    """The shards among a dataset's files: those of `audio/`, else of `data/`, else of the top folder, else any."""
    shards = sorted((file for file in files if file.match), key=lambda shard: shard.name)
    folders = {shard.folder for shard in shards}
    folder = next((name for name in _FOLDERS if name in folders), min(folders, default=""))
    return [shard for shard in shards if shard.folder == folder]


def read_rows(file: Any, name: str, split: str) -> pd.DataFrame:
    """One shard's labels: `LABEL_COLUMNS` that are there, `shard`, `row`, `row_group`, `split`; no audio is read.

    Raises:
        DataError: No Parquet file, or one without audio.
    """
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            names = parquet.schema_arrow.names
            need_columns(names, ("audio",), name)
            frame = parquet.read(columns=[column for column in LABEL_COLUMNS if column in names]).to_pandas()
            rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} can't be read as Parquet ({error}): download it again.") from error
    frame["shard"] = name
    frame["row"] = np.arange(len(frame))
    frame["row_group"] = np.repeat(np.arange(len(rows)), rows)
    frame["split"] = split
    return frame


class Shards(Source):
    """What the hub's layout is, wherever its shards lie.

    Args:
        cache: Folder that keeps the list of all rows between runs.
    """

    layout = "hub Parquet"
    labels = "train-*.parquet with an 'audio' column, also one or two folders down"

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache = cache

    @property
    @abstractmethod
    def shards(self) -> list[Shard]:
        """The dataset's shards in the order of their names."""

    @abstractmethod
    def read_shards(self) -> list[pd.DataFrame]:
        """`read_rows` of each shard."""

    @abstractmethod
    def path(self, shard: str) -> Path:
        """Where a shard lies on this machine; after `fetch`."""

    @cached_property
    def _size(self) -> dict[str, int]:
        return {shard.name: shard.size for shard in self.shards}

    @cached_property
    def identity(self) -> str:
        """Hash of the shards' names and sizes."""
        return digest(*(f"{shard.name}:{shard.size}" for shard in self.shards)).hex()

    def read(self) -> pd.DataFrame:
        """See `Source.read`; the list of rows is kept, so that the shards are opened once."""
        kept = self.cache / "hub" / f"{self.identity}.parquet"
        try:
            frame = pd.read_parquet(kept)
        except (OSError, ValueError):
            frame = pd.concat(self.read_shards(), ignore_index=True)
            with replaced(kept) as draft:
                frame.to_parquet(draft)
        self._tell_gaps()
        return frame.assign(player=texts(frame, "profile_id", "player"))

    def table(self) -> pd.DataFrame:
        """See `Source.table`; `row_group` says where in its shard a clip is found."""
        frame = self.read()
        return standard_table(frame, self.place).assign(row_group=frame["row_group"].to_numpy())

    def _tell_gaps(self) -> None:
        """Warn of shards that their neighbours' names promise and that aren't there."""
        for split in dict.fromkeys(shard.split for shard in self.shards):
            names = [shard.match for shard in self.shards if shard.split == split]
            totals = {int(name[4]) for name in names if name and name[4]}
            if len(totals) == 1 and len(names) < (total := totals.pop()):
                self.warnings.append(f"{self.place} holds {len(names)} of the {total} {split} shards")

    def sizes(self, table: pd.DataFrame) -> np.ndarray:
        """Bytes of the shard that holds each clip."""
        return np.array([self._size[name] for name in table["shard"]], np.int64)

    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """Hash of sample_id, shard, its size, and the row in it."""
        rows = zip(table["sample_id"], table["shard"], table["row"], strict=True)
        return [digest(sample_id, shard, self._size[shard], row) for sample_id, shard, row in rows]

    def names(self, table: pd.DataFrame) -> list[str]:
        """Shard, row and sample_id."""
        rows = zip(table["sample_id"], table["shard"], table["row"], strict=True)
        return [f"{shard} row {row} ({sample_id})" for sample_id, shard, row in rows]

    def groups(self, table: pd.DataFrame, size: int) -> list[np.ndarray]:
        """Cut between row groups only, so that none is read twice."""
        order = np.lexsort((table["row"].to_numpy(), table["shard"].to_numpy().astype(str)))
        shard, group = table["shard"].to_numpy()[order], table["row_group"].to_numpy()[order]
        starts = np.flatnonzero(np.r_[True, (shard[1:] != shard[:-1]) | (group[1:] != group[:-1])])
        cuts = [0]
        for start in starts[1:]:
            if start - cuts[-1] >= size:
                cuts.append(int(start))
        return np.split(order, cuts[1:])

    def audio(self, table: pd.DataFrame, positions: np.ndarray) -> Iterator[tuple[int, Audio]]:
        """Bytes, or the path of a file beside the shard where a row holds only that."""
        part = table.iloc[positions]
        wanted = pd.DataFrame({"position": positions, "row": part["row"].to_numpy()})
        shards, groups = part["shard"].tolist(), part["row_group"].tolist()
        for shard, group in dict.fromkeys(zip(shards, groups, strict=True)):
            rows = wanted[(part["shard"] == shard).to_numpy() & (part["row_group"] == group).to_numpy()]
            yield from self._row_group(shard, group, dict(zip(rows["row"], rows["position"], strict=True)))

    def _row_group(self, shard: str, group: int, position: dict[int, int]) -> Iterator[tuple[int, Audio]]:
        path = self.path(shard)
        try:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as parquet:
                row = sum(parquet.metadata.row_group(i).num_rows for i in range(group))
                for batch in parquet.iter_batches(_AT_ONCE, row_groups=[group], columns=["audio"], use_threads=False):
                    column = batch.column(0)
                    for i in range(len(batch)):
                        if row + i in position:
                            yield (
                                int(position[row + i]),
                                _audio(column[i].as_py(), path.parent, f"{shard} row {row + i}"),
                            )
                    row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} can't be read ({error}): download it again.") from error


def _audio(cell: Any, folder: Path, origin: str) -> Audio:
    if isinstance(cell, bytes):
        return BytesIO(cell)
    if cell and cell.get("bytes") is not None:
        return BytesIO(cell["bytes"])
    name = (cell or {}).get("path")
    if not name:
        return ""
    path = str(folder / name)
    if "\0" in path or outside(path, homes(folder)):
        raise DataError(f"{origin}: the audio's path {name!r} leads out of {folder}. Put the audio itself into it.")
    return path


class HubFolder(Shards):
    """The hub's layout in a local folder.

    Args:
        root: The dataset's top folder, or the one that holds the shards.
        cache: See `Shards`.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(cache)
        self.root = root
        self.place = str(root)

    @staticmethod
    def find_shards(root: Path) -> list[Shard]:
        """Those at most two folders down."""
        found = [*root.glob("*.parquet"), *root.glob("[!.]*/*.parquet"), *root.glob("[!.]*/[!.]*/*.parquet")]
        return choose_shards(
            [Shard(path.relative_to(root).as_posix(), path.stat().st_size) for path in found if is_file(path)]
        )

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `root` is in this layout."""
        return bool(cls.find_shards(root))

    @cached_property
    def shards(self) -> list[Shard]:
        """See `Shards.shards`."""
        return self.find_shards(self.root)

    def path(self, shard: str) -> Path:
        """See `Shards.path`."""
        return self.root / shard

    def read_shards(self) -> list[pd.DataFrame]:
        """See `Shards.read_shards`."""
        return [read_rows(self.path(shard.name), shard.name, shard.split) for shard in self.shards]
