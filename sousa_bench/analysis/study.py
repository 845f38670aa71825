"""The study: combinations with their intervals, the paired comparisons between them, and what may be concluded."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet, read_predictions
from sousa_bench.analysis.columns import lower_is_better
from sousa_bench.analysis.combinations import combinations
from sousa_bench.analysis.factors import (
    BASE_FACTORS,
    augmentation_words,
    cohort_words,
    combination_columns,
    shown,
)
from sousa_bench.analysis.flatten import MORE_OF_SEVERAL, SEEDLESS
from sousa_bench.analysis.labels import brief
from sousa_bench.analysis.limitations import limitations
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.shared_clips import Measurer, RunsBySet, SharedClips, meeting_places, runs_by_set
from sousa_bench.analysis.stats.comparisons import Measured, against_best, join, luck_of, mean_totals, pair_table
from sousa_bench.analysis.stats.cost_front import on_front
from sousa_bench.analysis.stats.effects import Effects, effects
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.stats.intervals import MIN_PLAYERS, accuracy_interval, why_no_interval
from sousa_bench.analysis.stats.pairs import ALPHA, highest_t
from sousa_bench.analysis.stats.training_luck import Luck, TrainingLuck, training_luck
from sousa_bench.analysis.table import Results
from sousa_bench.errors import UserError
from sousa_bench.results.metrics import METRICS, METRICS_OF_SEVERAL
from sousa_bench.system.text_table import amount
from sousa_bench.task import Task

if TYPE_CHECKING:
    from sousa_bench.analysis.drawn_runs import DrawnRuns
    from sousa_bench.analysis.misheard import Misheard
    from sousa_bench.analysis.standings import Standings

FAMILY_LIMIT = 40
PREDICTIONS_LIMIT = 1000
NO_INTERVAL = "no interval: no predictions"
RUN_INTERVAL = ("test_acc_low", "test_acc_high", "test_acc_error", "test_clips", "test_players", "interval_note")
INTERVAL = ("acc_low", "acc_high", "acc_error", "clips", "players", "note")
AT_CHANCE = "is not above chance"  # in a run's warnings, see ``sousa_bench.results.predictions.outcome_warnings``


@dataclass(eq=False, repr=False)
class Study:
    """Results and what the statistics say of them.

    All that ranks and compares is under the names of accuracy (``test_acc``, ``val_acc``, ``acc_low``, …). Where a clip
    may have several labels it is the mean average precision (``columns.own_name`` gives it its name back).

    Attributes:
        results: What was read.
        metric: Column that ranks.
        combinations: A row a combination with a completed run, best first: see ``combinations.combinations``, and
            ``pooled_acc`` (over the clips of all folds) with ``acc_low``, ``acc_high`` and ``acc_error``,
            ``clips``, ``players``, ``note``, ``best_set``, ``on_front`` (see ``cost_front.on_front``),
            ``leader`` (``test``, ``validation`` or ``both``: of its cohort the first by that accuracy; the interval of
            a leader allows for its having been chosen).
        pairs: A row a comparison, see ``comparisons.pair_table``: ``first``, ``second``, ``difference`` (first minus
            second) with ``low``, ``high`` and ``p`` of this comparison alone, ``simultaneous_low``,
            ``simultaneous_high``, ``p_adjusted`` and ``clear`` of its family.
        luck: What each cohort shows of training luck.
        effects: Main effects and interactions of each cohort.
        clip_sets: The aligned predictions.
        shared_clips: The clips on which combinations meet, with the combinations.
        measurer: Counts how often combinations were right on them.
        margin: Difference of accuracies within which two combinations count as equally good.
        cohorts: What sets each cohort apart; empty where all runs are comparable.
        notes: Plain sentences about what was not compared, and why.
    """

    results: Results
    metric: str
    combinations: pd.DataFrame
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    luck: dict[str, TrainingLuck] = field(default_factory=dict)
    effects: dict[str, Effects] = field(default_factory=dict)
    clip_sets: list[ClipSet] = field(default_factory=list)
    shared_clips: list[SharedClips] = field(default_factory=list)
    measurer: Measurer = field(default_factory=lambda: Measurer([]))
    margin: float = 0.02
    cohorts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """One line: how much there is, and the verdict; a notebook shows ``_repr_html_``."""
        from sousa_bench.analysis.report.verdict_line import verdicts

        first, *others = verdicts(self)
        more = f" And {amount(len(others), 'more verdict')}." if others else ""
        size = f"{amount(len(self.table), 'run')}, {amount(len(self.combinations), 'combination')}"
        return f"<Study of {size}. {''.join(first)}{more}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict and the table of each cohort."""
        from sousa_bench.analysis.report.blocks import Options
        from sousa_bench.analysis.report.first_screen import conclusion
        from sousa_bench.analysis.report.html_page import fragment

        return fragment(conclusion(self, Options(plots=False)))

    @cached_property
    def standings(self) -> list[Standings]:
        """Those of each cohort, see ``standings.standings``."""
        from sousa_bench.analysis.standings import standings

        return standings(self)

    @cached_property
    def drawn(self) -> DrawnRuns:
        """The runs that stand one by one in the page's table and figures."""
        from sousa_bench.analysis.drawn_runs import drawn_runs

        return drawn_runs(self)

    @cached_property
    def misheard(self) -> Misheard:
        """The test clips that nearly all combinations got wrong."""
        from sousa_bench.analysis.misheard import misheard_clips

        return misheard_clips(self)

    @cached_property
    def model_sizes(self) -> pd.DataFrame:
        """What each network reaches, by pretraining, family and size."""
        from sousa_bench.analysis.model_sizes import model_sizes

        return model_sizes(self)

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
        return best_first(rows, self.metric, ascending)

    @cached_property
    def task(self) -> Task:
        """What the completed runs were asked; where that was not the same, a task of their common words."""
        found = [self.results.tasks[row] for row in self.done.index] or self.results.tasks
        if all(task == found[0] for task in found):
            return found[0]
        nouns, groups = {task.noun for task in found}, {task.group for task in found}
        return Task(
            (),
            several=all(task.several for task in found),
            noun=nouns.pop() if len(nouns) == 1 else "class",
            group=groups.pop() if len(groups) == 1 else "group",
        )

    @cached_property
    def at_chance(self) -> bool:
        """Whether every completed run says of itself that its accuracy is not above chance."""
        return len(self.done) > 0 and set(self.done.index) <= self.no_more_than_luck

    @cached_property
    def no_more_than_luck(self) -> set[int]:
        """The rows of the runs that say of themselves that their accuracy is not above chance."""
        warnings = self.table.get("warnings", pd.Series(dtype=object)).astype(str)
        return set(self.table.index[warnings.str.contains(AT_CHANCE, regex=False)]) if len(warnings) else set()

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
    return f"{name} {shown(value)}" if key in (FOLD, "seed") else f"{name}={brief(value)}"


def compare(results: Results, metric: str = "test_acc", margin: float = 0.02) -> Study:
    """Compare the combinations in ``results``.

    Args:
        results: From ``collect``.
        metric: Numeric column that ranks the combinations.
        margin: Difference of accuracies within which two combinations count as equally good.

    Raises:
        UserError: ``metric`` is no numeric column.
    """
    metric = _rank_by_accuracy(results, metric)
    table = results.table
    if metric not in table or not pd.api.types.is_numeric_dtype(table[metric]):
        numeric = [key for key in table.select_dtypes("number").columns if not key.startswith("per_class.")]
        near = difflib.get_close_matches(metric, numeric) or [key for key in numeric if key.startswith("test_")]
        raise UserError(
            f"--metric {metric}: no such metric; did you mean {' or '.join(near)}? Any column of numbers of "
            "comparison_table.csv can be one"
        )
    study = Study(results, metric, combinations(results, metric), margin=margin, cohorts=cohort_words(table))
    study.notes += results.unmatched
    study.clip_sets, problems = read_predictions(table, results.tasks, _with_predictions(study))
    results.problems += problems
    _add_run_intervals(study)
    _compare(study)
    study.notes += limitations(study)
    return study


def _rank_by_accuracy(results: Results, metric: str) -> str:
    """Put what ranks runs of several labels a clip into the columns of accuracy; ``metric``, or which of them it is."""
    several = np.array([task.several for task in results.tasks])
    for key in MORE_OF_SEVERAL:
        if several.any() and key not in results.table:
            results.table[key] = np.nan  # results by others may lack them
    for split in ("val", "test"):
        own, accuracy = (f"{split}_{metrics[0].name}" for metrics in (METRICS_OF_SEVERAL, METRICS))
        if several.any() and own in results.table:
            results.table.loc[several, accuracy] = results.table.loc[several, own]
        if several.all() and metric == own:
            metric = accuracy
    return metric


def _with_predictions(study: Study) -> list[int]:
    """Rows whose predictions are read: those of the best combinations, each whole, since lucky seeds would flatter."""
    chosen: list[int] = []
    for number, rows in enumerate(study.combinations["rows"]):
        if len(chosen) + len(rows) > PREDICTIONS_LIMIT:
            study.notes.append(
                f"Predictions were read for the best {number} of {len(study.combinations)} combinations by "
                f"{study.metric} only ({amount(len(chosen), 'run')})."
            )
            break
        chosen += rows
    return sorted(chosen)


def _add_run_intervals(study: Study) -> None:
    """Interval, clips and players of each run, as columns of the table."""
    table = study.table
    added = pd.DataFrame(index=table.index, columns=list(RUN_INTERVAL), dtype=object)
    added = added.astype(dict.fromkeys(RUN_INTERVAL[:3], float))
    added[["test_clips", "test_players"]] = 0
    added["interval_note"] = np.where(table["status"] == "completed", NO_INTERVAL, "").astype(object)
    for clips in study.clip_sets:
        correct = clips.correct
        _fill_intervals(added, clips.rows, RUN_INTERVAL, clips, clips.totals(correct))
        _check_accuracy(study, clips, correct.mean(axis=1))
    place = list(table.columns).index("combination")
    study.results.table = pd.concat([table.iloc[:, :place], added, table.iloc[:, place:]], axis=1)


def _fill_intervals(
    frame: pd.DataFrame,
    rows: Sequence[int],
    columns: Sequence[str],
    clips: ClipSet,
    totals: NDArray[np.float64],
    luck: Luck | None = None,
    lower_quantile: NDArray[np.float64] | None = None,
) -> None:
    """Fill in interval, clips and players of some rows of the runs or the combinations.

    Args:
        frame: The runs or the combinations.
        rows: Which of them.
        columns: ``RUN_INTERVAL`` or ``INTERVAL``.
        clips: What these were tested on.
        totals: Right clips of each row by player, shape (rows, players).
        luck: Of each row's trainings; None: a row is one trained model.
        lower_quantile: See ``accuracy_interval``.
    """
    *ends, count, players, note = columns
    frame.loc[rows, [count, players]] = [len(clips.label), len(clips.players)]
    frame.loc[rows, note] = why_no_interval(len(clips.players), clips.task, clips.player is not None)
    if clips.player is not None:
        interval = accuracy_interval(totals, clips.sizes, luck, lower_quantile=lower_quantile)
        frame.loc[rows, ends] = np.stack([interval.low, interval.high, interval.error], axis=1)


def _check_accuracy(study: Study, clips: ClipSet, accuracy: NDArray[np.float64]) -> None:
    """Name runs whose stated accuracy is not that of their predictions."""
    stated = study.table["test_acc"].to_numpy(float)[clips.rows]
    for row, said, found in zip(clips.rows, stated, accuracy, strict=True):
        if abs(said - found) > 2e-3:
            study.results.problems.append(
                f"{study.table['folder'].iloc[row]}: says test_{clips.task.metric}={said:.4f}, but its predictions "
                f"give {found:.4f}"
            )


def _compare(study: Study) -> None:
    """Fill in the combinations' intervals, the pairs and the effects."""
    frame = study.combinations
    for key in ("pooled_acc", "acc_low", "acc_high", "acc_error"):
        frame[key] = np.nan
    frame["clips"], frame["players"], frame["shared_clips"] = 0, 0, -1
    frame["note"], frame["leader"] = NO_INTERVAL, ""
    study.measurer = Measurer(study.clip_sets)
    runs = runs_by_set(frame, study.table, study.measurer)
    study.shared_clips = meeting_places(frame, runs, study.measurer)
    for cohort, rows in frame.groupby("cohort"):
        cells = [
            cell
            for index, strategy in zip(rows.index, rows["strategy"], strict=True)
            for cell in study.measurer.repeats(index, runs[index], strategy in SEEDLESS)
        ]
        study.luck[str(cohort)] = training_luck(cells)
        _mark_leaders(frame, rows)
    families: list[_Family] = []
    for number, shared in enumerate(study.shared_clips):
        cohorts = frame["cohort"].iloc[[item.index for item in shared.measured]]
        for cohort in sorted(cohorts.unique()):
            group = [item for item, own in zip(shared.measured, cohorts, strict=True) if own == cohort]
            _combination_intervals(study, number, shared, group)
            folds = len(shared.sets) if frame["folds"].iloc[group[0].index] else 0
            families.append(_cohort_family(study, cohort, shared, group, folds))
            if not folds:
                name = cohort if cohort not in study.effects else f"{cohort}, clip set {number + 1}"
                study.effects[name] = _cohort_effects(study, cohort, shared.clips, group)
    for cohort, rows in frame[(frame["folds"] > 0) & (frame["shared_clips"] >= 0)].groupby("cohort"):
        study.effects[str(cohort)] = _fold_effects(study, str(cohort), list(rows.index), runs)
        families += _families_across(study, str(cohort), list(rows.index), runs)
    count = Counter(family.cohort for family in families if family.couples)
    study.pairs = join(
        [
            pair_table(
                frame, each.clips, each.group, each.couples, study.luck[each.cohort], each.folds, count[each.cohort]
            )
            for each in families
        ]
    )
    _mark_best(study)
    study.combinations["on_front"] = on_front(study.combinations, study.pairs)


@dataclass(frozen=True)
class _Family:
    """Comparisons on the same clips: arguments of ``pair_table``."""

    cohort: str
    clips: ClipSet
    group: Sequence[Measured]
    couples: Sequence[tuple[int, int]]
    folds: int


def _mark_leaders(frame: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Mark a cohort's first by test and by validation accuracy."""
    for key, word in (("test_acc", "test"), ("val_acc", "validation")):
        if key in rows and rows[key].notna().any():
            first = best_first(rows, key).index[0]
            frame.at[first, "leader"] = "both" if frame.at[first, "leader"] else word


def _combination_intervals(study: Study, number: int, shared: SharedClips, group: Sequence[Measured]) -> None:
    """Intervals of a cohort's combinations that have none yet: of several clip sets that of most runs comes first."""
    frame = study.combinations
    items = [item for item in group if frame["shared_clips"].iloc[item.index] < 0]
    if not items:
        return
    indices = [item.index for item in items]
    frame.loc[indices, "shared_clips"] = number
    frame.loc[indices, "pooled_acc"] = [float(item.hits.mean()) / item.scale for item in items]
    totals = mean_totals(shared.clips, items)
    luck = luck_of(items, study.luck[str(frame["cohort"].iloc[indices[0]])]).cautious
    leads = (frame["leader"].iloc[indices] != "").to_numpy()
    chosen = None
    if leads.any() and len(items) > 1 and len(shared.clips.players) >= MIN_PLAYERS:
        chosen = np.where(leads, highest_t(totals, shared.clips.sizes, luck), 0.0)
    _fill_intervals(frame, indices, INTERVAL, shared.clips, totals, luck, chosen)


def _cohort_family(study: Study, cohort: str, shared: SharedClips, group: Sequence[Measured], folds: int) -> _Family:
    """All pairs of the combinations of one cohort on the same clips, at most ``FAMILY_LIMIT`` of them."""
    chosen = set(_family(study, [item.index for item in group]))
    if len(group) > len(chosen):
        study.notes.append(
            f"Cohort {cohort}: {len(group)} combinations; the paired tests take the {FAMILY_LIMIT} best by validation "
            f"{shared.clips.task.score}, which the test clips had no part in. Filter to compare others."
        )
        group = [item for item in group if item.index in chosen]
    return _Family(cohort, shared.clips, group, list(itertools.combinations(range(len(group)), 2)), folds)


def _family(study: Study, indices: Sequence[int]) -> list[int]:
    """The ``FAMILY_LIMIT`` combinations of the highest validation accuracy, in their order."""
    score = study.combinations["val_acc"].iloc[list(indices)].to_numpy(float)
    best = np.argsort(-np.nan_to_num(score, nan=-1.0), kind="stable")[:FAMILY_LIMIT]
    return [indices[number] for number in sorted(best)]


def _families_across(study: Study, cohort: str, indices: Sequence[int], runs: Sequence[RunsBySet]) -> Iterator[_Family]:
    """Comparisons between combinations of a cohort that have other folds, on the folds that both have."""
    chosen = set(_family(study, indices))
    numbers = sorted(set(study.combinations["shared_clips"].iloc[list(indices)]))
    for places in itertools.combinations([study.shared_clips[number] for number in numbers], 2):
        sets = tuple(sorted(set.intersection(*(set(place.sets) for place in places))))
        first, second = ([item.index for item in place.measured if item.index in chosen] for place in places)
        if sets and first and second:
            shared = study.measurer.share(sets, [*first, *second], runs)
            size = len(shared.measured)
            couples = list(itertools.product(range(len(first)), range(len(first), size)))
            yield _Family(cohort, shared.clips, shared.measured, couples, len(sets))


def _fold_effects(study: Study, cohort: str, indices: Sequence[int], runs: Sequence[RunsBySet]) -> Effects:
    """Effects of a cross-validation, on the folds that all its combinations have."""
    sets = tuple(sorted(set.intersection(*(set(runs[index]) for index in indices))))
    if not sets:
        return Effects(reason="Effects can't be tested: no fold is common to all combinations.")
    shared = study.measurer.share(sets, indices, runs)
    return _cohort_effects(study, cohort, shared.clips, shared.measured)


def _cohort_effects(study: Study, cohort: str, clips: ClipSet, group: Sequence[Measured]) -> Effects:
    if clips.player is None:
        return Effects(reason=f"Effects can't be tested: the predictions name no {clips.task.group}.")
    cells = study.combinations.iloc[[item.index for item in group]]
    luck = luck_of(group, study.luck[cohort])
    totals = mean_totals(clips, group)
    found = effects(cells, study.factors, totals, clips.sizes, luck, groups=clips.task.groups)
    for table in (found.table, found.levels):
        if len(table):
            table["clips"] = len(clips.label)  # of several labels each, the totals count players
    return found


def _mark_best(study: Study) -> None:
    """Mark the best combination of each cohort and those that the tests can't tell from it."""
    frame = study.combinations
    frame["best_set"] = False
    frame["p_best"] = np.nan
    for cohort in frame["cohort"].unique():
        rows = frame.index[(frame["cohort"] == cohort) & frame["test_acc"].notna()]
        if not len(rows):
            continue
        best = best_first(frame.loc[rows], "test_acc").index[0]
        against = against_best(study.pairs, str(cohort), str(frame.loc[best, "combination"]))
        p_values = frame.loc[rows, "combination"].map(against).astype(float)
        frame.loc[rows, "p_best"] = p_values
        frame.loc[rows, "best_set"] = p_values > ALPHA
        frame.loc[best, "best_set"] = True
