"""Accuracy over training clips a class, a line a method."""

from __future__ import annotations

import plotly.graph_objects as go

from sousa_bench.analysis.plots.style import (
    LEGEND_BELOW,
    PALETTE,
    SYMBOLS,
    accuracy_axis,
    dots,
    figure,
    interval,
    rounded,
    safe,
)
from sousa_bench.analysis.stats.low_data import low_data_curves_of
from sousa_bench.analysis.study import Study

LINES = 24


def low_data_curves(study: Study, limit: int = LINES) -> go.Figure | None:
    """Test accuracy with its interval by training clips a class.

    Args:
        study: From ``compare``.
        limit: Number of lines, the best ones.

    Returns:
        The figure, or None where the number of clips (``data.per_class``) did not vary.
    """
    curves = low_data_curves_of(study)
    if not curves:
        return None
    traces = []
    ticks: dict[float, str] = {}
    for number, curve in enumerate(curves[:limit]):
        label = safe(curve.name) + (f" (cohort {safe(curve.cohort)})" if study.cohorts else "")
        rows = [point.row for point in curve.points]
        accuracy = [row["test_acc"] for row in rows]
        ticks |= {point.clips: point.words for point in curve.points}
        traces.append(
            dots(
                label,
                rounded([point.clips for point in curve.points]),
                rounded(accuracy),
                label + "<br>%{text} clips a class: %{y:.4f}",
                mode="lines+markers",
                text=[safe(point.words) for point in curve.points],
                error_y=interval(accuracy, *([row[key] for row in rows] for key in ("acc_low", "acc_high"))),
                marker={"symbol": SYMBOLS[number % len(SYMBOLS)]},
                line={"color": PALETTE[number % len(PALETTE)], "width": 1.6},
            )
        )
    more = f" (best {limit} of {len(curves)} lines)" if len(curves) > limit else ""
    return figure(
        traces,
        f"Test {study.task.score} by training clips{more}",
        {"kind": "static"},
        height=560,
        legend=LEGEND_BELOW,
        xaxis={
            "title": {"text": "Training clips of each class"},
            "type": "log",
            "tickvals": rounded(sorted(ticks)),
            "ticktext": [ticks[clips] for clips in sorted(ticks)],
        },
        yaxis={"title": {"text": accuracy_axis(study.task)}},
    )
