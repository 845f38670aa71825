"""From the labels of any task to its `Task` and the table that every layout ends in."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from numbers import Number

import numpy as np
import pandas as pd

from sousa_bench.data.sources.audio_files import UNSHOWN
from sousa_bench.data.sources.column_names import group_noun
from sousa_bench.data.sources.source import UNKNOWN, near_words, split_name
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.task import CLIP, LONGEST_NAME, MOST_CLASSES, Task, counted

_ROUNDABOUT = r"//|(?:^|/)\.\.?/"
"""In a path that could be written shorter."""

_SEPARATORS = (",", ";", "|")


@dataclass(frozen=True)
class Reading:
    """What the config says about how a dataset is to be read.

    Attributes:
        table: `data.table`: the file with the labels; None: found by its name.
        columns: `data.columns`: the table's own name of a column, or false for one that is not to be used.
        group_pattern: `data.group_pattern`: the group of a clip is what the first bracket finds in its file's name. A
            bracket with a name comes before it, and says what a group is called.
        classes: `data.classes`: the classes in their order; None: those that there are.
    """

    table: str | None = None
    columns: Mapping[str, str | bool] = field(default_factory=dict)
    group_pattern: str | None = None
    classes: Sequence[str] | None = None

    def given(self) -> list[str]:
        """The keys that are set."""
        return [f"data.{key}" for key, value in vars(self).items() if value]


@dataclass(frozen=True)
class Labelled:
    """A dataset's labels, understood.

    Attributes:
        task: What is asked of its clips.
        table: See `Source.table`; also `fold` ("" where none is given), `onset` and `offset` (seconds, NaN where a clip
            is a whole file).
        understood: What was taken for what.
        warnings: What a reader of the results must know.
    """

    task: Task
    table: pd.DataFrame
    understood: dict[str, str]
    warnings: list[str]


def labelled(
    frame: pd.DataFrame,
    taken: Mapping[str, str],
    reading: Reading,
    origin: str,
    classes: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Labelled:
    """What a layout read, as a task and a table.

    Args:
        frame: A row a clip: `file_name` (below the folder); `label` (one) or `labels` (lists, or texts with commas);
            and as far as they are known `split`, `fold`, `group`, `onset`, `offset`, `sample_id`, `shard`, `row`.
        taken: For each of these the column that it was taken from, or words for where else it came from.
        reading: What the config says.
        origin: The file that it came from, for messages.
        classes: The layout's own classes in their order; None: those of the clips, sorted.
        names: Names of classes for people, where they are others than the classes.

    Raises:
        DataError: The labels can't be used, or a text can't be shown; the message names the row or the text.
        ConfigError: A class or a pattern of the config fits no clip.
    """
    if not len(frame):
        raise DataError(f"{origin} names no clips.")
    files = _files(frame["file_name"], origin)
    refuse_unshown(files, "file's name", origin)
    _check_cells(frame, origin)
    onset, offset = _stretch(frame, files, origin)
    ids = _sample_ids(frame, files, onset, offset, origin)
    refuse_unshown(ids, "sample_id", origin)
    several, lists = _label_lists(frame, ids, origin)
    refuse_unshown([name for names in pd.unique(lists) for name in names], "label", origin)
    refuse_unshown([*(classes or ()), *(names or {}).values()], "class", origin)
    order = _classes(lists, ids, reading.classes, classes, origin)
    column = taken.get("group", "group")
    if reading.group_pattern:
        group, noun, told = _by_pattern(files, reading.group_pattern)
    elif "group" in frame.columns:
        group, noun, told = _by_column(frame["group"], column, ids, origin), group_noun(column), column
    elif not np.isnan(onset).all():
        group, noun, told = files, "recording", "the recording that clips were cut from"
    else:
        group, noun, told = ids, CLIP, "none: each clip stands for itself"
    refuse_unshown(group, noun, origin)
    shown = {name: names[name] for name in order if name in names} if names else {}
    task = Task(order, shown, several=several, group=noun)
    number = {name: index for index, name in enumerate(order)}
    codes, unique = pd.factorize(lists)
    numbers = _cells([tuple(sorted(number[name] for name in names)) for names in unique])
    rows = len(frame)
    table = pd.DataFrame(
        {
            "sample_id": ids,
            "label": numbers[codes] if several else np.array([each[0] for each in numbers], np.int64)[codes],
            "class": _cells([",".join(names) for names in unique])[codes],
            **dict.fromkeys(("skill_tier", "soundfont", "augmentation_preset"), UNKNOWN),
            "tempo_bpm": np.nan,
            "seconds": offset - onset,
            "row": frame["row"].to_numpy() if "row" in frame.columns else np.arange(rows),
            "shard": frame["shard"].to_numpy() if "shard" in frame.columns else "",
            "group": group,
            "split": _splits(frame, origin),
            "fold": _folds(frame, ids, origin),
            "where": files,
            "onset": onset,
            "offset": offset,
        }
    )
    return Labelled(task, table, {**taken, "group": told}, _warnings(task, lists, order))


def _cells(values: Sequence[object]) -> np.ndarray:
    """(values,) of objects, tuples among them."""
    return np.fromiter(values, dtype=object, count=len(values))


def refuse_unshown(texts: Iterable[str], what: str, origin: str) -> None:
    """Refuse a text of a foreign file that would do something else to a terminal or a page than to be read.

    Args:
        texts: Texts of one kind.
        what: What such a text is, for the message.
        origin: The file that they came from, for the message.

    Raises:
        DataError: One holds a control character; the message shows it escaped.
    """
    every = list(texts)
    if UNSHOWN.search("".join(every)):
        text = next(each for each in every if UNSHOWN.search(each))
        raise DataError(f"{origin} holds the {what} {text!r}, with characters that can't be shown: rename it.")


def _check_cells(frame: pd.DataFrame, origin: str) -> None:
    """Refuse a cell that is neither text nor number; among the labels, lists of these may be."""
    for name in frame.columns:
        column = frame[name]
        if column.dtype != object or {*map(type, column)} <= {str, int, float, type(None)}:
            continue
        for row, value in enumerate(column, 1):
            listed = name in ("label", "labels") and isinstance(value, (list, tuple, np.ndarray))
            cells = value if listed else [None if value is None or value is pd.NA else value]
            if not all(
                isinstance(cell, (str, Number, np.bool_, date)) or (cell is None and not listed) for cell in cells
            ):
                raise DataError(
                    f"{origin}, row {row}: {name} is {_start(_plain(value))}, neither text nor number"
                    + (", nor a list of these." if name in ("label", "labels") else ".")
                )


def _files(column: pd.Series, origin: str) -> np.ndarray:
    for row, path in enumerate(column.tolist(), 1):
        if not isinstance(path, str) or not path or "\0" in path:
            raise DataError(f"{origin}, row {row}: the file's name is {path!r}, which names no file.")
    slashes = column.str.replace("\\", "/", regex=False)
    roundabout = slashes.str.contains(_ROUNDABOUT)
    return slashes.where(~roundabout, slashes[roundabout].map(posixpath.normpath)).to_numpy(dtype=object)


def _stretch(frame: pd.DataFrame, files: np.ndarray, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """(clips,) beginning and end of each clip in its file, in seconds; NaN where it is the whole file."""
    if "offset" in frame.columns and "onset" not in frame.columns:
        raise DataError(
            f"{origin} says where clips end (offset) and not where they begin: name the column of beginnings with "
            "data.columns.onset=NAME, or leave the ends out with data.columns.offset=false."
        )
    none = np.full(len(frame), np.nan)
    onset = _seconds(frame["onset"]) if "onset" in frame.columns else none
    offset = _seconds(frame["offset"]) if "offset" in frame.columns else none
    for name, values in (("onset", onset), ("offset", offset)):
        if name in frame.columns and (wrong := np.isnan(values) & frame[name].notna().to_numpy()).any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{origin}, row {row + 1} ({files[row]}): {name} is {_start(frame[name].iloc[row])}, not seconds."
            )
    wrong = (onset < 0) | (offset <= onset) | np.isinf(onset) | np.isinf(offset) | (np.isnan(onset) & ~np.isnan(offset))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{origin}, row {row + 1} ({files[row]}): a clip from onset {onset[row]:g} to offset {offset[row]:g} can't "
            "be: both are seconds from the file's beginning, the offset after the onset."
        )
    return onset, offset


def _seconds(column: pd.Series) -> np.ndarray:
    """(clips,) numbers; NaN for what is none."""
    try:
        return pd.to_numeric(column, errors="coerce").to_numpy(float)
    except OverflowError:  # whole numbers beyond all floats
        small = column.map(lambda cell: None if isinstance(cell, int) and cell.bit_length() > 1_000 else cell)
        return pd.to_numeric(small, errors="coerce").to_numpy(float)


def _start(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _sample_ids(
    frame: pd.DataFrame, files: np.ndarray, onset: np.ndarray, offset: np.ndarray, origin: str
) -> np.ndarray:
    parts = files.copy()
    for row in np.flatnonzero(~np.isnan(onset)):
        end = "" if np.isnan(offset[row]) else _exact(offset[row])
        parts[row] = f"{files[row]}@{_exact(onset[row])}-{end}"
    _refuse_twice(parts, origin)
    if "sample_id" not in frame.columns:
        return parts
    given = frame["sample_id"]
    if given.isna().any():
        raise DataError(f"{origin}, row {int(given.isna().argmax()) + 1}: a clip without a sample_id.")
    ids = given.astype(str).to_numpy(dtype=object)
    _refuse_twice(ids, origin)
    return ids


def _exact(seconds: float) -> str:
    return repr(float(seconds)).removesuffix(".0")


def _refuse_twice(names: np.ndarray, origin: str) -> None:
    twice = pd.Series(names).duplicated()
    if twice.any():
        second = int(twice.argmax())
        first = int(np.argmax(names == names[second]))
        raise DataError(
            f"{origin} lists {names[second]!r} twice, in rows {first + 1} and {second + 1}: delete one. A clip with "
            "several labels stands in one row, with a column 'labels'."
        )


def _label_lists(frame: pd.DataFrame, ids: np.ndarray, origin: str) -> tuple[bool, np.ndarray]:
    """Whether clips may have several labels, and (clips,) tuples of their names."""
    several = "labels" in frame.columns
    column = frame["labels" if several else "label"]
    listed = column.map(lambda cell: isinstance(cell, (list, tuple, np.ndarray))).to_numpy(bool)
    if listed.any() and not listed.all():
        row = int(np.argmax(listed != listed[0]))
        raise DataError(
            f"{origin} mixes single and several labels: {ids[0]} has {_shown(column.iloc[0])}, {ids[row]} has "
            f"{_shown(column.iloc[row])}. Give each clip a list, or each one label."
        )
    if listed.any():
        return True, _cells([tuple(dict.fromkeys(map(label_text, cell))) for cell in column.tolist()])
    empty = column.isna() | (column.astype(str).str.strip() == "")
    if empty.any() and not several:
        raise DataError(
            f"{origin}: {int(empty.sum()):,} of {len(ids):,} clips have no label, the first is {ids[empty.argmax()]}."
        )
    codes, unique = pd.factorize(column.where(~empty, None))
    names = [label_text(value) for value in unique]
    if not several:
        _refuse_mixed(names, ids, codes, origin)
        return False, _cells([(name,) for name in names])[codes]
    separator = _separator(names, origin)
    parts = [tuple(dict.fromkeys(part.strip() for part in name.split(separator) if part.strip())) for name in names]
    return True, _cells([*parts, ()])[codes]  # an empty cell's code is -1: the last


def _separator(names: Sequence[str], origin: str) -> str:
    """The mark between the labels of a text."""
    found = {mark: name for mark in _SEPARATORS for name in names if mark in name}
    if len(found) > 1:
        marks, examples = list(found), list(dict.fromkeys(map(repr, found.values())))
        raise DataError(
            f"{origin}: labels hold both {marks[0]!r} and {marks[1]!r} ({', '.join(examples[:2])}), so what stands "
            "between two labels can't be told. Give lists of labels, in a .jsonl or .parquet table."
        )
    return next(iter(found), ",")


def _refuse_mixed(names: Sequence[str], ids: np.ndarray, codes: np.ndarray, origin: str) -> None:
    """A label that is nothing but other labels with commas between them was meant as several."""
    known = set(names)
    for code, name in enumerate(names):
        parts = [part.strip() for part in re.split("[,;|]", name)]
        if len(parts) > 1 and known.issuperset(parts):
            raise DataError(
                f"{origin} mixes single and several labels: {ids[np.argmax(codes == code)]} has {name!r}, and "
                f"{parts[0]!r} is a label by itself. If clips have several labels, call the column 'labels' (or give "
                "data.columns.labels=NAME)."
            )


def _shown(cell: object) -> str:
    return repr(_plain(cell))


def _plain(cell: object) -> object:
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def label_text(value: object) -> str:
    """A label as text; a whole number without the point that an empty cell elsewhere in the column gave it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _classes(
    lists: np.ndarray, ids: np.ndarray, wanted: Sequence[str] | None, own: Sequence[str] | None, origin: str
) -> tuple[str, ...]:
    present = dict.fromkeys(name for names in pd.unique(lists) for name in names)
    order = tuple(wanted or own or sorted(present, key=_natural))
    known = set(order)
    for name in present:
        if name not in known:
            where = ids[next(row for row, names in enumerate(lists) if name in names)]
            what = "data.classes" if wanted else f"the classes of {origin}"
            raise (ConfigError if wanted else DataError)(
                f"The label {name!r} ({where}) is not among {what}{near_words(name, order)}. Add it there, or correct "
                "the label."
            )
        if len(name) > LONGEST_NAME:
            raise DataError(f"{origin}: a label of {len(name)} characters can't be: {name[:40]!r}…")
    if len(order) < 2:
        raise DataError(
            f"{origin} holds one class only ({', '.join(order) or 'none'}): there is nothing to tell apart. Where "
            "labels stand in a table, name it with data.table=FILE."
        )
    if len(order) > MOST_CLASSES:
        raise DataError(
            f"{origin} holds {len(order):,} classes, and the most is {MOST_CLASSES:,}: is the label in another column "
            "(data.columns.label=NAME)?"
        )
    return order


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers in their order, before words."""
    return (0, int(name), name) if re.fullmatch(r"\d{1,9}", name) else (1, 0, name)


def _by_column(groups: pd.Series, name: str, ids: np.ndarray, origin: str) -> np.ndarray:
    empty = groups.isna()
    if empty.any():
        raise DataError(
            f"{origin}: {int(empty.sum()):,} of {len(ids):,} clips have no {name}, the first is {ids[empty.argmax()]}. "
            "Fill it in, or use no groups with data.columns.group=false."
        )
    codes, unique = pd.factorize(groups)
    return _cells([label_text(value) for value in unique])[codes]


def _by_pattern(files: np.ndarray, pattern: str) -> tuple[np.ndarray, str, str]:
    """(clips,) what the pattern's bracket finds, what a group is called, and where it comes from."""
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group_pattern={pattern} is no regular expression: {error}.") from error
    if not search.groups:
        raise ConfigError(
            f"data.group_pattern={pattern} has no bracket: put one around the part of the file's name that is the "
            "group, such as '_([a-z]+)_'."
        )
    # A bracket that has a name gives it to the groups: `_(?P<speaker>[a-z]+)_`.
    name, place = next(iter(search.groupindex.items()), ("group", 1))
    noun = group_noun(name)
    names = files if "/" in pattern else [path.rpartition("/")[2] for path in files]
    found = []
    for file in names:
        match = search.search(file)
        if match is None or not match[place]:
            raise ConfigError(f"data.group_pattern={pattern} finds no {noun} in {file!r}.")
        found.append(match[place])
    there = sorted(set(found))
    named = f"{counted(len(there), noun)}: {', '.join(there[:3])}{', …' if len(there) > 3 else ''}"
    return _cells(found), noun, f"data.group_pattern={pattern} in the file's name ({named})"


def _splits(frame: pd.DataFrame, origin: str) -> np.ndarray | str:
    if "split" not in frame.columns:
        return ""
    codes, unique = pd.factorize(frame["split"])
    return _cells([*(split_name(value, origin, "group") for value in unique), ""])[codes]


def _folds(frame: pd.DataFrame, ids: np.ndarray, origin: str) -> np.ndarray | str:
    if "fold" not in frame.columns:
        return ""
    if frame["fold"].isna().any():
        raise DataError(f"{origin}: {ids[frame['fold'].isna().argmax()]} has no fold, and other clips have one.")
    codes, unique = pd.factorize(frame["fold"])
    names = [label_text(value) for value in unique]
    refuse_unshown(names, "fold", origin)
    return _cells(names)[codes]


def _warnings(task: Task, lists: np.ndarray, order: Sequence[str]) -> list[str]:
    held = Counter(name for names in lists for name in names)
    single = [name for name in order if held[name] == 1]
    found = []
    if not task.grouped:
        found.append(
            "nothing says which clips belong together (one speaker, one recording): each clip stands for itself, so "
            "whether train and test share a source is not known; data.columns.group or data.group_pattern tells"
        )
    if single:
        named = f"{', '.join(single[:3])}{', …' if len(single) > 3 else ''}"
        found.append(
            f"{len(single)} of {len(order)} classes have one clip only, which can't be trained and tested: {named}"
        )
    if bare := sum(not names for names in lists):
        found.append(f"{bare:,} clips have none of the labels")
    return found
