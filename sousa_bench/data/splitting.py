"""Train, validation and test for data of any task: as given, by given folds, or by group and stratified by class."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sousa_bench.data import SPLITS
from sousa_bench.data.subset import SHARES, order
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.task import Task


def split_labelled(
    table: pd.DataFrame, task: Task, fold: tuple[int, int] | None, resplit: bool, seed: int
) -> tuple[pd.DataFrame, str]:
    """The clips with the splits that a run uses, and in words where these come from.

    Args:
        table: All clips, with `split` and `fold` as far as they are given.
        task: Says what the groups are.
        fold: `data.fold` as (k, n).
        resplit: `data.resplit`: what is given is left aside.
        seed: `data.subset_seed`.

    Raises:
        ConfigError: `data.fold` doesn't fit the folds that are given.
        DataError: Too few groups, or a test without training or the other way round.
    """
    by_group = f"by {task.group}, stratified by class, from data.subset_seed={seed}"
    if fold is not None:
        if given := _folds(table):
            return _given_folds(table, given, *fold), f"data.fold={fold[0]}/{fold[1]} of the folds that are given"
        return _new_folds(table, task, *fold, seed), f"data.fold={fold[0]}/{fold[1]}, folds made {by_group}"
    if resplit:
        return _new_splits(table, task, seed), f"made {by_group} (data.resplit=true)"
    there = set(table["split"]) - {""}
    if "test" in there and "train" in there:
        return (table, "given") if "val" in there else _with_validation(table, task, seed)
    if there - {"train"}:
        return table, "given"
    if given := _folds(table):
        if len(given) < 3:
            raise DataError(f"There are {len(given)} folds, and train, val and test need three: name a split instead.")
        made = _given_folds(table, given, 1, len(given))
        return made, f"the folds that are given: {given[0]} tests, {given[1]} validates (data.fold=k/{len(given)})"
    return _new_splits(table, task, seed), f"made {by_group}"


def _folds(table: pd.DataFrame) -> list[str]:
    """The given folds' names in their order; numbers as numbers."""

    def key(name: str) -> tuple[int, str]:
        number = re.search(r"\d+$", name)
        return (int(number[0]) if number else 0, name)

    return sorted(set(table["fold"]) - {""}, key=key)


def _given_folds(table: pd.DataFrame, names: Sequence[str], k: int, n: int) -> pd.DataFrame:
    if n != len(names):
        raise ConfigError(
            f"data.fold={k}/{n}: these data come in {len(names)} folds ({', '.join(names[:10])}), which are not mixed. "
            f"Give data.fold=k/{len(names)}."
        )
    roles = dict.fromkeys(names, "train") | {names[k - 1]: "test", names[k % n]: "val"}
    return table.assign(split=[roles[name] for name in table["fold"]])


def _new_folds(table: pd.DataFrame, task: Task, k: int, n: int, seed: int) -> pd.DataFrame:
    _need_groups(table, task, n, f"data.fold={k}/{n}")
    parts = deal(table, [1 / n] * n, seed)
    roles = np.full(n, "train", dtype=object)
    roles[k - 1], roles[k % n] = "test", "val"
    return table.assign(split=roles[parts])


def _new_splits(table: pd.DataFrame, task: Task, seed: int) -> pd.DataFrame:
    _need_groups(table, task, len(SPLITS), "A split into train, val and test")
    parts = deal(table, [SHARES[split] for split in SPLITS], seed)
    return table.assign(split=np.array(SPLITS, dtype=object)[parts])


def _with_validation(table: pd.DataFrame, task: Task, seed: int) -> tuple[pd.DataFrame, str]:
    """Validation clips taken from those of training; the test stays as it is given."""
    training = (table["split"] == "train").to_numpy()
    part = table[training]
    whole = part["group"].nunique() > 1
    if not whole:
        part = part.assign(group=part["sample_id"])
    both = SHARES["train"] + SHARES["val"]
    split = table["split"].to_numpy(dtype=object).copy()
    dealt = deal(part, [SHARES["train"] / both, SHARES["val"] / both], seed)
    split[training] = np.array(["train", "val"], dtype=object)[dealt]
    how = f"by {task.group}" if whole else f"by clip, since train holds one {task.group} only"
    return table.assign(split=split), f"train and test given; val taken from train {how}, from data.subset_seed={seed}"


def _need_groups(table: pd.DataFrame, task: Task, least: int, what: str) -> None:
    names = sorted(set(table["group"]))
    if len(names) < least:
        raise DataError(
            f"{what} needs at least {least} {task.groups}; there {'is' if len(names) == 1 else 'are'} {len(names)}: "
            f"{', '.join(names[:5])}. Give a column 'split', or split clip by clip with data.columns.group=false."
        )


def deal(table: pd.DataFrame, shares: Sequence[float], seed: int) -> np.ndarray:
    """(clips,) int64: the part that each clip goes to, groups whole and each class spread over the parts by its share.

    The rarest class is dealt first, its largest groups before the smaller ones, each to the part that still lacks most
    clips of that class: iterative stratification (Sechidis et al. 2011, ECML PKDD,
    https://doi.org/10.1007/978-3-642-23808-6_10) with groups in place of clips. What a class too small for all parts
    leaves one short of, the next classes make up for. Equal groups come in the order of hashes of their names and the
    seed, and no part stays empty where there are groups enough.

    Args:
        table: The clips, with `group` and `label`.
        shares: Of the clips, each part's; they sum to 1.
        seed: Another seed, other parts.
    """
    codes, names = pd.factorize(table["group"])
    held = _labels_of_groups(table, codes, len(names))
    of_class: dict[int, list[int]] = defaultdict(list)
    left: Counter[int] = Counter()
    for group, labels in enumerate(held):
        for label, count in labels.items():
            of_class[label].append(group)
            left[label] += count
    lacking = {label: np.array(shares) * count for label, count in left.items()}
    short = np.zeros(len(shares))
    hashes = order([str(name) for name in names], seed)
    part_of = np.full(len(names), -1)
    undealt, empty = len(names), set(range(len(shares)))
    for label in sorted(left, key=lambda each: (left[each], each)):
        waiting = [group for group in of_class[label] if part_of[group] < 0]
        for group in sorted(waiting, key=lambda each: (-held[each][label], hashes[each])):
            lack = lacking[label] + short
            part = max(sorted(empty) if undealt == len(empty) else range(len(shares)), key=lack.__getitem__)
            part_of[group] = part
            undealt -= 1
            empty.discard(part)
            for other, count in held[group].items():
                lacking[other][part] -= count
        short += lacking[label]
    return part_of[codes]


def _labels_of_groups(table: pd.DataFrame, codes: np.ndarray, groups: int) -> list[Counter[int]]:
    """How many clips of each class each group has; a clip without a label counts as of a class -1."""
    held: list[Counter[int]] = [Counter() for _ in range(groups)]
    for code, label in zip(codes.tolist(), table["label"].tolist(), strict=True):
        held[code].update((label if label else (-1,)) if isinstance(label, tuple) else (label,))
    return held
