"""What a reader of the results must know about the clips that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pandas as pd

from sousa_bench.data import SPLITS
from sousa_bench.task import Task, counted

_CONSEQUENCE = {
    ("train", "val"): "validation, which chooses runs and epochs, doesn't show how the model does on new {groups}",
    ("train", "test"): "the test doesn't show how the model does on new {groups}",
    ("val", "test"): "runs and epochs are chosen by {groups} that are tested",
}


def without_split(available: pd.DataFrame, task: Task) -> list[str]:
    """Clips that the dataset puts into no split.

    Args:
        available: All clips that could be drawn, with `group` and `split`.
        task: Says what a group is called.
    """
    left = available[~available["split"].isin(SPLITS)]
    if not len(left):
        return []
    whose = f" of {counted(left['group'].nunique(), task.group)}" if task.grouped else ""
    return [
        f"{counted(len(left), 'clip')}{whose} ({_some(left['group'])}) "
        "without a split: not used; data.resplit=true uses all clips"
    ]


def shared_groups(used: Mapping[str, pd.DataFrame], task: Task) -> list[str]:
    """Groups whose clips lie in two splits.

    Args:
        used: The clips of each split.
        task: Says what a group is called.
    """
    groups = {split: set(table["group"]) for split, table in used.items()}
    return [
        f"{counted(len(both), task.group)} with clips in both {one} and {other} ({_some(both)}): "
        f"{_CONSEQUENCE[one, other].format(groups=task.groups)}; data.resplit=true splits by {task.group}"
        for one, other in combinations(SPLITS, 2)
        if (both := groups[one] & groups[other])
    ]


def absent_classes(used: Mapping[str, pd.DataFrame], task: Task) -> list[str]:
    """Classes of which a split holds no clip.

    Args:
        used: The clips of each split.
        task: Says which classes there are.
    """
    gaps = []
    for split, table in used.items():
        held = classes_held(table, task)
        if absent := [name for number, name in enumerate(task.classes) if number not in held]:
            named = f"{', '.join(absent[:3])}{', …' if len(absent) > 3 else ''}"
            gaps.append(f"{len(absent)} of {len(task.classes)} classes have no clip in the {split} split: {named}")
    return gaps


def classes_held(table: pd.DataFrame, task: Task) -> set[int]:
    """The numbers of the classes that clips of a table have."""
    numbers = set(table["label"])
    return {number for labels in numbers for number in labels} if task.several else numbers


def short_classes(train: pd.DataFrame, task: Task, most: int | None) -> list[str]:
    """Classes that have fewer training clips than `data.per_class` asks for.

    Args:
        train: The training clips.
        task: Says which classes there are.
        most: How many were asked for; None: all that there are.
    """
    held = train["label"].explode().value_counts()
    short = [name for number, name in enumerate(task.classes) if 0 < held.get(number, 0) < (most or 0)]
    if not short:
        return []
    named = f"{', '.join(short[:3])}{', …' if len(short) > 3 else ''}"
    return [f"data.per_class={most}: {len(short)} of {len(task.classes)} classes have fewer training clips: {named}"]


def _some(names: pd.Series | set[str]) -> str:
    several = sorted(set(names))
    return ", ".join(several[:3]) + (", …" if len(several) > 3 else "")
