"""How the figures look: a colour-blind safe palette, one template for light and one for dark, and safe texts.

The colours are those of Okabe and Ito (2008, "Color Universal Design"), without the yellow that white paper swallows.
Colour is never alone: the method has its own marker symbol, and a filled marker means augmentation.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sousa_bench.analysis.drawn_runs import ROW_LIMIT
from sousa_bench.task import Task

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7A7A7A")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "pentagon", "x")
SEQUENTIAL = "Cividis"
# Cividis (Nuñez et al. 2018) with its stops squared, so that shares of a few percent are seen beside a diagonal of
# nine tenths.
RARE = [
    [(number / 8) ** 2, colour]
    for number, colour in enumerate(
        ("#00224e", "#1d3971", "#434e6c", "#61636d", "#7d7c78", "#9b9476", "#bcae6c", "#dfcb58", "#fee838")
    )
]
DIVERGING = [[0.0, "#B35806"], [0.25, "#F1A340"], [0.5, "#F7F7F7"], [0.75, "#998EC3"], [1.0, "#542788"]]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
ROW_HEIGHT = 19
GREY = "#7A7A7A"
LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top", "font": {"size": 11}}
LEAST_RANGE = 0.2  # of accuracies in colours
GOOD = 0.5  # accuracy below which none gets the brightest colour
LEAST_SPAN = 0.25  # of a logarithmic axis, in powers of ten
TICK_STEPS = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.5, 1.8, 2, 2.2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
)

THEMES = {
    "light": {"text": "#1c2430", "soft": "#5b6675", "grid": "#e3e7ec", "line": "#b7c0cb", "paper": "#ffffff"},
    "dark": {"text": "#e6eaf0", "soft": "#a3afbd", "grid": "#2c3542", "line": "#566273", "paper": "#161b22"},
}


def template(theme: str) -> dict[str, Any]:
    """The plotly template of a theme, ``light`` or ``dark``, as plain JSON."""
    colour = THEMES[theme]
    axis = {
        "gridcolor": colour["grid"],
        "linecolor": colour["line"],
        "zerolinecolor": colour["line"],
        "tickcolor": colour["line"],
        "automargin": True,
        "title": {"standoff": 10},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": colour["text"]},
            "title": {"x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 17}},
            "paper_bgcolor": colour["paper"],
            "plot_bgcolor": colour["paper"],
            "colorway": list(PALETTE),
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"font": {"size": 12}, "bgcolor": "rgba(0,0,0,0)"},
            "hoverlabel": {"font": {"family": FONT}, "align": "left"},
            "shapedefaults": {"line": {"color": colour["line"], "width": 1}},
            "annotationdefaults": {"font": {"color": colour["soft"]}},
            "coloraxis": {"colorbar": {"outlinewidth": 0}},
        }
    }


def figure(
    data: Sequence[dict[str, Any]], title: str, meta: dict[str, Any], drawn: tuple[int, int] = (0, 0), **layout: Any
) -> go.Figure:
    """A figure in the light theme.

    Args:
        data: The traces.
        title: Its title.
        meta: How the page filters it: ``kind`` (a function of ``DRAW`` in ``drawing.js``) and what that function reads.
        drawn: How many runs have a mark, of how many; the title and ``meta`` say where that is not all.
        layout: Anything of plotly's layout.
    """
    if drawn[0] < drawn[1]:
        title += " ({:,} of {:,} runs drawn)".format(*drawn)
        meta = {**meta, "some": True}
    settings = {
        "template": template("light"),
        "title": {"text": title},
        "margin": {"l": 10, "r": 16, "t": 64, "b": 44},
        "height": 460,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
    }
    return go.Figure(data=list(data), layout={**settings, **layout, "meta": meta})


def rows_of_dots(
    traces: Sequence[dict[str, Any]], title: str, axis: str, names: Sequence[str], kind: str, **layout: Any
) -> go.Figure:
    """A figure with a name a row, the first one on top, and dots with intervals in it.

    Args:
        traces: From ``dots``, with names as ``y``.
        title: Title of the figure.
        axis: Title of the horizontal axis.
        names: The rows.
        kind: As ``figure``'s ``meta``.
        layout: ``drawn`` of ``figure``, and anything of plotly's layout; ``xaxis`` is added to the axis.
    """
    return figure(
        traces,
        title,
        {"kind": kind, "limit": ROW_LIMIT},
        height=150 + ROW_HEIGHT * max(len(names), 4),
        yaxis={"categoryorder": "array", "categoryarray": names[::-1], "tickfont": {"size": 11}, "type": "category"},
        **{**layout, "xaxis": {"title": {"text": axis}, **layout.get("xaxis", {})}},
    )


def dots(name: str, x: Sequence[Any], y: Sequence[Any], hover: str, **more: Any) -> dict[str, Any]:
    """A trace of dots: ``marker`` is added to the usual one, anything else to the trace."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "hovertemplate": f"{hover}<extra></extra>",
        **more,
        "marker": {"size": 9, **more.get("marker", {})},
    }


def interval(value: Any, low: Any, high: Any) -> dict[str, Any]:
    """Error bars of ``dots`` from ``low`` to ``high``; none where these are NaN."""
    value, low, high = (np.asarray(part, float) for part in (value, low, high))
    return {
        "type": "data",
        "symmetric": False,
        "array": rounded(np.nan_to_num(high - value)),
        "arrayminus": rounded(np.nan_to_num(value - low)),
        "width": 0,
        "thickness": 1.4,
    }


def deviation(values: Any, digits: int = 5) -> dict[str, Any]:
    """Error bars of one length up and down, with caps; none where it is NaN."""
    return {"type": "data", "array": rounded(np.nan_to_num(np.asarray(values, float)), digits), "width": 3}


def heatmap(
    x: Sequence[str], y: Sequence[str], z: Any, hover: str, title: str, bounds: tuple[float, float], **more: Any
) -> dict[str, Any]:
    """A trace of coloured cells; ``bounds`` are the values of the first and the last colour."""
    bar = {"title": {"text": title}, "outlinewidth": 0, "thickness": 14, **more.pop("colorbar", {})}
    return {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": [rounded(line, 4) for line in z],
        "hovertemplate": f"{hover}<extra></extra>",
        "zmin": bounds[0],
        "zmax": bounds[1],
        "colorbar": bar,
        **more,
    }


def first_of(count: int, total: int) -> str:
    """What a title says where a figure shows only a part."""
    return f" (first {count} of {total})" if count < total else ""


def accuracy_axis(task: Task) -> str:
    """Title of an axis of accuracies, or what else ranks, with their intervals."""
    return f"Test {task.score} (95 % interval over {safe(task.groups)})"


def safe(text: object) -> str:
    """A text that plotly shows as it stands: it takes ``<b>`` and links in any label for markup."""
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def log_axis(values: Any) -> dict[str, Any]:
    """A logarithmic axis with round ticks, at least three within its range: ``500``, ``20k``, ``1M``.

    The range is given, a little beyond the values, and at least a factor of 1.8: values that are all but one would
    otherwise get an axis with one tick, on which a second looks like an hour.
    """
    good = [float(value) for value in values if value > 0]
    if not good:
        return {"type": "log"}
    low, high = math.log10(min(good)), math.log10(max(good))
    margin = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2, 0.03)
    low, high = low - margin, high + margin
    for steps in TICK_STEPS:
        powers = range(math.floor(low), math.ceil(high) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(ticks) >= 3:
            break
    return {
        "type": "log",
        "range": [round(low, 4), round(high, 4)],
        "tickvals": ticks,
        "ticktext": [_scaled(tick) for tick in ticks],
    }


def accuracy_scale(values: Any) -> tuple[float, float]:
    """Ends of the colours of accuracies: the values' own range, widened where it is too small to be meant.

    At least ``LEAST_RANGE`` wide, so that a difference of a few clips doesn't look like one of worlds, and up to
    ``GOOD`` at least, so that the best of runs near chance doesn't look like a success.
    """
    known = [float(value) for value in values if not math.isnan(value)]
    low, high = min(known, default=0.0), max([*known, GOOD])
    lacking = LEAST_RANGE - (high - low)
    if lacking > 0:
        high = min(high + lacking / 2, 1.0)
        low = high - LEAST_RANGE
    return low, high


def _scaled(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def model_colours(table: pd.DataFrame) -> dict[str, str]:
    """A colour for each model; the same one in every figure."""
    return dict(zip(levels(table, "model"), itertools.cycle(PALETTE)))


def run_colours(table: pd.DataFrame, rows: Sequence[int]) -> dict[int, tuple[str, int]]:
    """A colour for each run, and a number that tells runs of one colour apart, by dashes or symbols.

    The colour is the model's. Where there is one model alone, the first ``len(PALETTE)`` runs have one each.
    """
    if table["model"].nunique() == 1:
        return {row: (PALETTE[place % len(PALETTE)], place // len(PALETTE)) for place, row in enumerate(rows)}
    colours = model_colours(table)
    taken: dict[str, int] = {}
    made = {}
    for row in rows:
        model = str(table.at[row, "model"])
        made[row] = (colours[model], taken.get(model, 0))
        taken[model] = made[row][1] + 1
    return made


def strategy_symbols(table: pd.DataFrame) -> dict[str, str]:
    """A marker symbol for each strategy."""
    return dict(zip(levels(table, "strategy"), itertools.cycle(SYMBOLS)))


def levels(table: pd.DataFrame, key: str) -> list[str]:
    """The names that occur in a column, sorted."""
    return sorted({str(value) for value in table[key]})


def rounded(values: Any, digits: int = 5) -> list[float | None]:
    """What a page should carry of floats: ``digits`` significant digits, whole numbers whole, None if not finite."""
    return [
        None if not math.isfinite(value) else value if value.is_integer() else float(f"{value:.{digits}g}")
        for value in map(float, values)
    ]
