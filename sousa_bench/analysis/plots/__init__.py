"""Every figure of the report, as a function from a ``Study`` to a plotly figure. One definition serves PNG and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from sousa_bench.analysis.drawn_runs import OF_ALL
from sousa_bench.analysis.flatten import PER_CLASS
from sousa_bench.analysis.plots.curves import PAGE_LIMIT, learning_curves
from sousa_bench.analysis.plots.details import (
    DETAIL_LIMIT,
    accuracy_by_skill_tier,
    accuracy_by_soundfont,
    accuracy_by_tempo,
    confusion_matrix,
    per_class_average_precision,
    per_class_f1,
)
from sousa_bench.analysis.plots.low_data_curves import low_data_curves
from sousa_bench.analysis.plots.matrix import (
    augmentation_effect,
    factor_effect,
    main_effects,
    mean_ranks,
    model_strategy_heatmap,
    pairwise_differences,
)
from sousa_bench.analysis.plots.runs import (
    ON_FRONT,
    accuracy_comparison,
    accuracy_over_multiply_adds,
    accuracy_over_parameters,
    efficiency_scatter,
    peak_memory,
    seed_spread,
    time_accuracy,
    training_time,
)
from sousa_bench.analysis.plots.search_views import best_so_far, search_importance, search_trials
from sousa_bench.analysis.study import Study
from sousa_bench.task import Task

NO_PREDICTIONS = "No test predictions were found."
SLICES = "The best runs; intervals where a slice has at least 8 {groups}."
NO_SLICES = f"{NO_PREDICTIONS} Or they don't say it."
EVERY_RUN = {"limit": None}
DETAILED_RUNS = {"limit": DETAIL_LIMIT}


@dataclass(frozen=True)
class Figure:
    """The declaration of a figure; its name is that of the function.

    Attributes:
        draw: Draws it; None where the results don't hold what it needs.
        group: Heading it stands under.
        caption: What it shows and how to read it; ``{noun}`` and the other names of ``_words`` stand for the task's
            words.
        absent: Why there is none; empty for a figure that is only mentioned where there is one.
        on_page: Arguments of ``draw`` for the page, which filters and so wants more runs than an image can show.
    """

    draw: Callable[..., go.Figure | None]
    group: str
    caption: str
    absent: str = ""
    on_page: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its file and of its element in the page."""
        return self.draw.__name__


FIGURES = (
    Figure(
        accuracy_comparison,
        "Accuracy",
        "A mark a run; the symbol is the strategy, an open mark has no augmentation. The interval covers the choice of "
        "{groups_and_clips}.",
        on_page=EVERY_RUN,
    ),
    Figure(model_strategy_heatmap, "Accuracy", "Averages over all shown runs of a cell."),
    Figure(
        pairwise_differences,
        "Accuracy",
        "Row minus column on the same clips. A dot: clear, corrected for all pairs.",
        "No two combinations were tested on the same clips with known {groups}.",
    ),
    Figure(
        mean_ranks,
        "Accuracy",
        "The lower the better. Methods whose bars overlap can't be told apart over these data sets (Nemenyi's test).",
    ),
    Figure(
        efficiency_scatter,
        "Cost",
        "The dotted line is the Pareto front: no run has both fewer trainable parameters and {more}.",
    ),
    *(
        Figure(draw, "Cost", "What the network costs before any adapter; the dotted line is the Pareto front.")
        for draw in (accuracy_over_parameters, accuracy_over_multiply_adds)
    ),
    Figure(time_accuracy, "Cost", "Logarithmic time; larger marks took more memory."),
    Figure(training_time, "Cost", "Shortest first.", on_page=EVERY_RUN),
    Figure(peak_memory, "Cost", "Least first.", "No run recorded its memory.", EVERY_RUN),
    Figure(
        augmentation_effect,
        "Effects",
        "Pairs that differ in augmentation alone, on the same clips; above 0 it helps.",
        "No two combinations differ in augmentation alone.",
        EVERY_RUN,
    ),
    Figure(
        main_effects,
        "Effects",
        "How far each level lies from the mean of the balanced matrix.",
        "Main effects need the test predictions.",
    ),
    Figure(
        low_data_curves,
        "Effects",
        "A line a method; where two cross, and whether the tests tell it, stands under With few training clips.",
    ),
    Figure(
        seed_spread,
        "Effects",
        "The spread over runs of one combination (seeds, folds) beside the luck of the test {groups}.",
    ),
    Figure(
        best_so_far,
        "The search",
        "The validation score of each trial, and the highest so far. The best of many is too good.",
    ),
    Figure(
        search_importance,
        "The search",
        "How closely the score follows each key by itself. Keys that were drawn alike share it, and of few trials luck "
        "alone makes some.",
    ),
    Figure(
        search_trials,
        "The search",
        "A line a trial; each key from its least value to its most (choices by name). The brighter, the better.",
    ),
    Figure(
        learning_curves,
        "Training",
        "The best runs; choose others by filter or by a click in the table.",
        "No result holds a history.",
        {"limit": PAGE_LIMIT},
    ),
    Figure(
        confusion_matrix,
        "Predictions",
        "{order}; colour is the share of the true {noun}'s clips.",
        NO_PREDICTIONS,
    ),
    Figure(per_class_f1, "Predictions", "Harmonic mean of precision and recall of each {noun}.", NO_PREDICTIONS),
    Figure(
        per_class_average_precision,
        "Predictions",
        "Precision of each {noun}, averaged over the clips that have it, as far down the list as each of them stands.",
    ),
    Figure(accuracy_by_skill_tier, "Predictions", SLICES, NO_SLICES, DETAILED_RUNS),
    Figure(accuracy_by_tempo, "Predictions", SLICES, NO_SLICES, DETAILED_RUNS),
    Figure(accuracy_by_soundfont, "Predictions", SLICES, NO_SLICES, DETAILED_RUNS),
)

__all__ = ["FIGURES", "Figure", "Plot", "all_plots", "factor_effect", *(item.name for item in FIGURES)]


@dataclass(frozen=True)
class Plot:
    """A figure with its place in the report.

    Attributes:
        name: Name of its file and of its element in the page.
        group: Heading it stands under.
        figure: The figure, or None where the results don't hold what it needs.
        caption: What it shows and how to read it, or why there is none.
    """

    name: str
    group: str
    figure: go.Figure | None
    caption: str


def _words(task: Task) -> dict[str, str]:
    """What captions say in the task's words."""
    how = "grouped by family" if task.families else "beside those that they are taken for"
    return {
        "noun": task.noun,
        "more": f"a higher {task.score}" if task.several else "more accuracy",
        "groups": task.groups,
        "groups_and_clips": f"{task.groups} and clips" if task.grouped else "clips",
        "order": f"{task.nouns.capitalize()} {how}",
    }


def _of_one_group(study: Study) -> bool:
    """Whether there is one group alone in all test clips whose groups are known."""
    return {len(clips.players) for clips in study.clip_sets if clips.player is not None} == {1}


def all_plots(study: Study, page: bool) -> Iterator[Plot]:
    """Every plot that the results allow, with a reason for those that they don't.

    Args:
        study: From ``compare``.
        page: For the page, which filters and so wants all runs; else for images, which show the best ones.
    """
    for item in FIGURES:
        if not len(study.done) and item.draw is not learning_curves:
            continue
        figure = item.draw(study, **(item.on_page if page else {}))
        if figure is None and item.absent == NO_SLICES and study.task.group != "player":
            continue  # only SOUSA says these of its clips
        if figure is None and item.absent == NO_PREDICTIONS and study.task.several:
            continue  # what a model takes for what can't be told where several may be right
        caption = (item.caption if figure is not None else item.absent).format(**_words(study.task))
        if item.draw is main_effects:
            caption = " ".join(effects.reason for effects in study.effects.values() if effects.reason) or caption
        if figure is not None and any(trace.name == ON_FRONT for trace in figure.data):
            caption += (
                f" A ring, with its 95 % interval, is a combination that {ON_FRONT}: none with as few parameters "
            )
            caption += "is clearly better."
        if item.draw is pairwise_differences and figure is None and _of_one_group(study):
            caption = f"All test clips are by one {study.task.group}: whether two combinations differ can't be told."
        if figure is not None and figure.layout.meta.get("some"):
            caption += f" Drawn are {study.drawn.chosen}. {OF_ALL}"
        if caption:
            yield Plot(item.name, item.group, figure, caption if len(study.done) else "Runs so far.")
    for factor in study.results.factors if len(study.done) else ():
        if factor == PER_CLASS:
            continue  # it has a figure of its own
        name = "factor_" + "".join(char if char.isalnum() else "_" for char in factor)[:80]
        caption = f"Lines join runs that differ in {factor} alone."
        yield Plot(name, "Effects", factor_effect(study, factor), caption)
