"""The values of a `data` node: each judged by itself, and OmegaConf's containers made Python's."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from sousa_bench.data import SPLITS
from sousa_bench.data.decode import SHORTEST
from sousa_bench.data.sources.column_names import ALIASES
from sousa_bench.data.subset import REFIT, parse_fold
from sousa_bench.errors import ConfigError
from sousa_bench.system.number_checks import is_number, is_positive, is_whole

if TYPE_CHECKING:
    from sousa_bench.data.run_data import SousaData


def check_values(data: SousaData) -> None:
    """See `SousaData.check`."""
    if not isinstance(data.clips, Mapping):
        raise ConfigError(f"data.clips={data.clips} can't be: say it of a split, such as data.clips.train=80.")
    for split in data.clips:
        if split not in SPLITS:
            raise ConfigError(f"data.clips.{split}: the splits are {', '.join(SPLITS)}.")
    longest = data.max_duration
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "name": (
            lambda v: isinstance(v, str) and v not in ("", ".", "..") and not set(v) & set("/\\\0"),
            "one part of a path, since results' folders are named by it",
        ),
        **{f"clips.{split}": (lambda n: n is None or is_whole(n, 1), "a number of clips, or null") for split in SPLITS},
        "windows": (
            lambda v: v in (None, "all") or is_whole(v, 1),
            "all, a number of windows, at least 1, or null for a clip's beginning alone",
        ),
        "per_class": (
            lambda v: v in (None, "all") or is_whole(v, 1),
            "a number of training clips of each class, at least 1, or all",
        ),
        "max_duration": (lambda v: is_number(v) and v >= SHORTEST, f"seconds, at least {SHORTEST:g}"),
        "quantum": (lambda v: is_number(v) and 0 < v <= longest, f"seconds above 0, up to data.max_duration={longest}"),
        "on_bad_clip": (lambda v: v in ("error", "skip"), "error or skip"),
        "shards": (lambda v: v in ("fewest", "all"), "fewest or all"),
        "resplit": (lambda v: isinstance(v, bool), "true or false"),
        "refit": (lambda v: v in (None, *REFIT), f"{', '.join(REFIT)} or null"),
        "subset_seed": (is_whole, "a whole number"),
        "table": (lambda v: v is None or _below(v), "a file below data.root, or null"),
        "group_pattern": (lambda v: v is None or (isinstance(v, str) and v != ""), "a regular expression, or null"),
        "classes": (
            lambda v: v is None or (isinstance(v, list) and 1 < len(v) == len(set(map(str, v)))),
            "a list of two or more different classes such as [no,yes], or null",
        ),
        **dict.fromkeys(
            ("tempo_min", "tempo_max", "cache_limit_gb"),
            (lambda v: v is None or is_positive(v), "a number above 0, or null"),
        ),
        **dict.fromkeys(
            ("root", "cache_dir"),
            (lambda v: v is None or (isinstance(v, str | PathLike) and "\0" not in str(v)), "a folder, or null"),
        ),
        **dict.fromkeys(("hub_id", "revision"), (lambda v: v is None or isinstance(v, str), "text, or null")),
        "workers": (lambda n: n is None or is_whole(n, 1), "a number of at least 1, or null for all cores"),
    }
    check_keys("data.columns", data.columns, list(ALIASES))
    rules |= {
        f"columns.{key}": (
            lambda v: v is None or v is False or (isinstance(v, str) and v != ""),
            "a name, false or null",
        )
        for key in data.columns
    }
    values = vars(data) | {f"clips.{split}": data.clips.get(split) for split in SPLITS}
    values |= {f"columns.{key}": value for key, value in data.columns.items()}
    for key, (good, what) in rules.items():
        if not good(values[key]):
            raise ConfigError(f"data.{key}={values[key]} can't be: it must be {what}.")
    if data.tempo_min is not None and data.tempo_max is not None and data.tempo_min > data.tempo_max:
        raise ConfigError(f"data.tempo_min={data.tempo_min} lies above data.tempo_max={data.tempo_max}.")
    if parse_fold(data.fold) and data.resplit:
        raise ConfigError("data.fold and data.resplit=true both make splits: choose one.")
    if data.group_pattern and data.columns.get("group"):
        raise ConfigError("data.group_pattern and data.columns.group both say what a clip's group is: choose one.")
    if data.synthetic is not None and data.root:
        raise ConfigError(
            f"data={data.name} makes its own clips and reads no data.root; for those in {data.root} choose "
            "data=folder, or data=tiny|mini|small|medium|full for as many of them."
        )
    if data.synthetic is not None and data.layout:
        raise ConfigError(f"data={data.name} makes its own clips, and data.layout={data.layout} reads a folder.")
    if data.synthetic is not None and (given := data.reading.given()):
        raise ConfigError(f"data={data.name} makes its own clips and their labels: leave {given[0]} out.")


def check_keys(node: str, given: Iterable[str], keys: Sequence[str]) -> None:
    """Refuse a key that a node doesn't have.

    Raises:
        ConfigError: It names the key and what comes closest.
    """
    for key in given:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"Did you mean {node}.{near[0]}? " if near else ""
            raise ConfigError(f"{node}.{key}: there is no such key. {hint}There are: {', '.join(keys)}.")


def plain(value: Any) -> Any:
    """OmegaConf's containers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _below(value: object) -> bool:
    """Whether a value is a path that stays in the folder that it counts from."""
    return isinstance(value, str) and value != "" and normpath(value).split("/")[0] not in ("", "..")
