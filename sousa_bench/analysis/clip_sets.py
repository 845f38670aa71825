"""Test predictions of many runs, aligned clip by clip: runs that saw the same clips share one ``ClipSet``."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sousa_bench.analysis.stats.class_order import class_order
from sousa_bench.results.predictions import SOUSA_COLUMNS
from sousa_bench.results.result import clean
from sousa_bench.task import Task

MAX_BYTES = 1024**3
MAX_CLIPS = 5_000_000
IDENTITY = ("sample_id", "label", "group")
SLICES = ("skill_tier", "tempo_bpm", "soundfont")
DICTIONARIES = ("group", "player", "skill_tier", "soundfont")  # few different texts, many rows


class PredictionsError(ValueError):
    """A predictions file that is missing, foreign, too large or outside of its run's folder."""


@dataclass
class ClipSet:
    """The same test clips, predicted by one run or many.

    Attributes:
        task: What they were asked.
        sample_id: Identity of each clip, sorted, shape (clips,).
        label: True class of each clip, shape (clips,).
        player: Player number of each clip, shape (clips,), or None where the files name no player.
        players: The players' names.
        slices: ``skill_tier`` and ``soundfont`` (texts), ``tempo_bpm`` (beats a minute), where given.
        rows: Row number in the table of each run.
        predicted: Predicted class, shape (runs, clips).
    """

    task: Task
    sample_id: NDArray[Any]
    label: NDArray[np.int64]
    player: NDArray[np.int64] | None
    players: list[str]
    slices: dict[str, NDArray[Any]]
    rows: list[int] = field(default_factory=list)
    predicted: NDArray[np.int16] = field(default_factory=lambda: np.empty((0, 0), np.int16))

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Clips of each player, shape (players,); no player known: empty."""
        return (
            np.zeros(0) if self.player is None else np.bincount(self.player, minlength=len(self.players)).astype(float)
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each run recognised each clip, shape (runs, clips)."""
        right: NDArray[np.bool_] = self.predicted == self.label
        return right

    @cached_property
    def order(self) -> list[int]:
        """The classes' numbers as figures list them."""
        return class_order(self.task, self.label, self.predicted)

    def totals(self, values: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Sums of ``values`` (rows, clips) by player, shape (rows, players), over the clips in ``mask``.

        Sums of booleans are whole numbers whatever the precision, so these take half the memory. Anything else is
        summed in double precision: equal sums must stay equal, or a permutation test miscounts its ties.
        """
        if self.player is None:
            return np.zeros((len(values), 0))
        kind = np.float32 if values.dtype == bool else np.float64
        onehot = np.zeros((len(self.player), len(self.players)), kind)
        chosen = np.arange(len(self.player)) if mask is None else np.flatnonzero(mask)
        onehot[chosen, self.player[chosen]] = 1
        return (values.astype(kind) @ onehot).astype(float)


def read_predictions(
    table: pd.DataFrame, tasks: Sequence[Task], rows: Iterable[int]
) -> tuple[list[ClipSet], list[str]]:
    """Read the predictions of the runs ``rows`` (row numbers of ``table``, whose tasks are ``tasks``).

    Returns:
        The clip sets, that of most runs first, and one line for each file that was passed over.
    """
    sets: dict[str, ClipSet] = {}
    predicted: dict[str, list[NDArray[np.int16]]] = {}
    problems: list[str] = []
    seen: list[tuple[pa.Table, Task, str, NDArray[np.int64]]] = []
    for row in rows:
        named = table["files.predictions"].iloc[row] if "files.predictions" in table else None
        if not isinstance(named, str) or not named:
            continue
        try:
            content = _read(Path(table["folder"].iloc[row]), named)
            key, order = _identify(content, tasks[row], sets, seen)
            classes = _classes(content["predicted"], tasks[row])[order]
        except (PredictionsError, pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{table['folder'].iloc[row]}: predictions passed over ({clean(str(error))[:300]})")
            continue
        sets[key].rows.append(row)
        predicted.setdefault(key, []).append(classes)
    for key, clips in sets.items():
        clips.predicted = np.stack(predicted[key]) if key in predicted else np.empty((0, len(clips.label)), np.int16)
    return sorted((clips for clips in sets.values() if clips.rows), key=lambda clips: -len(clips.rows)), problems


def inside(folder: Path, named: str) -> Path:
    """The file ``named`` by a result, if it is a regular file below the run's folder.

    Raises:
        PredictionsError: It lies elsewhere, or is none.
    """
    try:
        path = (folder / named).resolve()
        good = path.is_relative_to(folder.resolve()) and stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:
        raise PredictionsError(f"{named!r} can't be opened: {error}") from error
    if not good:
        raise PredictionsError(f"{named!r} is no file inside of the run's folder")
    return path


def _read(folder: Path, named: str) -> pa.Table:
    path = inside(folder, named)
    if path.stat().st_size > MAX_BYTES:
        raise PredictionsError(f"larger than {MAX_BYTES // 2**20} MiB")
    metadata = pq.read_metadata(path)
    texts = [name for name in DICTIONARIES if name in metadata.schema.names]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
        if file.metadata.num_rows > MAX_CLIPS:
            raise PredictionsError(f"more than {MAX_CLIPS:,} clips")
        there = set(file.schema_arrow.names)
        if missing := {"sample_id", "label", "predicted"} - there:
            raise PredictionsError(f"no column {', '.join(sorted(missing))}")
        wanted = (*IDENTITY, *SOUSA_COLUMNS.values(), "predicted", *SLICES)
        _check_size(file, set(wanted))
        table: pa.Table = file.read([name for name in wanted if name in there])
    table = table.rename_columns({then: now for now, then in SOUSA_COLUMNS.items() if then in there})
    if not table.num_rows:
        raise PredictionsError("no clip in it")
    if table["sample_id"].null_count or table["label"].null_count or table["predicted"].null_count:
        raise PredictionsError("a sample_id, label or prediction is missing")
    return table


def _check_size(file: pq.ParquetFile, wanted: set[str]) -> None:
    """Refuse columns that are small on disk and huge in memory."""
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    total = sum(column.total_uncompressed_size for column in columns if column.path_in_schema in wanted)
    if total > MAX_BYTES:
        raise PredictionsError(f"larger than {MAX_BYTES // 2**20} MiB when unpacked")


def _identify(
    content: pa.Table,
    task: Task,
    sets: dict[str, ClipSet],
    seen: list[tuple[pa.Table, Task, str, NDArray[np.int64]]],
) -> tuple[str, NDArray[np.int64]]:
    """The key of the content's clip set (made when new), and the order that sorts its clips by ``sample_id``."""
    identity = content.select([name for name in IDENTITY if name in content.column_names])
    for known, its_task, key, order in seen:
        if task == its_task and identity.equals(known):
            return key, order
    sample_id = _texts(content["sample_id"])
    order = np.argsort(sample_id, kind="stable")
    sample_id = sample_id[order]
    if (sample_id[1:] == sample_id[:-1]).any():
        raise PredictionsError("a sample_id occurs twice")
    label = _classes(content["label"], task)[order].astype(np.int64)
    names = _texts(content["group"])[order] if _complete(content, "group") else None
    digest = hashlib.sha256("\x1f".join(sample_id).encode("utf-8", "replace"))
    digest.update(task.digest.encode())
    digest.update(label.tobytes())
    digest.update(b"" if names is None else "\x1f".join(names).encode("utf-8", "replace"))
    key = digest.hexdigest()
    if key not in sets:
        players, codes = (None, None) if names is None else np.unique(names, return_inverse=True)
        slices = {name: _slice(content, name)[order] for name in SLICES if _complete(content, name)}
        sets[key] = ClipSet(task, sample_id, label, codes, [] if players is None else [str(p) for p in players], slices)
    if len(seen) < 64:
        seen.append((identity, task, key, order))
    return key, order


def _complete(content: pa.Table, name: str) -> bool:
    return name in content.column_names and content[name].null_count == 0


def _texts(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.array([clean(str(value))[:200] for value in column.to_pylist()])


def _slice(content: pa.Table, name: str) -> NDArray[Any]:
    if name == "tempo_bpm":
        return np.array([float(value) for value in content[name].to_pylist()])
    return _texts(content[name])


def _classes(column: pa.ChunkedArray, task: Task) -> NDArray[np.int16]:
    """Class numbers of a column of numbers or names."""
    if pa.types.is_integer(column.type):
        numbers = column.to_numpy()
    else:
        index = {name: number for number, name in enumerate(task.classes)}
        numbers = np.array([index.get(str(value), -1) for value in column.to_pylist()])
    if ((numbers < 0) | (numbers >= len(task.classes))).any():
        raise PredictionsError(f"a class is none of the {len(task.classes)} {task.nouns}")
    return numbers.astype(np.int16)
