"""The first figure of a cohort: its leading combinations with their intervals, and which of them can be the best."""

from __future__ import annotations

import itertools
from typing import Any

import plotly.graph_objects as go

from sousa_bench.analysis.digits import percent, percent_interval
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.plots.style import (
    GREY,
    accuracy_axis,
    dots,
    interval,
    model_colours,
    rounded,
    rows_of_dots,
    safe,
)
from sousa_bench.analysis.standings import ROWS, Standings

BEST_SHADE = "rgba(0,158,115,0.14)"


def leaders(cohort: Standings) -> go.Figure:
    """Test accuracy of a cohort's leading combinations with 95 % intervals, and chance.

    A shaded row can be the best: the page draws that, shows ``ROWS`` at once, and says the verdict on those that its
    filters leave; ``meta`` holds what it takes.
    """
    rows = cohort.leading
    names = [safe(cohort.names[str(name)]) for name in rows["combination"]]
    records = rows.to_dict("records")
    texts = [_text(cohort, row) for row in records]
    colours = model_colours(cohort.study.table)
    drawn = cohort.study.drawn
    traces = []
    for model in dict.fromkeys(rows["model"]):
        mine = (rows["model"] == model).to_numpy()
        part = rows[mine]
        trace = dots(
            safe(model),
            rounded(part["test_acc"]),
            list(itertools.compress(names, mine)),
            "%{y}<br>%{text}",
            text=list(itertools.compress(texts, mine)),
            showlegend=False,
            customdata=[drawn.part(runs) for runs in part["rows"]],
            marker={"color": colours[str(model)], "size": 10},
        )
        trace["error_x"] = interval(part["test_acc"], part["acc_low"], part["acc_high"])
        traces.append(trace)
    shapes, annotations = [], []
    if cohort.chance is not None:
        line = {"color": GREY, "width": 1.5, "dash": "dot"}
        ends = {"x0": cohort.chance, "x1": cohort.chance, "yref": "paper", "y0": 0, "y1": 1}
        shapes.append({"type": "line", **ends, "line": line})
        annotations.append(
            {"x": cohort.chance, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "text": "chance"}
        )
    figure = rows_of_dots(
        traces,
        f"Test {cohort.study.task.score}",
        accuracy_axis(cohort.study.task),
        names,
        "leaders",
        xaxis={"tickformat": ",.0%", "rangemode": "normal"},
        shapes=shapes,
        annotations=annotations,
    )
    place = {name: number for number, name in enumerate(best_first(rows, "test_acc")["combination"])}
    figure.layout.meta |= {
        "limit": ROWS,
        "shade": BEST_SHADE,
        "verdict": f"verdict_{cohort.cohort}",
        "of": len(cohort.rows),
        "combinations": [
            {"name": name, "text": text, "place": place[row["combination"]], "rows": drawn.part(row["rows"])}
            for name, text, row in zip(names, texts, records, strict=True)
        ],
        "pairs": _verdicts_of_pairs(cohort, list(rows["combination"])),
    }
    return figure


def _verdicts_of_pairs(cohort: Standings, names: list[str]) -> list[list[int]]:
    """Of each pair that was tested, the numbers of the two, and 1 where they can be told apart."""
    place = {name: number for number, name in enumerate(names)}
    pairs = cohort.study.pairs
    if not len(pairs):
        return []
    mine = pairs[(pairs["cohort"] == cohort.cohort) & pairs["first"].isin(place) & pairs["second"].isin(place)]
    mine = mine[mine["p_adjusted"].notna()]
    return [
        [place[first], place[second], int(clear)]
        for first, second, clear in zip(mine["first"], mine["second"], mine["clear"], strict=True)
    ]


def _text(cohort: Standings, row: dict[Any, Any]) -> str:
    shown = percent(row["test_acc"], cohort.digits)
    interval_text = percent_interval(row["acc_low"], row["acc_high"], cohort.digits)
    return f"{shown} [{interval_text}]" if row["acc_low"] == row["acc_low"] else shown
