"""The study: combinations with their intervals, the paired comparisons between them, and what may be concluded."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet, read_predictions
from sousa_bench.analysis.columns import lower_is_better
from sousa_bench.analysis.combinations import combinations
from sousa_bench.analysis.factors import BASE_FACTORS, augmentation_words, cohort_words, combination_columns, shown
from sousa_bench.analysis.grounds import Ground, Measurer, Own, grounds, own_rows, shared_grounds
from sousa_bench.analysis.limitations import limitations
from sousa_bench.analysis.stats.comparisons import Measured, against_best, correct, mean_totals, pair_table
from sousa_bench.analysis.stats.effects import Effects, effects
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.stats.intervals import accuracy_interval, why_no_interval
from sousa_bench.analysis.stats.pairs import ALPHA
from sousa_bench.analysis.table import Results
from sousa_bench.errors import UserError

FAMILY_LIMIT = 40
PREDICTIONS_LIMIT = 1000
AT_CHANCE = "is not above chance"  # in a run's warnings, see ``sousa_bench.results.predictions.outcome_warnings``


@dataclass(eq=False)
class Study:
    """Results and what the statistics say of them.

    Attributes:
        results: What was read.
        metric: Column that ranks.
        combinations: A row a combination with a completed run, best first: see ``combinations.combinations``, and
            ``pooled_acc`` (over the clips of all folds) with ``acc_low``, ``acc_high`` and ``acc_error`` over players,
            ``clips``, ``players``, ``note``, ``best_set``.
        pairs: A row a comparison: ``first``, ``second``, ``difference`` (first minus second) with ``low``, ``high``,
            ``p``, ``p_holm``, ``mcnemar_p`` (by clip), ``seeds_first``, ``seeds_second``, ``folds``, ``clips``,
            ``players``, ``cohort``.
        effects: Main effects and interactions of each cohort.
        clip_sets: The aligned predictions.
        grounds: The clips on which combinations meet, with the combinations.
        measurer: Counts who was right on them.
        cohorts: What sets each cohort apart; empty where all runs are comparable.
        notes: Plain sentences about what was not compared, and why.
    """

    results: Results
    metric: str
    combinations: pd.DataFrame
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    effects: dict[str, Effects] = field(default_factory=dict)
    clip_sets: list[ClipSet] = field(default_factory=list)
    grounds: list[Ground] = field(default_factory=list)
    measurer: Measurer = field(default_factory=lambda: Measurer([]))
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
        ascending = lower_is_better(self.metric, self.table)
        return rows.sort_values(self.metric, ascending=ascending, kind="stable", na_position="last")

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
        extra += [key for key in (FOLD, "seed") if key in self.table and self.table[key].nunique() > 1]
        names: dict[int, str] = {}
        taken: dict[str, int] = {}
        keys = list(dict.fromkeys([*BASE_FACTORS, *extra]))
        for row, item in zip(self.table.index, self.table[keys].to_dict("records"), strict=True):
            words = augmentation_words(item["augmentation"]).replace("with aug", "aug")
            parts = [f"{item['model']} + {item['strategy']}", words]
            parts += [_part(key, item[key]) for key in extra if key != FOLD or item[key]]
            name = ", ".join(parts)[:120]
            taken[name] = taken.get(name, 0) + 1
            names[row] = name if taken[name] == 1 else f"{name} ({taken[name]})"
        return names


def _part(key: str, value: Any) -> str:
    name = key.split(".")[-1]
    return f"{name} {shown(value)}" if key in (FOLD, "seed") else f"{name}={shown(value)}"


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
    made = Study(results, metric, combinations(results, metric), cohorts=cohort_words(table))
    made.notes += results.unmatched
    made.clip_sets, problems = read_predictions(table, _with_predictions(made))
    results.problems += problems
    _add_run_intervals(made)
    _compare(made)
    made.notes += limitations(made)
    return made


def _with_predictions(made: Study) -> list[int]:
    """Rows whose predictions are read: those of the best combinations, each whole, since lucky seeds would flatter."""
    chosen: list[int] = []
    for number, rows in enumerate(made.combinations["rows"]):
        if len(chosen) + len(rows) > PREDICTIONS_LIMIT:
            made.notes.append(
                f"Predictions were read for the best {number} of {len(made.combinations)} combinations by "
                f"{made.metric} only ({len(chosen)} runs)."
            )
            break
        chosen += rows
    return sorted(chosen)


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
    for key in ("pooled_acc", "acc_low", "acc_high", "acc_error"):
        frame[key] = np.nan
    frame["clips"], frame["players"], frame["ground"] = 0, 0, -1
    frame["note"] = "no interval: no predictions"
    made.measurer = Measurer(made.clip_sets)
    own = own_rows(frame, made.table, made.measurer)
    made.grounds = grounds(frame, own, made.measurer)
    pairs = []
    for number, ground in enumerate(made.grounds):
        _combination_intervals(frame, number, ground)
        for cohort in sorted({str(frame["cohort"].iloc[item.index]) for item in ground.measured}):
            group = [item for item in ground.measured if frame["cohort"].iloc[item.index] == cohort]
            pairs.append(_cohort_pairs(made, cohort, ground, group))
            if not _folds(made, ground, group):
                name = cohort if cohort not in made.effects else f"{cohort}, clip set {number + 1}"
                made.effects[name] = _cohort_effects(made, ground, group)
    _fold_effects(made, own)
    made.pairs = correct([*pairs, *_pairs_across(made, own)])
    _mark_best(made)


def _combination_intervals(frame: pd.DataFrame, number: int, ground: Ground) -> None:
    """Intervals of the combinations that no larger ground has given one."""
    items = [item for item in ground.measured if frame["ground"].iloc[item.index] < 0]
    indices = [item.index for item in items]
    if not items:
        return
    clips = ground.clips
    frame.loc[indices, ["clips", "players", "ground"]] = [len(clips.label), len(clips.players), number]
    frame.loc[indices, "note"] = why_no_interval(len(clips.players), clips.player is not None)
    frame.loc[indices, "pooled_acc"] = [float(item.hits.mean()) / item.scale for item in items]
    if clips.player is None:
        return
    interval = accuracy_interval(mean_totals(clips, items), clips.sizes)
    frame.loc[indices, "acc_low"] = interval.low
    frame.loc[indices, "acc_high"] = interval.high
    frame.loc[indices, "acc_error"] = interval.error


def _cohort_pairs(made: Study, cohort: str, ground: Ground, group: Sequence[Measured]) -> pd.DataFrame:
    """All paired comparisons between combinations of one cohort on one ground, at most ``FAMILY_LIMIT`` of them."""
    chosen = set(_family(made, [item.index for item in group]))
    if len(group) > len(chosen):
        made.notes.append(
            f"Cohort {cohort}: {len(group)} combinations; the paired tests take the {FAMILY_LIMIT} best by validation "
            "accuracy, which the test clips had no part in. Filter to compare others."
        )
        group = [item for item in group if item.index in chosen]
    couples = np.array([(i, j) for i in range(len(group)) for j in range(i + 1, len(group))], dtype=np.int64)
    return pair_table(made.combinations, ground.clips, group, couples, _folds(made, ground, group))


def _family(made: Study, indices: Sequence[int]) -> list[int]:
    """The ``FAMILY_LIMIT`` combinations of the highest validation accuracy, in their order."""
    score = made.combinations["val_acc"].iloc[list(indices)].to_numpy(float)
    best = np.argsort(-np.nan_to_num(score, nan=-1.0), kind="stable")[:FAMILY_LIMIT]
    return [indices[number] for number in sorted(best)]


def _folds(made: Study, ground: Ground, group: Sequence[Measured]) -> int:
    return len(ground.sets) if group and made.combinations["folds"].iloc[group[0].index] else 0


def _pairs_across(made: Study, own: Sequence[Own]) -> list[pd.DataFrame]:
    """Comparisons between combinations that have other folds, on the folds that both have."""
    frame = made.combinations
    found = []
    for _, rows in frame[(frame["folds"] > 0) & (frame["ground"] >= 0)].groupby("cohort"):
        chosen = _family(made, list(rows.index))
        numbers = sorted(set(rows["ground"]))
        for one, two in itertools.combinations(numbers, 2):
            mine = [index for index in chosen if frame["ground"].iloc[index] in (one, two)]
            shared, first = shared_grounds(made.grounds[one], made.grounds[two], own, made.measurer, mine)
            size = len(shared.measured)
            couples = np.array([(i, j) for i in range(first) for j in range(first, size)], dtype=np.int64)
            found.append(pair_table(frame, shared.clips, shared.measured, couples, len(shared.sets)))
    return found


def _fold_effects(made: Study, own: Sequence[Own]) -> None:
    """Effects of each cross-validation, on the folds that all its combinations have."""
    frame = made.combinations
    for cohort, rows in frame[(frame["folds"] > 0) & (frame["ground"] >= 0)].groupby("cohort"):
        sets = tuple(sorted(set.intersection(*(set(own[index]) for index in rows.index))))
        if sets:
            group = [made.measurer.measure(int(index), own[index], sets) for index in rows.index]
            made.effects[str(cohort)] = _cohort_effects(made, Ground(sets, made.measurer.pool(sets), group), group)
        else:
            made.effects[str(cohort)] = Effects(word="Effects can't be tested: no fold is common to all combinations.")


def _cohort_effects(made: Study, ground: Ground, group: Sequence[Measured]) -> Effects:
    if ground.clips.player is None or not group:
        return Effects(word="Effects can't be tested: the predictions name no player.")
    cells = made.combinations.iloc[[item.index for item in group]]
    return effects(cells, made.factors, mean_totals(ground.clips, group), ground.clips.sizes)


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
