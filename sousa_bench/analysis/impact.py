"""What augmentation does: averages, and paired differences where everything else is equal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.pairs import holm
from sousa_bench.analysis.study import Study, pair_of


@dataclass
class Impact:
    """The effect of augmentation.

    Attributes:
        averages: Name, mean test accuracy and number of runs, with and without.
        table: A row a pair: ``label``, ``with_rows`` and ``without_rows`` (row numbers of the runs), ``difference`` (with
            minus without) with ``low`` and ``high``, ``p``, ``p_holm`` within this family, ``clips``, ``players``.
        word: Why there are no pairs, in a sentence; empty where there are.
    """

    averages: list[tuple[str, float, int]] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    word: str = ""


def augmentation_impact(study: Study) -> Impact:
    """Compare with and without augmentation, combination by combination."""
    done = study.table[(study.table["status"] == "completed") & study.table["test_acc"].notna()]
    averages = []
    for cohort in sorted(done["cohort"].unique()):
        for value, words in ((True, "With augmentation"), (False, "Without augmentation")):
            part = done.loc[(done["augmentation"] == value) & (done["cohort"] == cohort), "test_acc"]
            if len(part):
                name = f"{words} (cohort {cohort})" if study.cohorts else words
                averages.append((name, float(part.mean()), len(part)))
    rows = _pairs(study)
    if not rows:
        return Impact(
            averages, word="No two combinations differ in augmentation alone, so there is no paired difference."
        )
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy())
    return Impact(averages, table.sort_values("difference", ascending=False, ignore_index=True))


def _pairs(study: Study) -> list[dict[str, object]]:
    frame = study.combinations[study.combinations["test_acc"].notna()]
    others = [key for key in study.factors if key != "augmentation"]
    rows: list[dict[str, object]] = []
    for (_, *values), group in frame.groupby(["cohort", *others], dropna=False, sort=False):
        on, off = group[group["augmentation"] == True], group[group["augmentation"] == False]  # noqa: E712
        if len(on) != 1 or len(off) != 1:
            continue
        first, second = on.iloc[0], off.iloc[0]
        pair = pair_of(study.pairs, first["combination"], second["combination"]) if len(study.pairs) else None
        extra = [f"{key}={shown(value)}" for key, value in zip(others, values, strict=True) if key not in BASE_FACTORS]
        rows.append(
            {
                "label": ", ".join([f"{first['model']} + {first['strategy']}", *extra]),
                "model": first["model"],
                "with_rows": first["rows"],
                "without_rows": second["rows"],
                "difference": pair["difference"] if pair else first["test_acc"] - second["test_acc"],
                "low": pair["low"] if pair else np.nan,
                "high": pair["high"] if pair else np.nan,
                "p": pair["p"] if pair else np.nan,
                "clips": int(pair["clips"]) if pair else 0,
                "players": int(pair["players"]) if pair else 0,
            }
        )
    return rows
