"""Main effects and interactions over a balanced matrix, with players as blocks.

The analysis of variance of a full factorial, each player measured in every cell, tested by flipping the signs of whole
players' contrasts and adding drawn training luck (as ``pairs.max_t``; with one degree of freedom, normal differences
and no luck it agrees with the repeated measures F test). A matrix with holes has no such decomposition, and is named
rather than patched.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.factors import augmentation_words, from_nothing, shown
from sousa_bench.analysis.stats.comparisons import METHODS, MODELS
from sousa_bench.analysis.stats.intervals import difference_interval
from sousa_bench.analysis.stats.pairs import ALPHA, DRAWS, holm, sign_patterns
from sousa_bench.analysis.stats.training_luck import Luck

MAX_ORDER = 3
MAX_CELLS = 400

Array = NDArray[np.float64]


@dataclass
class Effects:
    """What the factors of one cohort do.

    Attributes:
        table: A row an effect: ``effect``, ``levels``, ``share`` (of the variation between cells), ``largest``
            (greatest difference between two levels, percentage points, main effects only), ``p``, ``p_holm``,
            ``clear``, ``about`` (methods, or these trained models), ``players``, ``clips``.
        levels: A row a level of each factor: ``factor``, ``level``, ``accuracy``, ``deviation`` from the grand mean
            with ``low`` and ``high``, ``cells``, ``players``, ``clips``.
        reason: Why there is no decomposition, in a plain sentence; empty where there is one.
        left_out: Strategies that were run without augmentation alone, as baselines are, where others were run with it.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    levels: pd.DataFrame = field(default_factory=pd.DataFrame)
    reason: str = ""
    left_out: tuple[str, ...] = ()


def effects(
    cells: pd.DataFrame,
    factors: Sequence[str],
    totals: Array,
    sizes: Array,
    luck: Luck,
    draws: int = DRAWS,
    groups: str = "players",
) -> Effects:
    """Decompose the accuracies of a balanced matrix.

    Args:
        cells: A row a combination; the columns ``factors`` name its cell.
        factors: Columns to decompose by; those with one level are left out.
        totals: Right clips by combination and player (seeds averaged), shape (combinations, players).
        sizes: Clips of each player, shape (players,).
        luck: Training luck in the mean of each combination.
        draws: Number of draws behind the p values.
        groups: What the players are called.
    """
    own = ~from_nothing(cells).to_numpy(dtype=bool)  # no baseline from nothing is part of the matrix
    own |= not own.any()
    crossed = own.copy()
    crossed[own] = _crossed(cells[own])
    left_out = () if crossed[own].all() else tuple(dict.fromkeys(cells["strategy"][own & ~crossed]))
    made = _decomposed(cells[crossed], factors, totals[crossed], sizes, luck.part(crossed), draws, groups)
    return replace(made, left_out=left_out)


def _crossed(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Which cells are of a strategy that was run with augmentation, where any was, shape (cells,)."""
    if not {"strategy", "augmentation"} <= {*cells} or cells["augmentation"].map(shown).nunique() < 2:
        return np.ones(len(cells), dtype=bool)
    crossed: NDArray[np.bool_] = cells.groupby("strategy")["augmentation"].transform("any").to_numpy(dtype=bool)
    return crossed


def _decomposed(
    cells: pd.DataFrame, factors: Sequence[str], totals: Array, sizes: Array, luck: Luck, draws: int, groups: str
) -> Effects:
    varied = [key for key in factors if cells[key].map(shown).nunique() > 1]
    if not varied:
        return Effects(reason="No factor varies, so there is no effect to separate.")
    names = cells[varied].map(level_name)
    levels = {key: list(dict.fromkeys(names[key])) for key in varied}
    if reason := _unbalanced(names, levels):
        return Effects(reason=reason)
    if totals.shape[1] < 2:
        return Effects(reason=f"Effects can't be tested: the predictions name fewer than two {groups}.")
    shape = [len(levels[key]) for key in varied]
    place = np.ravel_multi_index([names[key].map(levels[key].index).to_numpy() for key in varied], shape)
    array = np.empty((len(place), totals.shape[1]))
    array[place] = totals / sizes.sum()
    array = array.reshape([*shape, totals.shape[1]])
    order = np.argsort(place)
    table = _table(array, varied, shape, luck.part(order), draws)
    table["about"] = METHODS if luck.dof else MODELS
    table["players"], table["clips"] = len(sizes), int(sizes.sum())
    return Effects(table, _levels(array, levels, sizes, luck.part(order)))


def level_name(value: object) -> str:
    """A level's name: ``with aug`` for a boolean."""
    return augmentation_words(value) if isinstance(value, bool) else shown(value)


def _unbalanced(names: pd.DataFrame, levels: dict[str, list[str]]) -> str:
    """Why the matrix can't be decomposed, in a sentence; empty where each cell holds one combination.

    Args:
        names: The level of each combination, a column a factor.
        levels: All levels of each factor.
    """
    wanted = int(np.prod([len(values) for values in levels.values()]))
    there = set(names.itertuples(index=False, name=None))
    if len(there) == wanted == len(names) and wanted <= MAX_CELLS:
        return ""
    if wanted > MAX_CELLS:
        return f"The matrix has {wanted} cells, too many to decompose ({MAX_CELLS} at most); filter it."
    if len(there) < len(names):
        return "Some cells of the matrix hold several combinations, so effects can't be separated."
    missing = [cell for cell in itertools.product(*levels.values()) if cell not in there]
    examples = "; ".join(" + ".join(cell) for cell in missing[:3])
    return (
        f"The matrix is not balanced: {len(missing)} of {wanted} cells have no completed run on these clips "
        f"({examples}{'; …' if len(missing) > 3 else ''}), so main effects and interactions can't be separated."
    )


def _table(array: Array, factors: Sequence[str], shape: Sequence[int], luck: Luck, draws: int) -> pd.DataFrame:
    """Sum of squares and p value of each effect up to ``MAX_ORDER`` factors."""
    axes = range(len(shape))
    subsets = [s for order in range(1, min(len(shape), MAX_ORDER) + 1) for s in itertools.combinations(axes, order)]
    contrasts = [_component(array, subset) for subset in subsets]
    means = array.sum(axis=-1)
    total = float(((means - means.mean()) ** 2).sum()) or 1.0
    rows = []
    for subset, contrast in zip(subsets, contrasts, strict=True):
        sums = contrast.sum(axis=1)
        size = int(np.prod([shape[axis] for axis in subset]))
        rows.append(
            {
                "effect": " × ".join(factors[axis] for axis in subset),
                "levels": " × ".join(str(shape[axis]) for axis in subset),
                "share": float((sums**2).sum()) * np.prod(shape) / size / total,
                "largest": float(np.ptp(sums)) * 100 if len(subset) == 1 else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    table["p"] = _p_values(contrasts, subsets, shape, luck, draws)
    table["p_holm"] = holm(table["p"].to_numpy())
    table["clear"] = table["p_holm"] <= ALPHA
    return table


def _component(array: Array, subset: Sequence[int]) -> Array:
    """The effect's component of each player, shape (levels of the effect, players)."""
    others = tuple(axis for axis in range(array.ndim - 1) if axis not in subset)
    part = array.mean(axis=others) if others else array
    for axis in range(len(subset)):
        part = part - part.mean(axis=axis, keepdims=True)
    result: Array = part.reshape(-1, array.shape[-1])
    return result


def _p_values(
    contrasts: Sequence[Array], subsets: Sequence[Sequence[int]], shape: Sequence[int], luck: Luck, draws: int
) -> Array:
    """P values of sums of squares of summed contrasts, under sign flips of whole players and drawn training luck.

    Args:
        contrasts: For each effect the contrasts by player, shape (contrasts, players).
        subsets: The axes of each effect.
        shape: Levels of each factor.
        luck: Of each cell, in the order of ``shape``.
        draws: Number of draws.
    """
    least = [float((contrast.sum(axis=1) ** 2).sum()) * (1 - 1e-9) - 1e-18 for contrast in contrasts]
    reached, count = np.zeros(len(contrasts), dtype=np.int64), 0
    rng = np.random.default_rng(0)
    for signs in sign_patterns(contrasts[0].shape[1], rng, draws):
        chance = luck.draws(rng, len(signs)).T.reshape([*shape, len(signs)])
        for number, (contrast, subset) in enumerate(zip(contrasts, subsets, strict=True)):
            sums = contrast @ signs.T
            if luck.dof:
                sums += _component(chance, subset)
            reached[number] += np.count_nonzero((sums**2).sum(axis=0) >= least[number])
        count += len(signs)
    result: Array = (reached + 1) / (count + 1)
    return result


def _levels(array: Array, levels: dict[str, list[str]], sizes: Array, luck: Luck) -> pd.DataFrame:
    """Mean of each level and its deviation from the grand mean, with an interval over players and trainings."""
    rows = []
    shape = array.shape[:-1]
    cells = int(np.prod(shape))
    grand = array.mean(axis=tuple(range(array.ndim - 1)))
    for axis, (factor, names) in enumerate(levels.items()):
        others = tuple(other for other in range(array.ndim - 1) if other != axis)
        means = array.mean(axis=others) if others else array
        at_level = np.indices(shape)[axis].ravel() == np.arange(len(names))[:, None]
        coefficients = at_level * len(names) / cells - 1 / cells
        interval = difference_interval((means - grand) * sizes.sum(), sizes, luck.of(coefficients))
        rows.append(
            pd.DataFrame(
                {
                    "factor": factor,
                    "level": names,
                    "accuracy": [float(row.sum()) for row in means],
                    "deviation": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "cells": cells // len(names),
                }
            )
        )
    table = pd.concat(rows, ignore_index=True)
    table["players"], table["clips"] = len(sizes), int(sizes.sum())
    return table
