"""Learning curves: validation accuracy and both losses by epoch."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sousa_bench.analysis.flatten import number
from sousa_bench.analysis.plots.style import LEGEND_BELOW, dots, figure, run_colours, safe
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import ResultError, read_foreign_result

IMAGE_LIMIT = 8
PAGE_LIMIT = 600
MAX_EPOCHS = 2000
FEW_EPOCHS = 10  # up to which every epoch has its tick, and none stands between two
CURVES = (
    ("val_acc", "validation accuracy", "", 1.0),
    ("val_map", "validation mean average precision", "", 1.0),
    ("val_loss", "validation loss", "2", 1.0),
    ("train_loss", "training loss", "2", 0.4),
)  # key in the history, name, axis, opacity
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def learning_curves(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Validation accuracy and the training and validation loss by epoch, of the best runs and of those still running.

    Args:
        study: From ``compare``.
        limit: Number of runs.

    Returns:
        The figure, or None where no result holds a history.
    """
    running = study.table.index[study.table["status"] == "running"]
    rows = (int(row) for row in (*study.done.index, *running) if row in study.drawn)
    read = ((row, read_history(Path(str(study.table.at[row, "path"])))) for row in rows)
    histories = list(itertools.islice(((row, history) for row, history in read if history), limit))
    styles = run_colours(study.table, [row for row, _ in histories])
    traces = [
        trace
        for row, history in histories
        for trace in _curves(row, safe(study.run_labels[row]), history, *styles[row])
    ]
    if not traces:
        return None
    epochs: dict[str, Any] = {"title": {"text": "Epoch"}, "rangemode": "tozero"}
    if max(max(trace["x"]) for trace in traces) <= FEW_EPOCHS:
        epochs["dtick"] = 1
    return figure(
        traces,
        "Learning curves",
        {"kind": "traces", "limit": IMAGE_LIMIT, "order": [row for row, _ in histories]},
        height=560,
        legend=LEGEND_BELOW,
        xaxis={"domain": [0, 0.46], **epochs},
        yaxis={"title": {"text": f"Validation {study.task.score}"}},
        xaxis2={"domain": [0.56, 1], "anchor": "y2", **epochs},
        yaxis2={"title": {"text": "Loss (faint: training)"}, "anchor": "x2", "rangemode": "tozero"},
    )


def _curves(row: int, label: str, history: list[dict[str, Any]], colour: str, number: int) -> list[dict[str, Any]]:
    """The curves of a run, the ``number``-th of its colour."""
    epochs = [item["epoch"] for item in history]
    line = {"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]}
    return [
        dots(
            label,
            epochs,
            [item[key] for item in history],
            f"{label}<br>epoch %{{x}}: {what} %{{y:.4f}}",
            mode="lines+markers" if len(epochs) < 3 else "lines",
            legendgroup=str(row),
            showlegend=not axis,
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            line=line,
            opacity=opacity,
            meta={"run": row, "of": what},
        )
        for key, what, axis, opacity in CURVES
        if any(item[key] is not None for item in history)
    ]


def read_history(path: Path) -> list[dict[str, Any]]:
    """The history of one result: numbers only, at most ``MAX_EPOCHS`` epochs; empty where it can't be read."""
    try:
        history = read_foreign_result(path).get("history")
    except ResultError:
        return []
    if not isinstance(history, list):
        return []
    rows = []
    for position, item in enumerate(history[:MAX_EPOCHS], start=1):
        if isinstance(item, dict):
            values = {key: number(item.get(key)) for key, *_ in CURVES}
            values = {key: None if value is None else float(f"{value:.4g}") for key, value in values.items()}
            rows.append({"epoch": number(item.get("epoch")) or position, **values})
    return rows
