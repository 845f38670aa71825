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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sousa_bench.data.sources.clip_parts import keys_of_parts, parts_of, sample_of_parts
from sousa_bench.data.sources.column_names import known_columns, with_known_names
from sousa_bench.data.sources.hub_features import class_names, label_columns, with_names
from sousa_bench.data.sources.labelled import Labelled, Reading, labelled
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
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.system.files import replaced
from sousa_bench.task import Task

_SHARD = re.compile(
    r"^(?:(?P<folder>.+)/)?(?P<split>train|training|val|valid|validation|dev|test|testing|eval)"
    r"(?:/\d{4,}|(?:-\d+-of-(?P<total>\d+))?(?:-[0-9a-f]+)?)\.parquet$"
)
"""`data/train-00000-of-00012.parquet`, or `default/train/0000.parquet` as the hub's own conversion has it."""
_SOUSA_COLUMN = "rudiment_slug"
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
        """The folder that all shards of the dataset lie in, each split's own left out; "" for the top one."""
        return (self.match["folder"] or "") if self.match else ""

    @property
    def match(self) -> re.Match[str] | None:
        """What its name says, where it is one of a shard: folder, split, how many there are."""
        return _SHARD.match(self.name)

    @property
    def split(self) -> str:
        """The split that its name says."""
        assert self.match is not None
        return split_name(self.match["split"], self.name)


def choose_shards(files: Sequence[Shard]) -> list[Shard]:
    """The shards among a dataset's files: those of `audio/`, else of `data/`, else of the top folder, else any."""
    shards = sorted((file for file in files if file.match), key=lambda shard: shard.name)
    folders = {shard.folder for shard in shards}
    folder = next((name for name in _FOLDERS if name in folders), min(folders, default=""))
    return [shard for shard in shards if shard.folder == folder]


def read_rows(file: Any, name: str, split: str) -> pd.DataFrame:
    """One shard's labels: `shard`, `row`, `row_group`, `split`, and its own columns but for the audio.

    Of SOUSA these are the `LABEL_COLUMNS` that are there. Of any other dataset they are all that hold text, numbers or
    lists of these, classes by their names (their order in `attrs["classes"]`); `audio_name`, what the audio's file was
    called; and `own_split`, its own column `split`.

    Raises:
        DataError: No Parquet file, or one without audio.
    """
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            schema = parquet.schema_arrow
            need_columns(schema.names, ("audio",), name)
            if _SOUSA_COLUMN in schema.names:
                frame = parquet.read(columns=[each for each in LABEL_COLUMNS if each in schema.names]).to_pandas()
            else:
                frame = _any_labels(parquet, name)
            rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} can't be read as Parquet ({error}): download it again.") from error
    frame["shard"] = name
    frame["row"] = np.arange(len(frame))
    frame["row_group"] = np.repeat(np.arange(len(rows)), rows)
    frame["split"] = split
    return frame


def _any_labels(parquet: pq.ParquetFile, name: str) -> pd.DataFrame:
    schema = parquet.schema_arrow
    audio = schema.field("audio").type
    path = ["audio.path"] if pa.types.is_struct(audio) and audio.get_field_index("path") >= 0 else []
    content = parquet.read(columns=[*label_columns(schema), *path])
    frame = content.drop_columns(["audio"] if path else []).to_pandas().rename(columns={"split": "own_split"})
    if path:
        frame["audio_name"] = pc.struct_field(content["audio"], "path").to_pandas()
    classes = {column: names for column, names in class_names(schema).items() if column in frame.columns}
    for column, names in classes.items():
        frame[column] = with_names(frame[column], names, name)
    frame.attrs["classes"] = classes
    return frame


class Shards(Source):
    """What the hub's layout is, wherever its shards lie.

    Datasets of other tasks than SOUSA's are told by their columns.

    Args:
        cache: Folder that keeps the list of all rows between runs.
        reading: What the config says about how labels that are not SOUSA's are to be read.
    """

    layout = "hub Parquet"
    labels = "train-*.parquet with an 'audio' column, also one or two folders down"

    def __init__(self, cache: Path, reading: Reading | None = None) -> None:
        super().__init__()
        self.cache = cache
        self.reading = reading or Reading()

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

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """All shards' rows; kept, so that the shards are opened once."""
        kept = self.cache / "hub" / f"{self.identity}.parquet"
        try:
            frame = pd.read_parquet(kept)
        except (OSError, ValueError):
            frame = pd.DataFrame()
        if _SOUSA_COLUMN not in frame.columns and "classes" not in frame.attrs:
            frame = self._joined(self.read_shards())
            with replaced(kept) as draft:
                frame.to_parquet(draft)
        self._tell_gaps()
        return frame

    def _joined(self, parts: list[pd.DataFrame]) -> pd.DataFrame:
        if any(part.attrs != parts[0].attrs for part in parts):
            raise DataError(f"{self.place}: its shards name different classes, so they are no one dataset.")
        return pd.concat(parts, ignore_index=True)

    def read(self) -> pd.DataFrame:
        """See `Source.read`."""
        return self._rows.assign(player=texts(self._rows, "profile_id", "player"))

    @cached_property
    def _labelled(self) -> Labelled | None:
        """The labels of any task; None for SOUSA's."""
        rows = self._rows
        if _SOUSA_COLUMN in rows.columns:
            if given := self.reading.given():
                raise ConfigError(f"{given[0]} is for data of any task, and {self.place} holds SOUSA: leave it out.")
            return None
        if self.reading.table:
            raise ConfigError(
                f"data.table={self.reading.table}: {self.place} holds its labels beside the audio, in the same rows."
            )
        own = rows.drop(columns=["shard", "row", "row_group", "split", "audio_name"], errors="ignore")
        found = known_columns(own.rename(columns={"own_split": "split"}), self.reading.columns, self.place)
        if not {"label", "labels"} & set(found):
            raise DataError(
                f"{self.place} has no column of labels; its columns are {', '.join(own.columns)}. Name it with "
                "data.columns.label=NAME, or data.columns.labels=NAME where a clip has several."
            )
        frame = with_known_names(own.rename(columns={"own_split": "split"}), found)
        taken = dict(found)
        if rows["split"].nunique() > 1 and "split" not in self.reading.columns:
            frame["split"], taken["split"] = rows["split"], "the shards' names"
        taken.setdefault("file_name", "the audio's own name")
        frame["file_name"] = self._clip_names(rows, frame.get("file_name", rows.get("audio_name")))
        frame[["shard", "row"]] = rows[["shard", "row"]]
        classes = rows.attrs["classes"].get(found.get("label") or found.get("labels"))
        made = labelled(frame, taken, self.reading, self.place, classes)
        self.warnings += made.warnings
        return made

    @staticmethod
    def _clip_names(rows: pd.DataFrame, names: pd.Series | None) -> pd.Series:
        """What the clips' files are called; behind shard and row where that doesn't tell the clips apart."""
        places = rows["shard"] + " row " + rows["row"].astype(str)
        if names is None or names.isna().any():
            return places
        return places + "/" + names.astype(str) if names.duplicated().any() else names.astype(str)

    @property
    def task(self) -> Task:
        """See `Source.task`."""
        return super().task if self._labelled is None else self._labelled.task

    @property
    def makes_splits(self) -> bool:
        """See `Source.makes_splits`."""
        return self._labelled is not None

    @property
    def understood(self) -> dict[str, str]:
        """See `Source.understood`."""
        return {} if self._labelled is None else {"layout": self.layout, **self._labelled.understood}

    def table(self) -> pd.DataFrame:
        """See `Source.table`; `row_group` says where in its shard a clip is found."""
        table = standard_table(self.read(), self.place) if self._labelled is None else self._labelled.table
        return table.assign(row_group=self._rows["row_group"].to_numpy())

    def _tell_gaps(self) -> None:
        """Warn of shards that their neighbours' names promise and that aren't there."""
        for split in dict.fromkeys(shard.split for shard in self.shards):
            names = [shard.match for shard in self.shards if shard.split == split]
            totals = {int(name["total"]) for name in names if name and name["total"]}
            if len(totals) == 1 and len(names) < (total := totals.pop()):
                self.warnings.append(f"{self.place} holds {len(names)} of the {total} {split} shards")

    def sizes(self, table: pd.DataFrame) -> np.ndarray:
        """Bytes of the shard that holds each clip."""
        return np.array([self._size[name] for name in table["shard"]], np.int64)

    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """Hash of sample_id, shard, its size, and the row in it."""
        rows = zip(table["sample_id"], table["shard"], table["row"], strict=True)
        keys = [digest(sample_id, shard, self._size[shard], row) for sample_id, shard, row in rows]
        return keys_of_parts(keys, table) if "onset" in table.columns else keys

    def sample(self, table: pd.DataFrame) -> str:
        """The parts of the rows' audio that the clips are, where they are parts."""
        sample = super().sample(table)
        return sample_of_parts(sample, table) if "onset" in table.columns else sample

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
        """Bytes, or the path of a file beside the shard where a row holds only that, or parts of these."""
        whole = self._whole(table, positions)
        return parts_of(whole, table) if "onset" in table.columns else whole

    def _whole(self, table: pd.DataFrame, positions: np.ndarray) -> Iterator[tuple[int, Audio]]:
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
        reading: See `Shards`.
    """

    def __init__(self, root: Path, cache: Path, reading: Reading | None = None) -> None:
        super().__init__(cache, reading)
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
