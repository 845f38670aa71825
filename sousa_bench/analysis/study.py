"""The study: combinations with their intervals, the paired comparisons between them, and what may be concluded."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.comparisons import Measured, against_best, correct, mean_totals, measure, pair_table
from sousa_bench.analysis.effects import Effects, effects
from sousa_bench.analysis.factors import (
    BASE_FACTORS,
    SETTING_FACTORS,
    augmentation_words,
    cohort_words,
    combination_columns,
    shown,
)
from sousa_bench.analysis.intervals import accuracy_interval, why_no_interval
from sousa_bench.analysis.pairs import ALPHA, smallest_p
from sousa_bench.analysis.predictions import ClipSet, read_predictions
from sousa_bench.analysis.table import Results
from sousa_bench.errors import UserError

FAMILY_LIMIT = 40
PREDICTIONS_LIMIT = 1000
AT_CHANCE = "is not above chance"  # in a run's warnings, see ``sousa_bench.predictions.outcome_warnings``
LOWER_IS_BETTER = ("loss", "time", "seconds", "memory", "params", "param_efficiency")
MEANS = (
    "val_acc",
    "val_f1_macro",
    "test_acc",
    "test_f1_macro",
    "total_params",
    "trainable_params",
    "training_time_seconds",
    "avg_epoch_time",
    "peak_memory_bytes",
)


@dataclass(eq=False)
class Study:
    """Results and what the statistics say of them.

    Attributes:
        results: What was read.
        metric: Column that ranks.
        combinations: A row a combination with a completed run, best first: its factors, ``cohort``, ``runs``,
            ``seeds``, means over seeds, ``metric_std`` and ``acc_std`` over seeds, ``acc_low``, ``acc_high`` and
            ``acc_error`` over players, ``clips``, ``players``, ``note``, ``best_set``.
        pairs: A row a comparison: ``first``, ``second``, ``difference`` (first minus second) with ``low``, ``high``,
            ``p``, ``p_holm``, ``mcnemar_p`` (by clip), ``seeds_first``, ``seeds_second``, ``clips``, ``players``,
            ``cohort``.
        effects: Main effects and interactions of each cohort.
        clip_sets: The aligned predictions.
        measured: The combinations on each clip set.
        cohorts: What sets each cohort apart; empty where all runs are comparable.
        notes: Plain sentences about what was not compared, and why.
    """

    results: Results
    metric: str
    combinations: pd.DataFrame
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    effects: dict[str, Effects] = field(default_factory=dict)
    clip_sets: list[ClipSet] = field(default_factory=list)
    measured: list[list[Measured]] = field(default_factory=list)
    cohorts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """A row a run."""
        return self.results.table

    @property
    def factors(self) -> list[str]:
        """The columns that make a combination."""
        return combination_columns(self.table, self.results.factors)

    @cached_property
    def done(self) -> pd.DataFrame:
        """The completed runs with a test accuracy, best first by the metric; the index is the row in ``table``."""
        rows = self.table[(self.table["status"] == "completed") & self.table["test_acc"].notna()]
        return rows.sort_values(self.metric, ascending=lower_is_better(self.metric), kind="stable", na_position="last")

    @cached_property
    def at_chance(self) -> bool:
        """Whether every completed run says of itself that its accuracy is not above chance."""
        rows = self.done
        if not len(rows) or "warnings" not in rows:
            return False
        return bool(rows["warnings"].astype(str).str.contains(AT_CHANCE, regex=False).all())

    @cached_property
    def run_labels(self) -> dict[int, str]:
        """A short unique name of each row of the table: ``ast + lora, aug, peft.r=8, seed 2``."""
        extra = [key for key in self.factors if key not in BASE_FACTORS]
        if "seed" in self.table and self.table["seed"].nunique() > 1:
            extra.append("seed")
        names: dict[int, str] = {}
        taken: dict[str, int] = {}
        keys = list(dict.fromkeys([*BASE_FACTORS, *extra]))
        for row, item in zip(self.table.index, self.table[keys].to_dict("records"), strict=True):
            words = augmentation_words(item["augmentation"]).replace("with aug", "aug")
            parts = [f"{item['model']} + {item['strategy']}", words]
            parts += [
                f"seed {shown(item[key])}" if key == "seed" else f"{key.split('.')[-1]}={shown(item[key])}"
                for key in extra
            ]
            name = ", ".join(parts)[:120]
            taken[name] = taken.get(name, 0) + 1
            names[row] = name if taken[name] == 1 else f"{name} ({taken[name]})"
        return names


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of ``metric`` is the better one: losses, times, sizes."""
    return any(word in metric for word in LOWER_IS_BETTER)


def compare(results: Results, metric: str = "test_acc") -> Study:
    """Compare the combinations in ``results``.

    Args:
        results: From ``collect``.
        metric: Numeric column that ranks the combinations.

    Raises:
        UserError: ``metric`` is no numeric column.
    """
    table = results.table
    if metric not in table or not pd.api.types.is_numeric_dtype(table[metric]):
        numeric = [key for key in table.select_dtypes("number").columns if not key.startswith("per_class.")]
        near = difflib.get_close_matches(metric, numeric, 1)
        hint = f" did you mean {near[0]}?" if near else ""
        raise UserError(f"--metric {metric}: no such metric;{hint} there are {', '.join(numeric)}")
    made = Study(results, metric, _combinations(results, metric), cohorts=cohort_words(table))
    made.notes += results.unmatched
    done = np.flatnonzero((table["status"] == "completed").to_numpy())
    if len(done) > PREDICTIONS_LIMIT:
        order = table[metric].iloc[done].to_numpy() * (1 if lower_is_better(metric) else -1)
        done = np.sort(done[np.argsort(order, kind="stable")[:PREDICTIONS_LIMIT]])
        made.notes.append(f"Predictions were read for the best {PREDICTIONS_LIMIT} runs by {metric} only.")
    made.clip_sets, problems = read_predictions(table, done)
    results.problems += problems
    _add_run_intervals(made)
    _compare(made)
    _say(made)
    return made


def _combinations(results: Results, metric: str) -> pd.DataFrame:
    """Means over the completed runs (seeds) of each combination, best first."""
    table = results.table
    done = table[table["status"] == "completed"]
    keys = list(dict.fromkeys((*combination_columns(table, results.factors), *SETTING_FACTORS)))
    means = [key for key in dict.fromkeys((metric, *MEANS)) if key in done]
    rows = []
    for (label, cohort), group in done.groupby(["combination", "cohort"], sort=False):
        row: dict[str, Any] = {"combination": label, "cohort": cohort}
        row |= {key: group[key].iloc[0] for key in keys}
        row |= {key: group[key].mean() for key in means}
        row |= {"runs": len(group), "metric_std": group[metric].std(ddof=1), "acc_std": group["test_acc"].std(ddof=1)}
        row["seeds"] = group["seed"].nunique() if "seed" in group and group["seed"].notna().any() else len(group)
        row["rows"] = list(group.index)
        rows.append(row)
    columns = ["combination", "cohort", *keys, *means, "runs", "metric_std", "acc_std", "seeds", "rows"]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))
    frame = frame.sort_values(metric, ascending=lower_is_better(metric), kind="stable", na_position="last")
    return frame.reset_index(drop=True)


def _add_run_intervals(made: Study) -> None:
    """Interval, clips and players of each run, as columns of the table."""
    table = made.table
    size = len(table)
    columns = {key: np.full(size, np.nan) for key in ("test_acc_low", "test_acc_high", "test_acc_error")}
    counts = {key: np.zeros(size, dtype=np.int64) for key in ("test_clips", "test_players")}
    notes = np.full(size, "", dtype=object)
    notes[(table["status"] == "completed").to_numpy()] = "no interval: no predictions"
    for clips in made.clip_sets:
        correct = clips.correct
        counts["test_clips"][clips.rows] = correct.shape[1]
        counts["test_players"][clips.rows] = len(clips.players)
        notes[clips.rows] = why_no_interval(len(clips.players), clips.player is not None)
        _check_accuracy(made, clips, correct.mean(axis=1))
        if clips.player is None:
            continue
        interval = accuracy_interval(clips.totals(correct), clips.sizes)
        columns["test_acc_low"][clips.rows] = interval.low
        columns["test_acc_high"][clips.rows] = interval.high
        columns["test_acc_error"][clips.rows] = interval.error
    place = list(table.columns).index("combination")
    added = pd.DataFrame({**columns, **counts, "interval_note": notes}, index=table.index)
    made.results.table = pd.concat([table.iloc[:, :place], added, table.iloc[:, place:]], axis=1)


def _check_accuracy(made: Study, clips: ClipSet, accuracy: NDArray[np.float64]) -> None:
    """Name runs whose stated accuracy is not that of their predictions."""
    stated = made.table["test_acc"].to_numpy(float)[clips.rows]
    for row, said, found in zip(clips.rows, stated, accuracy, strict=True):
        if abs(said - found) > 2e-3:
            made.results.problems.append(
                f"{made.table['folder'].iloc[row]}: says test_acc={said:.4f}, but its predictions give {found:.4f}"
            )


def _compare(made: Study) -> None:
    """Fill in the combinations' intervals, the pairs and the effects."""
    frame = made.combinations
    for key in ("acc_low", "acc_high", "acc_error"):
        frame[key] = np.nan
    frame["clips"], frame["players"], frame["clip_set"] = 0, 0, -1
    frame["note"] = "no interval: no predictions"
    pairs = []
    for number, clips in enumerate(made.clip_sets):
        measured = measure(frame, clips)
        made.measured.append(measured)
        _combination_intervals(frame, number, clips, measured)
        for cohort in sorted({str(frame["cohort"].iloc[item.index]) for item in measured}):
            group = [item for item in measured if frame["cohort"].iloc[item.index] == cohort]
            pairs.append(_cohort_pairs(made, cohort, clips, group))
            name = cohort if cohort not in made.effects else f"{cohort}, clip set {number + 1}"
            made.effects[name] = _cohort_effects(made, clips, group)
    made.pairs = correct(pairs)
    _mark_best(made)


def _combination_intervals(frame: pd.DataFrame, number: int, clips: ClipSet, measured: Sequence[Measured]) -> None:
    """Intervals of the combinations that no larger clip set has given one."""
    items = [item for item in measured if frame["clip_set"].iloc[item.index] < 0]
    indices = [item.index for item in items]
    if not items:
        return
    frame.loc[indices, ["clips", "players", "clip_set"]] = [len(clips.label), len(clips.players), number]
    frame.loc[indices, "note"] = why_no_interval(len(clips.players), clips.player is not None)
    if clips.player is None:
        return
    interval = accuracy_interval(mean_totals(clips, items), clips.sizes)
    frame.loc[indices, "acc_low"] = interval.low
    frame.loc[indices, "acc_high"] = interval.high
    frame.loc[indices, "acc_error"] = interval.error


def _cohort_pairs(made: Study, cohort: str, clips: ClipSet, group: Sequence[Measured]) -> pd.DataFrame:
    """All paired comparisons between combinations of one cohort on one clip set, at most ``FAMILY_LIMIT`` of them."""
    if len(group) > FAMILY_LIMIT:
        made.notes.append(
            f"Cohort {cohort}: {len(group)} combinations; the paired tests take the {FAMILY_LIMIT} best by validation "
            "accuracy, which the test clips had no part in. Filter to compare others."
        )
        score = made.combinations["val_acc"].iloc[[item.index for item in group]].to_numpy(float)
        chosen = np.argsort(-np.nan_to_num(score, nan=-1.0), kind="stable")[:FAMILY_LIMIT]
        group = [group[number] for number in sorted(chosen)]
    couples = np.array([(i, j) for i in range(len(group)) for j in range(i + 1, len(group))], dtype=np.int64)
    return pair_table(made.combinations, clips, group, couples)


def _cohort_effects(made: Study, clips: ClipSet, group: Sequence[Measured]) -> Effects:
    if clips.player is None or not group:
        return Effects(word="Effects can't be tested: the predictions name no player.")
    cells = made.combinations.iloc[[item.index for item in group]]
    return effects(cells, made.factors, mean_totals(clips, group), clips.sizes)


def _mark_best(made: Study) -> None:
    """Mark the best combination of each cohort and those that the corrected tests can't tell from it."""
    frame = made.combinations
    frame["best_set"] = False
    frame["p_best"] = np.nan
    for cohort in frame["cohort"].unique():
        rows = frame.index[(frame["cohort"] == cohort) & frame["test_acc"].notna()]
        if not len(rows):
            continue
        best = frame.loc[rows, "test_acc"].idxmax()
        frame.loc[best, "best_set"] = True
        against = against_best(made.pairs, str(cohort), str(frame.loc[best, "combination"]))
        for row in rows:
            label = frame.loc[row, "combination"]
            if label in against:
                frame.loc[row, "p_best"] = against[label]
                frame.loc[row, "best_set"] = against[label] > ALPHA


def _say(made: Study) -> None:
    """Sentences on what was not compared, or could not be decided."""
    if made.cohorts:
        words = "; ".join(f"{name}: {what}" for name, what in made.cohorts.items())
        made.notes.append(
            "Runs that differ in data, test clips, weights or epochs are not compared with one another. Cohorts: "
            f"{words}."
        )
    for cohort, rows in made.combinations.groupby("cohort"):
        if rows.loc[rows["clip_set"] >= 0, "clip_set"].nunique() > 1:
            made.notes.append(
                f"Cohort {cohort}: not all runs were tested on the same clips; only those that were are compared."
            )
    for word in made.combinations.loc[made.combinations["note"] != "", "note"].unique():
        count = int((made.combinations["note"] == word).sum())
        made.notes.append(f"{count} of {len(made.combinations)} combinations: {word}.")
    _say_weights(made)
    _say_warnings(made)
    _say_config_folder(made)
    for cohort, pairs in made.pairs.groupby("cohort") if len(made.pairs) else ():
        players = int(pairs["players"].max())
        if smallest_p(players) * len(pairs) > ALPHA:
            made.notes.append(
                f"Cohort {cohort}: with {players} players no sign-flip p value can be below "
                f"{smallest_p(players):.2g}, so "
                f"none of {len(pairs)} comparisons can be clear after Holm's correction. Test on more players, or "
                "filter "
                "to fewer combinations."
            )


def _say_config_folder(made: Study) -> None:
    """Runs whose configs lay elsewhere: no command of the report names a folder that only a file vouches for."""
    if "command" in made.table and made.table["command"].astype(str).str.contains(r"\s(?:--config-dir|-cd)\b").any():
        made.notes.append(
            "Some runs were started with --config-dir. The commands here leave it out: add it where you trust the "
            "folder."
        )


def _say_warnings(made: Study) -> None:
    """How many runs said that something about their numbers must be known."""
    warned = warned_runs(made)
    if len(warned):
        example = str(warned["warnings"].iloc[0])
        made.notes.append(
            f"{len(warned)} of {len(made.table)} runs carry warnings, the first: "
            f"{example[:200]}{'…' if len(example) > 200 else ''}"
        )


def warned_runs(made: Study) -> pd.DataFrame:
    """Rows of the table whose result carries a warning."""
    if "warnings" not in made.table:
        return made.table.iloc[:0].assign(warnings="")
    return made.table[made.table["warnings"].map(lambda value: isinstance(value, str) and value != "")]


def _say_weights(made: Study) -> None:
    """Name models whose runs started from different files of weights."""
    table = made.table
    if "weights.sha256" not in table:
        return
    done = table[(table["status"] == "completed") & table["weights.sha256"].notna()]
    for (cohort, model), rows in done.groupby(["cohort", "model"]):
        if rows["weights.sha256"].nunique() > 1:
            made.notes.append(f"Cohort {cohort}: runs of {model} started from different weights files; mind that.")
