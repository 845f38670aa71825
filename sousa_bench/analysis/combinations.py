"""Combinations: what their runs, over seeds and folds, add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.columns import declared_metrics, lower_is_better
from sousa_bench.analysis.factors import SETTING_FACTORS, combination_columns
from sousa_bench.analysis.flatten import MORE_OF_SEVERAL
from sousa_bench.analysis.order import TIE_LOSS, best_first, places_of_groups, tie_loss
from sousa_bench.analysis.stats.folds import FOLD, fold_counts, missing_folds
from sousa_bench.analysis.table import Results
from sousa_bench.config.overrides import split
from sousa_bench.results.result import EVALUATED
from sousa_bench.system.text_table import amount

LIMITS = ("trainer.train_batches", "trainer.eval_batches")
"""Keys that make a run a trial of the machinery."""
TRIALS = ("trainer=smoke", "experiment=smoke")
"""Choices that bring them along."""
MEANS = (
    "val_acc",
    "val_f1_macro",
    "test_acc",
    "test_f1_macro",
    *MORE_OF_SEVERAL,
    "total_params",
    "trainable_params",
    "training_time_seconds",
    "avg_epoch_time",
    "peak_memory_bytes",
)
COUNTS = ("runs", "metric_std", "acc_std", "seed_std", "seeds", "folds", "of_folds", "missing", "rows")


def combinations(results: Results, metric: str) -> pd.DataFrame:
    """What the completed runs of each combination add up to, best first.

    Returns:
        A row a combination: factors and settings, ``cohort``, ``rows`` (row numbers of its runs), ``runs``, ``seeds``,
        ``folds`` (0 where it is no cross-validation) of ``of_folds``, ``missing`` (folds, or seeds of a fold, that are
        not there), means (over seeds; over folds, each averaged over its seeds first), ``acc_std`` and ``metric_std``
        (over folds where there are folds, else over seeds), ``seed_std`` (over seeds, pooled within the folds),
        ``tie_loss`` (see ``order``).
    """
    table = results.table
    done = table[table["status"] == "completed"]
    counts = fold_counts(done)
    losses = tie_loss(done)
    keys = list(dict.fromkeys((*combination_columns(table, results.factors), *SETTING_FACTORS)))
    means = [key for key in dict.fromkeys((metric, *MEANS, *declared_metrics(table))) if key in done]
    rows = []
    wanted = {"combination", "cohort", *keys, *means, "test_acc", "seed", FOLD}
    narrow = done[[key for key in done if key in wanted]]
    for places in places_of_groups(done, ["combination", "cohort"]):
        group = narrow.iloc[places]
        row: dict[str, Any] = {key: group[key].iloc[0] for key in ("combination", "cohort", *keys)}
        row |= {"runs": len(group), "rows": list(group.index), TIE_LOSS: losses.iloc[places].mean()}
        row |= (_over_folds if counts[group.index[0]] else _over_runs)(group, means, metric)
        rows.append(row)
    columns = ["combination", "cohort", *keys, *means, *COUNTS]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys((*columns, TIE_LOSS))))
    return best_first(frame, metric, lower_is_better(metric, table)).reset_index(drop=True)


def _over_runs(group: pd.DataFrame, means: list[str], metric: str) -> dict[str, Any]:
    """Means over all runs."""
    spread = group["test_acc"].std(ddof=1)
    return {
        **{key: group[key].mean() for key in means},
        "metric_std": group[metric].std(ddof=1),
        "acc_std": spread,
        "seed_std": spread,
        "seeds": _seeds(group) or len(group),
        "folds": 0,
        "of_folds": 0,
        "missing": "",
    }


def _over_folds(group: pd.DataFrame, means: list[str], metric: str) -> dict[str, Any]:
    """Means over folds of the means over a fold's seeds, so that a fold with more seeds weighs no more."""
    by_fold = group.groupby(FOLD)
    folds = by_fold[list(dict.fromkeys((*means, "test_acc")))].mean()
    within = by_fold["test_acc"].agg(["var", "count"])
    freedom = float((within["count"] - 1).sum())
    pooled = float((within["var"].fillna(0) * (within["count"] - 1)).sum())
    return {
        **{key: folds[key].mean() for key in means},
        "metric_std": folds[metric].std(ddof=1),
        "acc_std": folds["test_acc"].std(ddof=1),
        "seed_std": (pooled / freedom) ** 0.5 if freedom else float("nan"),
        "seeds": _seeds(group) or within["count"].max(),
        "folds": len(folds),
        "of_folds": fold_counts(group).iloc[0],
        "missing": ", ".join(missing_folds(group)),
    }


def _seeds(group: pd.DataFrame) -> int:
    """Number of different seeds; 0 where none is known."""
    return int(group["seed"].nunique()) if "seed" in group else 0


def spread_words(row: Any) -> str:
    """The spread behind a mean in words: ``± 0.0123 over 5 folds, 0.0045 over 3 seeds``; empty for one run."""
    parts = []
    if row["folds"]:
        of_all = "" if row["folds"] == row["of_folds"] else f" of {row['of_folds']}"
        deviation = f"± {row['acc_std']:.4f} over " if row["folds"] > 1 else ""
        parts.append(f"{deviation}{row['folds']}{of_all} fold{'s' if row['folds'] > 1 or of_all else ''}")
    if pd.notna(row["seed_std"]):
        known = row["folds"] or row["seeds"] == row["runs"]
        number = amount(row["seeds"], "seed") if known else amount(row["runs"], "run")
        parts.append(f"± {row['seed_std']:.4f} over {number}")
    return ", ".join(parts)


def interval_words(row: Any) -> str:
    """The interval in words, in a cross-validation with the pooled accuracy that it surrounds.

    Empty where there is none.
    """
    if pd.isna(row["acc_low"]):
        return ""
    pooled = f"pooled {row['pooled_acc']:.4f}, " if row["folds"] else ""
    return f"{pooled}95 % interval {row['acc_low']:.4f} to {row['acc_high']:.4f}"


def own_training(results: Results) -> pd.Series:
    """Which rows of the table were trained to be compared: no evaluations of finished runs, no pretraining."""
    own = ["experiment=pretraining" not in (overrides or ()) for overrides in results.overrides]
    runs = pd.Series(own, results.table.index, dtype=bool)
    return runs & results.table[EVALUATED].isna() if EVALUATED in results.table else runs


def is_trial(results: Results, row: int) -> bool:
    """Whether a run of the table is a trial of the machinery, which says nothing of methods."""
    resolved, overrides = results.resolved[row], results.overrides[row] or ()
    if any(key in resolved for key in LIMITS):
        return any(resolved.get(key) is not None for key in LIMITS)
    given = [item for item in overrides if item[:1] != "~" and not item.endswith("=null")]
    return any(item in TRIALS or split(item)[0] in LIMITS for item in given)


def trained(frame: pd.DataFrame, results: Results) -> pd.DataFrame:
    """The combinations that were trained to be compared, best first."""
    own = own_training(results).to_numpy()
    return frame[np.array([own[rows].all() for rows in frame["rows"]], dtype=bool)]
