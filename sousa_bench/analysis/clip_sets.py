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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sousa_bench.analysis.stats.average_precision import blocks, pseudo_values
from sousa_bench.analysis.stats.class_order import class_order
from sousa_bench.results.predictions import SOUSA_COLUMNS
from sousa_bench.system.foreign import clean
from sousa_bench.task import Task

MAX_BYTES = 1024**3
MAX_CLIPS = 5_000_000
MAX_TEXT = 200
IDENTITY = ("sample_id", "label", "group")
SLICES = ("skill_tier", "tempo_bpm", "soundfont")
DICTIONARIES = ("group", "player", "skill_tier", "soundfont")  # few different texts, many rows


class PredictionsError(ValueError):
    """A predictions file that is missing, foreign, too large or outside of its run's folder."""


UNREADABLE = (PredictionsError, pa.ArrowException, OSError, ValueError, KeyError, TypeError)
"""What may come of reading a foreign predictions file."""


@dataclass
class ClipSet:
    """The same test clips, predicted by one run or many.

    Attributes:
        task: What they were asked.
        sample_id: Identity of each clip, sorted, shape (clips,).
        label: True class of each clip, shape (clips,); with several labels a clip whether it has each class, shape
            (clips, classes).
        player: Player number of each clip, shape (clips,), or None where the files name no player.
        players: The players' names; where no groups are known, those of the blocks.
        slices: ``skill_tier`` and ``soundfont`` (texts), ``tempo_bpm`` (beats a minute), where given.
        rows: Row number in the table of each run.
        predicted: Predicted class, shape (runs, clips); none with several labels a clip.
        parts: With several labels a clip: what each player is of a run's mean average precision
            (``average_precision.pseudo_values``), shape (runs, parts).
        player_of_part: Shape (parts,): in the clips of several folds a player may have a part in each.
    """

    task: Task
    sample_id: NDArray[Any]
    label: NDArray[Any]
    player: NDArray[np.int64] | None
    players: list[str]
    slices: dict[str, NDArray[Any]]
    rows: list[int] = field(default_factory=list)
    predicted: NDArray[np.int16] = field(default_factory=lambda: np.empty((0, 0), np.int16))
    parts: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    player_of_part: NDArray[np.int64] | None = None

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Clips of each player (with several labels a clip: parts), shape (players,); no player known: empty."""
        owner = self._owner
        return np.zeros(0) if owner is None else np.bincount(owner, minlength=len(self.players)).astype(float)

    @property
    def correct(self) -> NDArray[Any]:
        """What a run's score is the mean of: whether it recognised each clip, shape (runs, clips), or its parts."""
        right: NDArray[Any] = self.parts if self.task.several else self.predicted == self.label
        return right

    @cached_property
    def order(self) -> list[int]:
        """The classes' numbers as figures list them."""
        return class_order(self.task, self.label, self.predicted)

    @property
    def _owner(self) -> NDArray[np.int64] | None:
        """The player of each column of ``correct``."""
        return self.player_of_part if self.task.several else self.player

    def totals(self, values: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Sums of ``values`` (rows, as ``correct``) by player, shape (rows, players), over the clips in ``mask``.

        Sums of booleans are whole numbers whatever the precision, so these take half the memory. Anything else is
        summed in double precision: equal sums must stay equal, or a permutation test miscounts its ties.
        """
        owner = self._owner
        if owner is None:
            return np.zeros((len(values), 0))
        kind = np.float32 if values.dtype == bool else np.float64
        onehot = np.zeros((len(owner), len(self.players)), kind)
        chosen = np.arange(len(owner)) if mask is None else np.flatnonzero(mask)
        onehot[chosen, owner[chosen]] = 1
        return (values.astype(kind) @ onehot).astype(float)


def read_predictions(
    table: pd.DataFrame, tasks: Sequence[Task], rows: Iterable[int]
) -> tuple[list[ClipSet], list[str]]:
    """Read the predictions of the runs ``rows`` (row numbers of ``table``, whose tasks are ``tasks``).

    Returns:
        The clip sets, that of most runs first, and one line for each file that was passed over.
    """
    sets: dict[str, ClipSet] = {}
    found: dict[str, list[NDArray[Any]]] = {}
    problems: list[str] = []
    seen: list[tuple[pa.Table, Task, str, NDArray[np.int64]]] = []
    for row in rows:
        named = table["files.predictions"].iloc[row] if "files.predictions" in table else None
        if not isinstance(named, str) or not named:
            continue
        try:
            answer = "logits" if tasks[row].several else "predicted"
            content = read_columns(Path(table["folder"].iloc[row]), named, answer)
            key, order = _identify(content, tasks[row], sets, seen)
            answers = (
                _parts(content, order, sets[key]) if tasks[row].several else _predicted(content, order, tasks[row])
            )
        except UNREADABLE as error:
            problems.append(f"{table['folder'].iloc[row]}: predictions passed over ({clean(str(error))[:300]})")
            continue
        sets[key].rows.append(row)
        found.setdefault(key, []).append(answers)
    for key, answered in found.items():
        setattr(sets[key], "parts" if sets[key].task.several else "predicted", np.stack(answered))
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


def read_columns(folder: Path, named: str, answer: str) -> pa.Table:
    """What a predictions file says of each clip, under today's names, and the column ``answer`` of it.

    Raises:
        PredictionsError: It lies outside of ``folder``, is too large, or lacks a column or a value that it must have.
        pyarrow.ArrowException: It is no Parquet file, or a damaged one.
    """
    path = inside(folder, named)
    if path.stat().st_size > MAX_BYTES:
        raise PredictionsError(f"larger than {MAX_BYTES // 2**20} MiB")
    metadata = pq.read_metadata(path)
    texts = [name for name in DICTIONARIES if name in metadata.schema.names]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
        if file.metadata.num_rows > MAX_CLIPS:
            raise PredictionsError(f"more than {MAX_CLIPS:,} clips")
        there = set(file.schema_arrow.names)
        if missing := {"sample_id", "label", answer} - there:
            raise PredictionsError(f"no column {', '.join(sorted(missing))}")
        wanted = (*IDENTITY, *SOUSA_COLUMNS.values(), answer, *SLICES)
        _check_size(file, set(wanted))
        table: pa.Table = file.read([name for name in wanted if name in there])
    table = table.rename_columns({then: now for now, then in SOUSA_COLUMNS.items() if then in there})
    if not table.num_rows:
        raise PredictionsError("no clip in it")
    if table["sample_id"].null_count or table["label"].null_count or table[answer].null_count:
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
    sample_id = clip_names(content)
    order = np.argsort(sample_id, kind="stable")
    sample_id = sample_id[order]
    if (sample_id[1:] == sample_id[:-1]).any():
        raise PredictionsError("a sample_id occurs twice")
    label = true_labels(content, task)[order]
    names = group_names(content)
    names = None if names is None else names[order]
    if not task.grouped:
        names = blocks(sample_id)
    digest = hashlib.sha256("\x1f".join(sample_id).encode("utf-8", "replace"))
    digest.update(task.digest.encode())
    digest.update(label.tobytes())
    digest.update(b"" if names is None else "\x1f".join(names).encode("utf-8", "replace"))
    key = digest.hexdigest()
    if key not in sets:
        players, codes = (None, None) if names is None else np.unique(names, return_inverse=True)
        slices = {name: _slice(content, name)[order] for name in SLICES if _complete(content, name)}
        sets[key] = ClipSet(task, sample_id, label, codes, [] if players is None else [str(p) for p in players], slices)
        if task.several and players is not None:
            sets[key].player_of_part = np.arange(len(players))
    if len(seen) < 64:
        seen.append((identity, task, key, order))
    return key, order


def true_labels(content: pa.Table, task: Task) -> NDArray[Any]:
    """The label of each clip as ``ClipSet`` has it, in the file's order."""
    return (_labels if task.several else _class_numbers)(content["label"], task)


def clip_names(content: pa.Table) -> NDArray[Any]:
    """The ``sample_id`` of each clip, in the file's order."""
    return _texts(content["sample_id"])


def group_names(content: pa.Table) -> NDArray[Any] | None:
    """The group of each clip, in the file's order; None where one is not known."""
    return _texts(content["group"]) if _complete(content, "group") else None


def _complete(content: pa.Table, name: str) -> bool:
    return name in content.column_names and content[name].null_count == 0


def _texts(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.array([_short(clean(str(value))) for value in column.to_pylist()])


def _short(text: str) -> str:
    """A text that stays itself: of a long one the end is its digest, so that no two become one.

    NumPy gives each text of an array the room of the longest.
    """
    if len(text) <= MAX_TEXT:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{text[: MAX_TEXT - len(digest) - 2]}… {digest}"


def _slice(content: pa.Table, name: str) -> NDArray[Any]:
    if name == "tempo_bpm":
        return np.array([float(value) for value in content[name].to_pylist()])
    return _texts(content[name])


def _predicted(content: pa.Table, order: NDArray[np.int64], task: Task) -> NDArray[np.int16]:
    """Predicted class of each clip, in the set's order."""
    return _classes(content["predicted"], task)[order]


def _class_numbers(column: pa.ChunkedArray, task: Task) -> NDArray[np.int64]:
    return _classes(column, task).astype(np.int64)


def _labels(column: pa.ChunkedArray, task: Task) -> NDArray[np.bool_]:
    """Whether each clip has each class, shape (clips, classes), of a column of lists."""
    clips, classes = _lists(column)
    made = np.zeros((len(column), len(task.classes)), dtype=bool)
    made[clips, _classes(classes, task)] = True
    if not made.any():
        raise PredictionsError(f"no clip has any of the {len(task.classes)} {task.nouns}")
    return made


def _parts(content: pa.Table, order: NDArray[np.int64], clips: ClipSet) -> NDArray[np.float64]:
    """The players' parts of the mean average precision; one part where no player is known."""
    scores = logits_of(content, clips.task)
    group = np.zeros(len(order), dtype=np.int64) if clips.player is None else clips.player
    return pseudo_values(scores[order], clips.label.astype(bool), group)


def logits_of(content: pa.Table, task: Task) -> NDArray[np.float32]:
    """The logits of each clip, shape (clips, classes), in the file's order.

    Raises:
        PredictionsError: They are not so many finite numbers.
    """
    classes = len(task.classes)
    row, values = _lists(content["logits"])
    scores: NDArray[np.float32] = values.to_numpy().astype(np.float32)
    if len(scores) != len(content) * classes or not np.isfinite(scores).all() or (np.bincount(row) != classes).any():
        raise PredictionsError(f"its logits are not {classes} finite numbers for each clip")
    return scores.reshape(-1, classes)


def _lists(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """The row of each value of a column of lists, and the values."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _is_fixed(column.type)):
        raise PredictionsError("a column that must hold lists, of labels or of logits, holds none")
    whole = column.combine_chunks()
    return pc.list_parent_indices(whole).to_numpy(), pc.list_flatten(whole)


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


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
