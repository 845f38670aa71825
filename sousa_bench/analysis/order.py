"""Runs and combinations in order, best first, by the one rule that all commands have (``results.merit``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.results.merit import LOSSES, merit

TIE_LOSS = "tie_loss"
"""Column of the combinations: the mean validation loss, which decides between equals."""


def best_first(frame: pd.DataFrame, key: str, lower: bool = False) -> pd.DataFrame:
    """The rows of a table of runs, or of combinations, best first.

    Args:
        frame: Of a study.
        key: The column that ranks.
        lower: Whether less of it is better.
    """
    name = "combination" if TIE_LOSS in frame else "experiment_id"
    score = frame[key].to_numpy(float)
    if len(set(score)) == len(frame):  # no two are equal, so nothing has to decide
        return frame.sort_values(key, ascending=lower, kind="stable", na_position="last")
    columns = (score, _numbers(frame, "val_acc"), tie_loss(frame), _numbers(frame, "trainable_params"))
    facts = zip(*columns, frame[name], strict=True)
    merits = [merit(own, val, loss, params, str(label), lower=lower) for own, val, loss, params, label in facts]
    order = sorted(range(len(frame)), key=merits.__getitem__)
    return frame.iloc[order]


def _numbers(frame: pd.DataFrame, column: str) -> Any:
    return pd.to_numeric(frame[column], errors="coerce") if column in frame else [float("nan")] * len(frame)


def tie_loss(frame: pd.DataFrame) -> pd.Series:
    """The validation loss of each row, as ``merit.loss_of`` has it."""
    if TIE_LOSS in frame:
        return frame[TIE_LOSS]
    made = pd.Series(float("nan"), frame.index)
    for key in LOSSES:
        if key in frame:
            made = made.fillna(pd.to_numeric(frame[key], errors="coerce"))
    return made


def places_of_groups(frame: pd.DataFrame, keys: list[str]) -> list[NDArray[np.intp]]:
    """The places of the rows of each group, in the groups' order: without a frame for each of thousands."""
    number = frame.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []
