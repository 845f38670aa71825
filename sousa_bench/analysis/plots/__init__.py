"""Every figure of the report, as a function from a ``Study`` to a plotly figure. One definition serves PNG and HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import plotly.graph_objects as go

from sousa_bench.analysis.plots.curves import PAGE_LIMIT, learning_curves
from sousa_bench.analysis.plots.details import (
    DETAIL_LIMIT,
    accuracy_by_skill_tier,
    accuracy_by_soundfont,
    accuracy_by_tempo,
    confusion_matrix,
    per_class_f1,
)
from sousa_bench.analysis.plots.matrix import (
    augmentation_effect,
    factor_effect,
    main_effects,
    model_strategy_heatmap,
    pairwise_differences,
)
from sousa_bench.analysis.plots.runs import (
    accuracy_comparison,
    efficiency_scatter,
    peak_memory,
    seed_spread,
    time_accuracy,
    training_time,
)
from sousa_bench.analysis.study import Study

__all__ = [
    "Plot",
    "accuracy_by_skill_tier",
    "accuracy_by_soundfont",
    "accuracy_by_tempo",
    "accuracy_comparison",
    "all_plots",
    "augmentation_effect",
    "confusion_matrix",
    "efficiency_scatter",
    "factor_effect",
    "learning_curves",
    "main_effects",
    "model_strategy_heatmap",
    "pairwise_differences",
    "peak_memory",
    "per_class_f1",
    "seed_spread",
    "time_accuracy",
    "training_time",
]


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


def all_plots(study: Study, page: bool) -> Iterator[Plot]:
    """Every plot that the results allow, with a reason for those that they don't.

    Args:
        study: From ``compare``.
        page: For the page, which filters and so wants all runs; else for images, which show the best ones.
    """
    if not len(study.done):
        yield Plot("learning_curves", "Training", learning_curves(study, PAGE_LIMIT if page else 8), "Runs so far.")
        return
    yield from _accuracy(study, page)
    yield from _cost(study, page)
    yield from _effects(study, page)
    yield from _training(study, page)
    yield from _details(study, page)


def _accuracy(study: Study, page: bool) -> Iterator[Plot]:
    every = {"limit": None} if page else {}
    yield Plot(
        "accuracy_comparison",
        "Accuracy",
        accuracy_comparison(study, **every),
        "A mark a run; the symbol is the strategy, an open mark has no augmentation. The interval covers "
        "the choice of "
        "players and clips.",
    )
    yield Plot(
        "model_strategy_heatmap", "Accuracy", model_strategy_heatmap(study), "Averages over all shown runs of a cell."
    )
    yield Plot(
        "pairwise_differences",
        "Accuracy",
        pairwise_differences(study),
        "Row minus column on the same clips. A dot: clear after Holm's correction of the sign-flip tests."
        if len(study.pairs)
        else "No two combinations were tested on the same clips with known players.",
    )


def _cost(study: Study, page: bool) -> Iterator[Plot]:
    every = {"limit": None} if page else {}
    yield Plot(
        "efficiency_scatter",
        "Cost",
        efficiency_scatter(study),
        "The dotted line is the Pareto front: no run has both fewer trainable parameters and more accuracy.",
    )
    yield Plot("time_accuracy", "Cost", time_accuracy(study), "Logarithmic time; larger marks took more memory.")
    yield Plot("training_time", "Cost", training_time(study, **every), "Shortest first.")
    memory = peak_memory(study, **every)
    yield Plot("peak_memory", "Cost", memory, "Least first." if memory else "No run recorded its memory.")


def _effects(study: Study, page: bool) -> Iterator[Plot]:
    every = {"limit": None} if page else {}
    effect = augmentation_effect(study, **every)
    yield Plot(
        "augmentation_effect",
        "Effects",
        effect,
        "Pairs that differ in augmentation alone, on the same clips; above 0 it helps."
        if effect
        else "No two combinations differ in augmentation alone.",
    )
    words = " ".join(item.word for item in study.effects.values() if item.word)
    yield Plot(
        "main_effects",
        "Effects",
        main_effects(study),
        words
        or (
            "How far each level lies from the mean of the balanced matrix."
            if study.effects
            else "Main effects need the test predictions."
        ),
    )
    for factor in study.results.factors:
        name = "factor_" + "".join(char if char.isalnum() else "_" for char in factor)[:80]
        yield Plot(name, "Effects", factor_effect(study, factor), f"Lines join runs that differ in {factor} alone.")
    spread = seed_spread(study)
    if spread is not None:
        yield Plot(
            "seed_spread",
            "Effects",
            spread,
            "The spread over runs of one combination (seeds, folds) beside the luck of the test players.",
        )


def _training(study: Study, page: bool) -> Iterator[Plot]:
    curves = learning_curves(study, PAGE_LIMIT) if page else learning_curves(study)
    yield Plot(
        "learning_curves",
        "Training",
        curves,
        "The best runs; choose others by filter or by a click in the table."
        if curves
        else "No result holds a history.",
    )


def _details(study: Study, page: bool) -> Iterator[Plot]:
    none = "No test predictions were found."
    yield Plot(
        "confusion_matrix",
        "Predictions",
        confusion_matrix(study),
        "Rudiments grouped by family; colour is the share of the true rudiment's clips." if study.clip_sets else none,
    )
    yield Plot(
        "per_class_f1",
        "Predictions",
        per_class_f1(study),
        "Harmonic mean of precision and recall of each rudiment." if study.clip_sets else none,
    )
    limit = DETAIL_LIMIT if page else 5
    for name, draw in (
        ("accuracy_by_skill_tier", accuracy_by_skill_tier),
        ("accuracy_by_tempo", accuracy_by_tempo),
        ("accuracy_by_soundfont", accuracy_by_soundfont),
    ):
        made = draw(study, limit)
        yield Plot(
            name,
            "Predictions",
            made,
            "The best runs; intervals where a slice has at least 8 players."
            if made
            else f"{none} Or they don't say it.",
        )
