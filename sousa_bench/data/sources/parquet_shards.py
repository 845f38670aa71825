"""The hub's Parquet layout in a local folder: shards `train-00000-of-00012.parquet` with the audio in their rows."""

from __future__ import annotations

import os
import re
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

from sousa_bench.data.sources.source import Audio, Source, digest, split_name, standard_table, texts
from sousa_bench.errors import DataError

_SHARD = re.compile(r"^(train|training|val|valid|validation|dev|test)(-(\d+)-of-(\d+))?(-[0-9a-f]+)?\.parquet$")
_FOLDERS = ("audio", "data", "")
_WANTED = (
    "sample_id",
    "profile_id",
    "player",
    "rudiment_slug",
    "skill_tier",
    "tempo_bpm",
    "soundfont",
    "augmentation_preset",
    "duration_sec",
)
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
    def split(self) -> str:
        """The split that its name says."""
        match = _SHARD.match(self.name.rpartition("/")[2])
        assert match is not None
        return split_name(match[1], self.name)


def choose_shards(files: Sequence[Shard]) -> list[Shard]:
    """The shards among a dataset's files: those of `audio/`, else of `data/`, else of the top folder, else any."""
    shards = [file for file in files if _SHARD.match(file.name.rpartition("/")[2])]
    folders = {shard.name.rpartition("/")[0] for shard in shards}
    folder = next((name for name in _FOLDERS if name in folders), min(folders, default=""))
    return sorted((s for s in shards if s.name.rpartition("/")[0] == folder), key=lambda s: s.name)


def read_rows(file: Any, name: str, split: str) -> pd.DataFrame:
    """One shard's metadata: `_WANTED` as far as it is there, `shard`, `row`, `row_group`, `split`; no audio is read.

    Raises:
        DataError: No Parquet file, or one without audio.
    """
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            names = parquet.schema_arrow.names
            if "audio" not in names:
                raise DataError(f"{name} has no column 'audio'; it has: {', '.join(names)}.")
            frame = parquet.read(columns=[column for column in _WANTED if column in names]).to_pandas()
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

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache = cache

    @cached_property
    def shards(self) -> list[Shard]:
        """The dataset's shards in the order of their names."""
        raise NotImplementedError

    def _all_rows(self) -> pd.DataFrame:
        raise NotImplementedError

    def path(self, shard: str) -> Path:
        """Where a shard lies on this machine; after `fetch`."""
        raise NotImplementedError

    @cached_property
    def identity(self) -> str:
        """Hash of the shards' names and sizes."""
        return digest(*(f"{shard.name}:{shard.size}" for shard in self.shards)).hex()

    def table(self) -> pd.DataFrame:
        """See `Source.table`; the list of rows is kept, so that the shards are opened once."""
        kept = self.cache / "hub" / f"{self.identity}.parquet"
        try:
            frame = pd.read_parquet(kept)
        except (OSError, ValueError):
            frame = self._all_rows()
            _write(frame, kept)
        self._note_gaps()
        players = texts(frame, "profile_id", "player")
        table = standard_table(
            frame, self.place, player=players, split=frame["split"].tolist(), where="", shard=frame["shard"].tolist()
        )
        table["row"] = frame["row"].to_numpy()
        table["row_group"] = frame["row_group"].to_numpy()
        return table

    def _note_gaps(self) -> None:
        for split in dict.fromkeys(shard.split for shard in self.shards):
            names = [_SHARD.match(s.name.rpartition("/")[2]) for s in self.shards if s.split == split]
            totals = {int(name[4]) for name in names if name and name[4]}
            if len(totals) == 1 and len(names) < (total := totals.pop()):
                self.warnings.append(f"{self.place} holds {len(names)} of the {total} {split} shards")

    def sizes(self, table: pd.DataFrame) -> np.ndarray:
        """Bytes of the shard that holds each clip."""
        size = {shard.name: shard.size for shard in self.shards}
        return np.array([size[name] for name in table["shard"]], np.int64)

    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """Hash of sample_id, shard, its size, and the row in it."""
        size = {shard.name: shard.size for shard in self.shards}
        rows = zip(table["sample_id"], table["shard"], table["row"], strict=True)
        return [digest(sample_id, shard, size[shard], row) for sample_id, shard, row in rows]

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
                            yield int(position[row + i]), _audio(column[i].as_py(), path.parent)
                    row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} can't be read ({error}): download it again.") from error


def _audio(cell: Any, folder: Path) -> Audio:
    if isinstance(cell, bytes):
        return BytesIO(cell)
    if cell and cell.get("bytes") is not None:
        return BytesIO(cell["bytes"])
    name = (cell or {}).get("path")
    return str(folder / name) if name else ""


def _write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    frame.to_parquet(temporary)
    temporary.replace(path)


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
    def files(root: Path) -> list[Shard]:
        """Parquet files at most two folders down."""
        found = [*root.glob("*.parquet"), *root.glob("[!.]*/*.parquet"), *root.glob("[!.]*/[!.]*/*.parquet")]
        return [Shard(path.relative_to(root).as_posix(), path.stat().st_size) for path in found]

    @staticmethod
    def fits(root: Path) -> bool:
        """Whether `root` is in this layout."""
        return bool(choose_shards(HubFolder.files(root)))

    @cached_property
    def shards(self) -> list[Shard]:
        """See `Shards.shards`."""
        return choose_shards(self.files(self.root))

    def path(self, shard: str) -> Path:
        """See `Shards.path`."""
        return self.root / shard

    def _all_rows(self) -> pd.DataFrame:
        return pd.concat([read_rows(self.path(s.name), s.name, s.split) for s in self.shards], ignore_index=True)
