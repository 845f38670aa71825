"""How the figures look: a colour-blind safe palette, one template for light and one for dark, and safe texts.

The colours are those of Okabe and Ito (2008, "Color Universal Design"), without the yellow that white paper swallows.
Colour is never alone: the method has its own marker symbol, and a filled marker means augmentation.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

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


def figure(data: Sequence[dict[str, Any]], title: str, **layout: Any) -> go.Figure:
    """A figure in the light theme; ``layout`` holds anything of plotly's layout."""
    settings = {
        "template": template("light"),
        "title": {"text": title},
        "margin": {"l": 10, "r": 16, "t": 64, "b": 44},
        "height": 460,
    }
    return go.Figure(data=list(data), layout={**settings, **layout})


def legend_below() -> dict[str, Any]:
    """A legend in a row under the title."""
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}


def safe(text: object) -> str:
    """A text that plotly shows as it stands: it takes ``<b>`` and links in any label for markup."""
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def log_axis(values: Any) -> dict[str, Any]:
    """A logarithmic axis with a tick at 1, 2 and 5 times each power of ten: ``500``, ``20k``, ``1M``."""
    good = [float(value) for value in values if value == value and value > 0]
    if not good:
        return {"type": "log"}
    first, last = math.floor(math.log10(min(good))), math.ceil(math.log10(max(good)))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [_scaled(tick) for tick in ticks]}


def _scaled(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name; the same name order gives the same colours in every figure."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}


def symbols(names: Sequence[str]) -> dict[str, str]:
    """A marker symbol for each name."""
    return {name: SYMBOLS[number % len(SYMBOLS)] for number, name in enumerate(names)}


def levels(table: pd.DataFrame, key: str) -> list[str]:
    """The names that occur in a column, sorted."""
    return sorted({str(value) for value in table[key]})


def rounded(values: Any, digits: int = 5) -> list[float | None]:
    """Floats to ``digits`` significant digits, None for what is not finite: what a page should carry."""
    return [None if not math.isfinite(value) else float(f"{value:.{digits}g}") for value in map(float, values)]
