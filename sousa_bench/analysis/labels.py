"""Short names of combinations: what all of them share is left out, and numbers have three digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.factors import BASE_FACTORS, augmentation_words, combination_label, shown


def short_labels(rows: pd.DataFrame, factors: Sequence[str], always: Sequence[str] = ()) -> dict[str, str]:
    """A name of each combination that holds only what differs: ``lora, aug, r=8``.

    Args:
        rows: Combinations that stand side by side, with the columns of ``factors``.
        factors: The columns that make a combination.
        always: Of these, those that are named even where all combinations share them.

    Returns:
        By ``combination``; a name that two would share is the whole one.
    """
    extra = [key for key in factors if key not in BASE_FACTORS]
    differing = {key for key in factors if rows[key].map(shown).nunique() > 1} | set(always)
    if not differing & set(BASE_FACTORS[:2]) and (len(rows) < 2 or differing <= {BASE_FACTORS[2]}):
        differing |= set(BASE_FACTORS[:2])
    names = key_names([key for key in extra if key in differing])
    made = {str(row["combination"]): _label(row, differing, extra, names) for row in rows.to_dict("records")}
    count = Counter(made.values())
    return {whole: short if short and count[short] == 1 else whole for whole, short in made.items()}


def _label(row: Mapping[Any, Any], differing: set[str], extra: Sequence[str], names: Mapping[str, str]) -> str:
    method = " + ".join(str(row[key]) for key in BASE_FACTORS[:2] if key in differing)
    augmentation = [augmentation_words(row["augmentation"]).replace("with aug", "aug")]
    parts = [method, *(augmentation if BASE_FACTORS[2] in differing else [])]
    parts += [f"{name}={brief(row[key])}" for key, name in names.items() if not is_absent(row[key])]
    weights = str(row["combination"]).removeprefix(combination_label(row, extra)).removeprefix(", ")
    return ", ".join(part for part in (*parts, weights) if part)


def key_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, or the whole of those whose last parts are alike."""
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: name if last[name := key.rpartition(".")[2]] == 1 else key for key in keys}


def brief(value: Any) -> str:
    """A factor's value to three digits."""
    text = shown(value)
    if isinstance(value, float) and len(text) > 5:
        short = f"{value:.3g}"
        return short if len(short) < len(text) else text
    return text
