"""What a layout of SOUSA must offer, and the table that they all end in.

`docs/extending.md` says how to add one.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf

from sousa_bench.data.decode import Part
from sousa_bench.data.rudiments import INDEX, TASK, canonical
from sousa_bench.errors import DataError
from sousa_bench.task import Task

COLUMNS = (
    "sample_id",
    "label",
    "class",
    "group",
    "skill_tier",
    "tempo_bpm",
    "soundfont",
    "augmentation_preset",
)
"""The columns of a public table. `label` is a class number, or a tuple of these where a clip may have several."""

UNKNOWN = "unknown"
"""Stands where a layout doesn't tell a text."""

LABEL_COLUMNS = (
    "sample_id",
    "profile_id",
    "player",
    "rudiment_slug",
    "tempo_bpm",
    "skill_tier",
    "soundfont",
    "augmentation_preset",
    "duration_sec",
)
"""What is read of a Parquet file of labels, as far as it is there."""

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}

Audio = str | BytesIO | Part
"""A path, a file's bytes, or a part of a file."""


class Source(ABC):
    """One dataset in one layout.

    Attributes:
        layout: The layout's name, for people.
        place: The folder or hub id, for people.
        labels: The file that the labels come from, below the folder.
        warnings: What a reader of the results must know about this dataset.
    """

    layout: str
    place: str
    labels: str

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @property
    def task(self) -> Task:
        """What is asked of its clips."""
        return TASK

    @property
    def makes_splits(self) -> bool:
        """Whether clips that come without splits are split without being asked to."""
        return False

    @property
    def understood(self) -> dict[str, str]:
        """What was taken for what, where that is not known beforehand."""
        return {}

    @property
    @abstractmethod
    def identity(self) -> str:
        """Hex digest of what the dataset holds, the same wherever it lies."""

    @abstractmethod
    def read(self) -> pd.DataFrame:
        """The labels, one row a clip.

        Columns: `sample_id`, `rudiment_slug`, `player`; `split` (any usual spelling; where it is missing or empty, the
        clip has none); `audio_path` where clips are files of their own; `tempo_bpm`, `skill_tier`, `soundfont`,
        `augmentation_preset`, `duration_sec` as far as the layout tells them.

        Raises:
            DataError: A file is unreadable.
        """

    def table(self) -> pd.DataFrame:
        """One row a clip: `COLUMNS`, `split` (one of `SPLITS` or ""), `where`, `shard`, `row`, `seconds`.

        `where`, `shard` and `row` are this source's own way to a clip.

        Raises:
            DataError: See `standard_table`.
        """
        return standard_table(self.read(), self.labels)

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
        cache: Folder of all caches.

    Attributes:
        path_column: What the layout calls the paths of the files.
    """

    path_column = "audio_path"

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        super().__init__()
        self.root = root
        self.place = str(root)

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `root` is in this layout: whether its file of labels is there."""
        return is_file(root / cls.labels)

    @cached_property
    def identity(self) -> str:
        """Hash of the file of labels."""
        return file_digest(self.root / self.labels)

    def _paths(self, table: pd.DataFrame) -> list[str]:
        base = str(self.root)
        return [os.path.join(base, where) for where in table["where"]]  # noqa: PTH118 - 100,000 Path objects cost 0.3 s

    @cached_property
    def _homes(self) -> list[Path]:
        return homes(self.root)

    def _states(self, table: pd.DataFrame) -> Iterator[os.stat_result | None]:
        """What the system says of each clip's file, one after another; None where there is no regular one.

        Raises:
            DataError: A clip lies outside of the folder.
        """
        inside: set[str] = set()
        for path, where, row in zip(self._paths(table), table["where"], table["row"], strict=True):
            folder = os.path.dirname(path)  # noqa: PTH120 - as in _paths
            try:
                state = os.lstat(path)
                followed = os.stat(path) if stat.S_ISLNK(state.st_mode) else state  # noqa: PTH116
            except OSError:
                followed = None
            linked = followed is not None and followed is not state
            if any(outside(place, self._homes) for place in {folder} - inside | ({path} if linked else set())):
                raise DataError(
                    f"{self.root / self.labels}, row {row + 1}: {self.path_column} {where!r} leads out of the folder. "
                    "Put the audio itself into it."
                )
            inside.add(folder)
            yield followed if followed is not None and stat.S_ISREG(followed.st_mode) else None

    def sizes(self, table: pd.DataFrame) -> np.ndarray:
        """See `Source.sizes`."""
        return np.fromiter((-1 if state is None else state.st_size for state in self._states(table)), np.int64)

    def sample(self, table: pd.DataFrame) -> str:
        """A kilobyte from the middle of 64 clips."""
        few = table.sort_values("sample_id").iloc[:: max(1, len(table) // 64)]
        return digest(*map(_middle, self._paths(few))).hex()

    def keys(self, table: pd.DataFrame) -> list[bytes]:
        """Hash of sample_id, size and modification time; 16 bytes of zeros where the file is missing."""
        keys = []
        for sample_id, state in zip(table["sample_id"], self._states(table), strict=True):
            keys.append(bytes(16) if state is None else digest(sample_id, state.st_size, state.st_mtime_ns))
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
        if path.exists():
            return f"{name} is no regular file"
        near = sorted(other.name for other in path.parent.glob(f"{glob.escape(path.stem)}*"))[:3]
        return f"{name} is missing" + (f" (there is {', '.join(near)})" if near else "")

    def audio(self, table: pd.DataFrame, positions: np.ndarray) -> Iterator[tuple[int, Audio]]:
        """Paths."""
        base = str(self.root)
        where = table["where"].to_numpy()
        for position in positions:
            yield int(position), os.path.join(base, where[position])  # noqa: PTH118


def is_file(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        DataError: It is a pipe or a device, which would block whoever opens it.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is no regular file: put the file itself there.")
    return path.is_file()


def homes(root: Path) -> list[Path]:
    """Where a dataset's files may lie: its folder, and the blobs that a snapshot of the hub's cache links to."""
    root = root.resolve()
    return [root, *(parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots")]


def outside(path: str, homes: list[Path]) -> bool:
    """Whether a path leads out of all `homes` once its links are followed."""
    real = Path(path).resolve()
    return not any(real.is_relative_to(home) for home in homes)


def _middle(path: str) -> bytes:
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - as in _paths
            return b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(os.fstat(file.fileno()).st_size // 2)
            return file.read(1024)
    except OSError:
        return b""


def _seconds(path: str) -> float | None:
    try:
        return float(sf.info(path).duration) if Path(path).is_file() else None
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


def near_words(name: str, words: Iterable[str]) -> str:
    """In brackets, what comes close to a name that isn't among `words`, or else what there is."""
    there = list(words)
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.6)
    if near:
        return f" (near: {', '.join(near)})"
    return f" (there are: {', '.join(there[:12])}{', …' if len(there) > 12 else ''})"


def column(frame: pd.DataFrame, *names: str) -> pd.Series | None:
    """The first of `names` that is a column of `frame` and isn't empty throughout."""
    return next((frame[name] for name in names if name in frame.columns and not frame[name].isna().all()), None)


def texts(frame: pd.DataFrame, *names: str) -> np.ndarray:
    """A text column under the first of its names; `UNKNOWN` where a value or the whole column is missing."""
    found = column(frame, *names)
    if found is None:
        return np.full(len(frame), UNKNOWN, dtype=object)
    return _each(found, lambda value: UNKNOWN if value == "" else str(value), UNKNOWN)


def _each(values: pd.Series, change: Callable[[Any], str], missing: str) -> np.ndarray:
    """(values,) of text: a function of each value, computed once for equal ones."""
    try:
        codes, unique = pd.factorize(values)
    except TypeError as error:
        raise DataError(f"The labels' column {values.name!r} holds lists or objects; it must hold texts.") from error
    return np.array([*map(change, unique), missing], dtype=object)[codes]  # a missing value's code is -1: the last


def numbers(frame: pd.DataFrame, *names: str) -> np.ndarray | float:
    """A column of numbers under the first of its names; NaN where a value or the whole column is missing."""
    found = column(frame, *names)
    return np.nan if found is None else pd.to_numeric(found, errors="coerce").to_numpy(np.float64)


def need_columns(present: Iterable[object], needed: Iterable[str], origin: object) -> None:
    """Refuse labels that lack a column.

    Raises:
        DataError: It names the first of `needed` that isn't among `present`.
    """
    there = list(map(str, present))
    for name in needed:
        if name not in there:
            raise DataError(f"{origin} has no column {name!r}; it has: {', '.join(there)}.")


def standard_table(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Bring a layout's labels into the common columns.

    Args:
        frame: See `Source.read`; also `shard` and `row`, where audio lies in the rows of files.
        origin: The file it came from, for messages.

    Raises:
        DataError: A needed column is missing, a rudiment or a split unknown, a sample_id occurs twice, an audio_path
            names no file.
    """
    need_columns(frame.columns, ("sample_id", "rudiment_slug", "player"), origin)
    ids = [str(value) for value in frame["sample_id"].tolist()]
    if len(set(ids)) != len(ids):
        times = Counter(ids)
        twice = next(name for name in ids if times[name] > 1)
        raise DataError(f"{origin} lists sample_id {twice!r} more than once: each clip needs its own.")
    unlabelled = np.flatnonzero(frame["rudiment_slug"].isna())
    if len(unlabelled):
        first = ids[int(unlabelled[0])]
        raise DataError(
            f"{origin}: {len(unlabelled):,} of {len(ids):,} clips have no rudiment_slug, the first is {first}."
        )
    for row, path in enumerate(frame["audio_path"].tolist() if "audio_path" in frame.columns else [], 1):
        if not isinstance(path, str) or not path or "\0" in path:
            raise DataError(f"{origin}, row {row} ({ids[row - 1]}): audio_path is {path!r}, which names no file.")
    slugs = _slugs([str(value) for value in frame["rudiment_slug"].tolist()], ids, origin)
    return pd.DataFrame(
        {
            "sample_id": _objects(ids),
            "label": np.array([INDEX[slug] for slug in slugs], dtype=np.int64),
            "class": _objects(slugs),
            "skill_tier": texts(frame, "skill_tier"),
            "tempo_bpm": numbers(frame, "tempo_bpm", "tempo"),
            "soundfont": texts(frame, "soundfont", "aug_soundfont"),
            "augmentation_preset": texts(frame, "augmentation_preset"),
            "seconds": numbers(frame, "duration_sec"),
            "row": frame["row"].to_numpy() if "row" in frame.columns else np.arange(len(frame)),
            "shard": _objects(frame["shard"].tolist()) if "shard" in frame.columns else "",
            "group": texts(frame, "player"),
            "split": _each(frame["split"], lambda v: split_name(v, origin), "") if "split" in frame.columns else "",
            "where": _objects(frame["audio_path"].tolist()) if "audio_path" in frame.columns else "",
        },
    )


def _objects(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _slugs(raw: list[str], ids: list[str], origin: str) -> list[str]:
    slugs: dict[str, str] = {}
    for value in set(raw):
        try:
            slugs[value] = canonical(value)
        except DataError as error:
            raise DataError(f"{origin}, clip {ids[raw.index(value)]}: {error}") from error
    return [slugs[value] for value in raw]


def is_split(name: str) -> bool:
    """Whether a name is a usual spelling of a split."""
    return name.strip().lower() in _SPLIT_NAMES


def split_name(value: object, origin: str, group: str = TASK.group) -> str:
    """`train`, `val` or `test` for any usual spelling; "" for an empty one.

    Args:
        value: The spelling.
        origin: The file, for the message.
        group: What clips come in groups of, for the message.

    Raises:
        DataError: A name that is no split.
    """
    if value == "":
        return ""
    key = str(value).strip().lower()
    if key not in _SPLIT_NAMES:
        raise DataError(
            f"{origin} names a split {value!r}; known are {', '.join(_SPLIT_NAMES)}. "
            f"data.resplit=true makes new splits by {group}."
        )
    return _SPLIT_NAMES[key]
