"""Cross-validation: folds are repeats of one combination on other players, as seeds are on the same ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

FOLD = "data.fold"
EACH_FOLD = "of each fold"
MAX_FOLDS = 1000
PATTERN = re.compile(r"\s*(\d{1,4})\s*/\s*(\d{1,4})\s*", re.ASCII)


def read_fold(value: Any) -> tuple[int, int] | None:
    """What a result says of its fold: ``"2/5"`` → (2, 5); None for anything else, since anyone may have written it."""
    match = PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    number, count = int(match[1]), int(match[2])
    return (number, count) if 1 <= number <= count <= MAX_FOLDS else None


def fill_folds(table: pd.DataFrame, resolved: Sequence[Mapping[str, Any]]) -> None:
    """Take the column ``data.fold`` from the resolved configs, in place; without a fold there is no such column."""
    own = list(table[FOLD]) if FOLD in table else [None] * len(table)
    folds = [read_fold(row.get(FOLD, value)) for row, value in zip(resolved, own, strict=True)]
    if any(folds):
        table[FOLD] = pd.Series([f"{fold[0]}/{fold[1]}" if fold else None for fold in folds], table.index, dtype=object)
    elif FOLD in table:
        del table[FOLD]


def fold_counts(table: pd.DataFrame) -> pd.Series:
    """Number of folds that each run's split is one of; 0 where it is none of a cross-validation."""
    if FOLD not in table:
        return pd.Series(0, table.index)
    return table[FOLD].map(lambda value: fold[1] if (fold := read_fold(value)) else 0).astype("int64")


def fold_order(value: Any) -> tuple[int, int]:
    """What sorts folds by number: ``2/10`` before ``10/10``; what is none comes first."""
    number, count = read_fold(value) or (0, 0)
    return count, number


def join_folds(identity: pd.DataFrame, table: pd.DataFrame, counted: pd.Series) -> None:
    """Let the folds of a cross-validation have one identity, in place, though each has other data by design.

    Where each fold of a number of folds was only ever one split of one dataset, all its runs belong together. Where
    that is not so, the folds of a combination do if they are so for that combination, with others of the same splits;
    else each keeps its own data fingerprints, so that nothing is pooled.

    Args:
        identity: Texts by run: the columns of ``factors.COHORT_KEYS``; the fingerprints of folds are replaced.
        table: A row a run, with ``combination``.
        counted: Which runs say what belongs together.
    """
    counts = fold_counts(table)
    if not counts.any():
        return
    prints = [key for key in ("data.fingerprint", "data.test_fingerprint") if key in identity]
    rest = [key for key in identity if key not in prints]
    frame = identity.assign(_fold=table[FOLD], _label=table["combination"], _counted=counted)[counts > 0]
    identity.loc[frame.index[~frame["_counted"]], prints] = ""  # fits any cohort of as many folds
    for _, base in frame[frame["_counted"]].groupby(rest, sort=False):
        if _one_split_a_fold(base, prints):
            identity.loc[base.index, prints] = EACH_FOLD
            continue
        for _, runs in base.groupby("_label", sort=False):
            if _one_split_a_fold(runs, prints):
                splits = runs[["_fold", *prints]].drop_duplicates().sort_values("_fold")
                digest = hashlib.sha256(splits.to_csv(index=False).encode()).hexdigest()
                identity.loc[runs.index, prints] = f"{EACH_FOLD} ({digest[:8]})"


def _one_split_a_fold(runs: pd.DataFrame, prints: Sequence[str]) -> bool:
    """Whether each fold was one split only."""
    return not runs[["_fold", *prints]].drop_duplicates()["_fold"].duplicated().any()


def missing_folds(runs: pd.DataFrame) -> list[str]:
    """Folds, or seeds of a fold, that the runs of one combination lack: ``3/5``, ``2/5 seed 3``."""
    folds = sorted({str(value) for value in runs[FOLD]}, key=fold_order)
    count = fold_order(folds[0])[0]
    seeds = sorted(set(runs["seed"].dropna())) if "seed" in runs else []
    there = set(zip(runs[FOLD], runs["seed"], strict=True)) if seeds else set()
    lacking = []
    for fold in (f"{number}/{count}" for number in range(1, count + 1)):
        if fold not in folds:
            lacking.append(fold)
        else:
            lacking += [f"{fold} seed {int(seed)}" for seed in seeds if (fold, seed) not in there]
    return lacking
