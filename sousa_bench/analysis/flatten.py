"""One result file as one flat row. Pure Python: a reader process imports nothing heavy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from sousa_bench.config.identity import lasting_target
from sousa_bench.peft.method_sizes import chosen_keys
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import (
    CONFIG_KEYS,
    EFFICIENCY_KEYS,
    EVALUATED,
    METRIC_KEYS,
    STATUSES,
    ResultError,
    finite,
    is_refit,
    read_foreign_result,
    read_progress,
)
from sousa_bench.results.run_process import true_status
from sousa_bench.system.foreign import clean

MAX_TEXT = 2000
MAX_COLUMNS = 2000
MAX_DEPTH = 8
MAX_NAMES = 500  # that are remembered below one prefix
TOP_FIELDS = ("experiment_id", "status", "error", "timestamp", "git_commit", "fingerprint")
MORE_OF_SEVERAL = ("test_map_micro", "test_auc", "test_lwlrap")
"""Metrics of runs whose clips may have several labels, beside the one that ranks."""
NUMBERS = frozenset({*METRIC_KEYS, *MORE_OF_SEVERAL, *EFFICIENCY_KEYS, "peak_memory_bytes", "max_epochs", "seed"})
LEFT_OUT = frozenset(
    {"resolved_config", "task", "history", "config", "metrics", "efficiency", "lineage", EVALUATED, *TOP_FIELDS}
)
MAX_ANCESTORS = 20
WORD = 2**63  # beyond what a column of whole numbers holds
PER_CLASS, ALL_CLIPS = "data.per_class", "all"  # the key, and its value where it limits nothing
SEEDLESS = ("probe", "knn")  # the strategies that no seed changes: they take no steps
READS, FIRST_READ = "peft.reads", "last"  # what those read, and what they read before there was a choice
BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


class Row(NamedTuple):
    """A run: its flat fields, resolved config as dotted leaves, overrides, the names in its ``config``, its task."""

    fields: dict[str, Any]
    resolved: dict[str, Any]
    overrides: tuple[str, ...]
    config_keys: tuple[str, ...]
    task: str


def read_row(path: Path) -> Row:
    """Read the result at ``path`` and flatten it.

    Raises:
        ResultError: As ``sousa_bench.results.result.read_foreign_result``, or its status is unknown.
    """
    result = read_foreign_result(path)
    if not isinstance(result["status"], str) or result["status"] not in STATUSES:
        raise ResultError(f"{path}: status {clean(str(result['status']))[:40]!r} is none of {', '.join(STATUSES)}")
    if result["status"] == "completed" and is_refit(result):
        raise ResultError(f"{path}: a refit (data.refit), whose scores are those of the runs that it comes from")
    fields = flat_fields(result)  # which cuts the rest, not these three blocks
    if len(fields) > MAX_COLUMNS:
        raise ResultError(f"{path}: config, metrics and efficiency name {len(fields):,} fields, more than any run has")
    fields["path"] = str(path)
    fields["folder"] = str(path.parent)
    fields["status"] = true_status(result, path.parent)
    if result["status"] == "running":
        progress = read_progress(path.parent)
        for key in ("phase", "epoch", "step"):
            if isinstance(value := finite(progress.get(key)), (str, int, float)):
                fields[f"progress.{key}"] = scalar(value)
    resolved = result.get("resolved_config")
    resolved = leaves(resolved) if isinstance(resolved, dict) else {}
    for key in chosen_keys(method_node(resolved)):
        resolved.pop(f"peft.{key}", None)  # the choice's own, at which the run had none
    if resolved.get("teacher.run") is None:  # how much a teacher would count that isn't there
        resolved = {key: value for key, value in resolved.items() if not key.startswith("teacher.")}
    elif name := _known_teacher(result):
        resolved["teacher.run"] = name  # one choice, however the path to it was written
    if len(resolved) > MAX_COLUMNS:
        raise ResultError(f"{path}: resolved_config names {len(resolved):,} fields, more than any run has")
    for key, value in resolved.items():
        if key.endswith("_target_") and isinstance(value, str):
            resolved[key] = lasting_target(value)  # a class that moved is no other choice
    if "data.name" in resolved:
        resolved[PER_CLASS] = resolved.get(PER_CLASS) or ALL_CLIPS  # one choice, three spellings
    if resolved.get("peft.name") in SEEDLESS:
        resolved.setdefault(READS, FIRST_READ)
    config_keys = tuple(leaves(result["config"]))
    named = result.get("overrides")
    overrides = tuple(clean(str(item))[:MAX_TEXT] for item in named[:200]) if isinstance(named, list) else ()
    task = json.dumps(result["task"]) if "task" in result else ""
    return Row(fields, resolved, overrides, config_keys, task)


def flat_fields(result: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a result: the fixed block under its own names, anything else under dotted names.

    The nested parts that are no fields of a run stay in the file: the history, and the resolved config, whose varied
    keys stand in ``config``.
    """
    fields: dict[str, Any] = {key: scalar(result.get(key)) for key in TOP_FIELDS}
    for block, keys in (("config", CONFIG_KEYS), ("metrics", METRIC_KEYS), ("efficiency", EFFICIENCY_KEYS)):
        content = result.get(block)
        content = content if type(content) is dict else {}
        for key in keys:
            fields[key] = number(content.get(key)) if key in NUMBERS else scalar(content.get(key))
        for key, value in leaves(content).items():
            if key not in keys:
                fields[f"{block}.{key}" if key in fields else key] = number(value) if key in NUMBERS else value
    fields["augmentation"] = boolean(fields["augmentation"])
    for key in ("model", "strategy", "data"):
        fields[key] = "unknown" if fields[key] is None else str(fields[key])
    fields["experiment_id"] = str(fields["experiment_id"] or "unnamed")
    failure = result.get("failure")
    if fields["error"] is None and isinstance(failure, Mapping):
        fields["error"] = scalar(failure.get("message"))
    fields |= origin(result)
    rest = leaves({key: value for key, value in result.items() if key not in LEFT_OUT})
    for key, value in itertools.islice(rest.items(), max(MAX_COLUMNS - len(fields), 0)):
        fields[f"result.{key}" if key in fields else key] = value
    return fields


def origin(result: Mapping[str, Any]) -> dict[str, Any]:
    """Where a run comes from: the command, the runs that it goes back to, the run that it evaluates.

    Returns:
        ``lineage.command``, ``lineage.warm`` (whether it went on from their weights), ``lineage.from`` (their ids, each
        with its validation accuracy), of a student ``lineage.teacher`` (as one of those), ``.teacher_score`` (its test
        accuracy, or mean average precision), ``.teacher_params`` and ``.teacher_clips`` (the test clips' fingerprint),
        and ``evaluated_run``; only what there is.
    """
    fields: dict[str, Any] = {}
    if isinstance(evaluated := result.get(EVALUATED), str) and evaluated:
        fields[EVALUATED] = scalar(evaluated)
    lineage = result.get("lineage")
    if not isinstance(lineage, Mapping):
        return fields
    if isinstance(command := lineage.get("command"), str):
        fields["lineage.command"] = scalar(command)
    if isinstance(warm := lineage.get("warm"), bool):
        fields["lineage.warm"] = warm
    named = lineage.get("from")
    if isinstance(named, list) and (words := [_ancestor(item) for item in named[:MAX_ANCESTORS]]):
        more = [f"and {len(named) - MAX_ANCESTORS} more"] if len(named) > MAX_ANCESTORS else []
        fields["lineage.from"] = clean("; ".join([*words, *more]))[:MAX_TEXT]
    if isinstance(teacher := lineage.get("teacher"), Mapping):
        fields["lineage.teacher"] = clean(_ancestor(teacher))[:MAX_TEXT]
        fields["lineage.teacher_score"] = number(teacher.get(ranking(teacher, "test")))
        fields["lineage.teacher_params"] = number(teacher.get("total_params"))
        fields["lineage.teacher_clips"] = scalar(teacher.get("test_fingerprint"))
    return fields


def method_node(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a run's method, from its flat resolved config."""
    return {key.removeprefix("peft."): value for key, value in resolved.items() if key.startswith("peft.")}


def _known_teacher(result: Mapping[str, Any]) -> str | None:
    """The id of the run that a student learnt from; None where its result was gone, and a path may mean any run."""
    lineage = result.get("lineage")
    teacher = lineage.get("teacher") if isinstance(lineage, Mapping) else None
    return clean(_name(teacher)) if isinstance(teacher, Mapping) and teacher.get("fingerprint") else None


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("experiment_id") or str(item.get("fingerprint") or "")[:12] or "unnamed")[:200]


def _ancestor(item: Any) -> str:
    """One run that another goes back to: its id, or the start of its fingerprint, and its validation accuracy."""
    item = item if isinstance(item, Mapping) else {"experiment_id": item}
    name = _name(item)
    score = number(item.get(key := ranking(item)))
    return name if score is None else f"{name} ({key.replace('_', ' ')} {score:.4f})"


def leaves(content: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names and values of a nested mapping; a list of plain values becomes one text."""
    made: dict[str, Any] = {}
    _fill(made, content, "", 0)
    return made


def _fill(made: dict[str, Any], content: Mapping[str, Any], prefix: str, depth: int) -> None:
    """Fill ``made``; a folder of results passes millions of values through here, most of them floats."""
    names = _names(prefix)
    for key, value in content.items():
        name = names[key]
        kind = type(value)
        if kind is float:
            made[name] = value if isfinite(value) else None
        elif kind is int and -WORD < value < WORD:
            made[name] = value
        elif kind is dict and depth < MAX_DEPTH:
            _fill(made, value, name, depth + 1)
        else:
            made[name] = scalar(value)


class _Names(dict[str, str]):
    """The dotted names of the keys below a prefix: clean, short, and one object however many files name them."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def __missing__(self, key: str) -> str:
        name = clean(f"{self.prefix}.{str(key)[:200]}" if self.prefix else str(key)[:200])[:300]
        if len(self) < MAX_NAMES:
            self[key] = name
        return name


_names = lru_cache(maxsize=500)(_Names)


def scalar(value: Any) -> Any:
    """A value that a table's cell can hold: None, bool, 64-bit int, finite float or a clean short text."""
    kind = type(value)
    if kind is float:
        return value if isfinite(value) else None
    if kind is str:
        return value if len(value) <= MAX_TEXT and value.isascii() and value.isprintable() else clean(value)[:MAX_TEXT]
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if abs(value) < WORD else None
    if kind is list:
        return clean(", ".join(str(item) for item in value[:200]))[:MAX_TEXT]
    return clean(str(value))[:MAX_TEXT]


def number(value: Any) -> int | float | None:
    """``value`` as a finite number; anything else, a boolean or a text with no number in it, is None."""
    if type(value) is float and -WORD < value < WORD:
        return value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= WORD:
        return None
    result: int | float | None = finite(value)
    return result


def boolean(value: Any) -> bool | None:
    """``augmentation`` in any spelling that occurs: a boolean, ``on``/``off``, ``true``/``false``."""
    if isinstance(value, bool) or value is None:
        return value
    return BOOLEANS.get(str(value).strip().lower())
