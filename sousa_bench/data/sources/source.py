"""What a layout of SOUSA must offer, and the table that they all end in."""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf

from sousa_bench.errors import DataError
from sousa_bench.rudiments import INDEX, canonical

SPLITS = ("train", "val", "test")
COLUMNS = (
    "sample_id",
    "label",
    "rudiment",
    "player",
    "skill_tier",
    "tempo_bpm",
    "soundfont",
    "augmentation_preset",
)
"""The columns of a public table, in order."""

UNKNOWN = "unknown"
"""Stands where a layout doesn't tell a text."""

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
}

Audio = str | BytesIO
"""A path, or a file's bytes."""


class Source(ABC):
    """One dataset in one layout.

    Attributes:
        layout: The layout's name, for people.
        place: The folder or hub id, for people.
        warnings: What a reader of the results must know about this dataset.
    """

    layout: str
    place: str

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @property
    @abstractmethod
    def identity(self) -> str:
        """Hex digest of what the dataset holds, the same wherever it lies."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """One row a clip: `COLUMNS`, `split` (one of `SPLITS` or ""), `where`, `row` and maybe `seconds`.

        `where` and `row` are this source's own way to a clip; `shard` groups clips that are fetched together.
        """

    @abstractmethod
    def sizes(self, table: pd.DataFrame) -> np.ndarray:
        """(clips,) int64 bytes of each clip's audio, or of the file that holds it; -1 where it is missing."""

    def sample(self, table: pd.DataFrame) -> str:
        """Hex digest of a little audio of a few clips, where that is cheap: sizes alone can't tell WAV files apart."""
        return ""

    @abstractmethod
    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """16 bytes a clip that change when its audio may have changed."""

    @abstractmethod
    def names(self, table: pd.DataFrame) -> list[str]:
        """A name for each clip's file by which a person finds it."""

    def missing(self, name: str) -> str:
        """What to tell about a clip whose audio isn't there."""
        return f"{name} is missing"

    def groups(self, table: pd.DataFrame, size: int) -> list[np.ndarray]:
        """Positions in `table` cut into pieces of work of at most `size` clips."""
        return [np.arange(i, min(i + size, len(table))) for i in range(0, len(table), size)]

    def fetch(self, table: pd.DataFrame) -> None:  # noqa: B027 - a layout that lies on the disk fetches nothing
        """Bring what the clips of `table` need onto this machine."""

    def mean_seconds(self, table: pd.DataFrame) -> float:
        """About how long the clips are on average, without reading their audio.

        SOUSA's `duration_sec` leaves out the half second in which the last stroke rings.
        """
        known = table["seconds"].dropna()
        return float(known.mean()) + 0.5 if len(known) else 5.0

    @abstractmethod
    def audio(self, table: pd.DataFrame, positions: np.ndarray) -> Iterator[tuple[int, Audio]]:
        """(position, audio) of each of `positions`, in any order, few at a time in memory."""


class FolderSource(Source):
    """A layout that keeps a file a clip below one folder.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.place = str(root)

    def _paths(self, table: pd.DataFrame) -> list[str]:
        base = str(self.root)
        return [os.path.join(base, where) for where in table["where"]]  # noqa: PTH118 - 100,000 Path objects cost 0.3 s

    def sizes(self, table: pd.DataFrame) -> np.ndarray:
        """See `Source.sizes`."""
        return np.array([-1 if stat is None else stat.st_size for stat in map(_stat, self._paths(table))], np.int64)

    def sample(self, table: pd.DataFrame) -> str:
        """A kilobyte from the middle of 64 clips."""
        few = table.sort_values("sample_id").iloc[:: max(1, len(table) // 64)]
        return digest(*map(_middle, self._paths(few))).hex()

    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """Hash of sample_id, size and modification time; 16 bytes of zeros where the file is missing."""
        keys = []
        for sample_id, path in zip(table["sample_id"], self._paths(table), strict=True):
            stat = _stat(path)
            keys.append(bytes(16) if stat is None else digest(sample_id, stat.st_size, stat.st_mtime_ns))
        return keys

    def names(self, table: pd.DataFrame) -> list[str]:
        """Paths below the root."""
        return list(table["where"])

    def mean_seconds(self, table: pd.DataFrame) -> float:
        """From the headers of a few clips."""
        few = table.iloc[:: max(1, len(table) // 32)]
        found = [seconds for seconds in map(_seconds, self._paths(few)) if seconds is not None]
        return sum(found) / len(found) if found else super().mean_seconds(table)

    def missing(self, name: str) -> str:
        """A missing file is looked for by its beginning: another ending or a renamed copy."""
        path = self.root / name
        near = sorted(other.name for other in path.parent.glob(f"{glob.escape(path.stem)}*"))[:3]
        return f"{name} is missing" + (f" (there is {', '.join(near)})" if near else "")

    def audio(self, table: pd.DataFrame, positions: np.ndarray) -> Iterator[tuple[int, Audio]]:
        """Paths."""
        base = str(self.root)
        where = table["where"].to_numpy()
        for position in positions:
            yield int(position), os.path.join(base, where[position])  # noqa: PTH118


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None


def _middle(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as in _paths
            file.seek(os.fstat(file.fileno()).st_size // 2)
            return file.read(1024)
    except OSError:
        return b""


def _seconds(path: str) -> float | None:
    try:
        return float(sf.info(path).duration)
    except (sf.LibsndfileError, RuntimeError):
        return None


def digest(*parts: object) -> bytes:
    """16 bytes of BLAKE2b over the parts' texts."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()


def file_digest(path: Path) -> str:
    """Hex BLAKE2b of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def near_names(folder: Path, name: str) -> list[str]:
    """Up to three names in `folder` that resemble `name`."""
    with os.scandir(folder) as entries:
        return difflib.get_close_matches(name, [entry.name for entry in entries], n=3, cutoff=0.6)


def column(frame: pd.DataFrame, names: Iterable[str]) -> pd.Series | None:
    """The first of `names` that is a column of `frame` and isn't empty throughout."""
    for name in names:
        if name in frame.columns and not frame[name].isna().all():
            return frame[name]
    return None


def texts(frame: pd.DataFrame, *names: str) -> list[str]:
    """A text column under the first of its names; `UNKNOWN` where a value or the whole column is missing."""
    found = column(frame, names)
    if found is None:
        return [UNKNOWN] * len(frame)
    return [UNKNOWN if pd.isna(value) or value == "" else str(value) for value in found.tolist()]


def standard_table(frame: pd.DataFrame, origin: str, **columns: Any) -> pd.DataFrame:
    """Bring a layout's metadata into the common columns.

    Args:
        frame: The metadata as the layout has it.
        origin: The file it came from, for messages.
        columns: `player`, `split`, `where`, and what else the layout knows better than the frame.

    Raises:
        DataError: A needed column is missing, a rudiment is unknown, a sample_id occurs twice.
    """
    for needed in ("sample_id", "rudiment_slug"):
        if needed not in frame.columns:
            raise DataError(f"{origin} has no column {needed!r}; it has: {', '.join(map(str, frame.columns))}.")
    ids = [str(value) for value in frame["sample_id"].tolist()]
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(f"{origin} lists sample_id {twice!r} more than once: each clip needs its own.")
    unlabelled = np.flatnonzero(frame["rudiment_slug"].isna())
    if len(unlabelled):
        first = ids[int(unlabelled[0])]
        raise DataError(
            f"{origin}: {len(unlabelled):,} of {len(ids):,} clips have no rudiment_slug, the first is {first}."
        )
    slugs = _slugs([str(value) for value in frame["rudiment_slug"].tolist()], ids, origin)
    tempo = column(frame, ("tempo_bpm", "tempo"))
    seconds = column(frame, ("duration_sec",))
    table = pd.DataFrame(
        {
            "sample_id": np.array(ids, dtype=object),
            "label": np.array([INDEX[slug] for slug in slugs], dtype=np.int64),
            "rudiment": np.array(slugs, dtype=object),
            "skill_tier": np.array(texts(frame, "skill_tier"), dtype=object),
            "tempo_bpm": np.nan if tempo is None else pd.to_numeric(tempo, errors="coerce").to_numpy(np.float64),
            "soundfont": np.array(texts(frame, "soundfont", "aug_soundfont"), dtype=object),
            "augmentation_preset": np.array(texts(frame, "augmentation_preset"), dtype=object),
            "seconds": np.nan if seconds is None else pd.to_numeric(seconds, errors="coerce").to_numpy(np.float64),
            "row": np.arange(len(frame)),
            "shard": "",
        },
    )
    for name, values in columns.items():
        table[name] = values if isinstance(values, str) else np.asarray(values, dtype=object)
    return table


def _slugs(raw: list[str], ids: list[str], origin: str) -> list[str]:
    known: dict[str, str] = {}
    for value in set(raw):
        try:
            known[value] = canonical(value)
        except DataError as error:
            raise DataError(f"{origin}, clip {ids[raw.index(value)]}: {error}") from error
    return [known[value] for value in raw]


def split_name(value: object, origin: str) -> str:
    """`train`, `val` or `test` for any usual spelling; "" for none.

    Raises:
        DataError: A name that is no split.
    """
    if value is None or value == "" or value != value:  # NaN differs from itself
        return ""
    key = str(value).strip().lower()
    if key not in _SPLIT_NAMES:
        raise DataError(
            f"{origin} names a split {value!r}; known are {', '.join(_SPLIT_NAMES)}. "
            "data.resplit=true makes new splits by player."
        )
    return _SPLIT_NAMES[key]
