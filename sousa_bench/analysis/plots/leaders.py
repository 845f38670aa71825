"""The first figure of a cohort: its leading combinations with their intervals, and which of them can be the best."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from sousa_bench.analysis.digits import percent, percent_interval
from sousa_bench.analysis.plots.style import (
    GREY,
    accuracy_axis,
    dots,
    first_of,
    interval,
    model_colours,
    rounded,
    rows_of_dots,
    safe,
)
from sousa_bench.analysis.standings import ROWS, Standings

BEST_SHADE = "rgba(0,158,115,0.14)"


def leaders(cohort: Standings, limit: int = ROWS) -> go.Figure:
    """Test accuracy of a cohort's leading combinations with 95 % intervals, and chance.

    A shaded row can be the best.

    Args:
        cohort: From ``standings``.
        limit: Number of combinations, the best ones.
    """
    rows = cohort.rows.head(limit)
    names = [safe(cohort.names[str(name)]) for name in rows["combination"]]
    colours = model_colours(cohort.study.table)
    colour = [colours[str(model)] for model in rows["model"]]
    trace = dots(
        "combinations",
        rounded(rows["test_acc"]),
        names,
        "%{y}<br>%{text}",
        text=[_text(cohort, row) for row in rows.to_dict("records")],
        showlegend=False,
        marker={"color": colour, "size": 10},
    )
    trace["error_x"] = interval(rows["test_acc"], rows["acc_low"], rows["acc_high"])
    shapes: list[dict[str, Any]] = [
        {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": place - 0.5, "y1": place + 0.5, "layer": "below"}
        | {"fillcolor": BEST_SHADE, "line": {"width": 0}}
        for place, best in enumerate(reversed(list(rows["best_set"])))
        if best and len(cohort.rows) > 1 and not cohort.untested
    ]
    annotations = []
    if cohort.chance is not None:
        line = {"color": GREY, "width": 1.5, "dash": "dot"}
        ends = {"x0": cohort.chance, "x1": cohort.chance, "yref": "paper", "y0": 0, "y1": 1}
        shapes.append({"type": "line", **ends, "line": line})
        annotations.append(
            {"x": cohort.chance, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "text": "chance"}
        )
    title = f"Test {cohort.study.task.score}{first_of(len(rows), len(cohort.rows))}"
    axis = {"tickformat": ",.0%", "rangemode": "normal"}
    return rows_of_dots(
        [trace],
        title,
        accuracy_axis(cohort.study.task),
        names,
        "static",
        xaxis=axis,
        shapes=shapes,
        annotations=annotations,
    )


def _text(cohort: Standings, row: dict[Any, Any]) -> str:
    shown = percent(row["test_acc"], cohort.digits)
    interval_text = percent_interval(row["acc_low"], row["acc_high"], cohort.digits)
    return f"{shown} [{interval_text}]" if row["acc_low"] == row["acc_low"] else shown
