"""Learning curves: validation accuracy and both losses by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sousa_bench.analysis.flatten import number
from sousa_bench.analysis.plots.style import PALETTE, figure, safe
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import ResultError, read_result

IMAGE_LIMIT = 8
PAGE_LIMIT = 600
MAX_EPOCHS = 2000
FEW_EPOCHS = 10  # up to which every epoch has its tick, and none stands between two
DASHES = ("solid", "dash", "dot", "dashdot")


def learning_curves(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Validation accuracy and the training and validation loss by epoch, of the best runs and of those still running.

    Args:
        study: From ``compare``.
        limit: Number of runs.

    Returns:
        The figure, or None where no result holds a history.
    """
    labels = study.run_labels
    running = list(study.table.index[study.table["status"] == "running"])
    traces: list[dict[str, Any]] = []
    shown = 0
    order = []
    for row in [*study.done.index, *running]:
        if shown >= limit:
            break
        history = read_history(Path(str(study.table.at[row, "path"])))
        if not history:
            continue
        style = {
            "color": PALETTE[shown % len(PALETTE)],
            "width": 2,
            "dash": DASHES[shown // len(PALETTE) % len(DASHES)],
        }
        traces += _curves(int(row), safe(labels[row]), history, style)
        order.append(int(row))
        shown += 1
    if not traces:
        return None
    longest = max(max(trace["x"]) for trace in traces)
    ticks = {"dtick": 1} if longest <= FEW_EPOCHS else {}
    return figure(
        traces,
        "Learning curves",
        height=560,
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "font": {"size": 11}},
        xaxis={"domain": [0, 0.46], "title": {"text": "Epoch"}, "rangemode": "tozero", **ticks},
        yaxis={"title": {"text": "Validation accuracy"}},
        xaxis2={"domain": [0.56, 1], "title": {"text": "Epoch"}, "anchor": "y2", "rangemode": "tozero", **ticks},
        yaxis2={"title": {"text": "Loss (faint: training)"}, "anchor": "x2", "rangemode": "tozero"},
        meta={"kind": "traces", "limit": IMAGE_LIMIT, "order": order},
    )


def _curves(row: int, label: str, history: list[dict[str, Any]], style: dict[str, Any]) -> list[dict[str, Any]]:
    epochs = [item["epoch"] for item in history]
    made = []
    for key, axis, faint in (("val_acc", "", False), ("val_loss", "2", False), ("train_loss", "2", True)):
        values = [item[key] for item in history]
        if all(value is None for value in values):
            continue
        words = (
            key.replace("val_acc", "validation accuracy").replace("val_", "validation ").replace("train_", "training ")
        )
        made.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(epochs) < 3 else "lines",
                "name": label,
                "legendgroup": str(row),
                "showlegend": key == "val_acc",
                "x": epochs,
                "y": values,
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "line": style,
                "opacity": 0.4 if faint else 1.0,
                "hovertemplate": label + "<br>epoch %{x}: " + words + " %{y:.4f}<extra></extra>",
                "meta": {"run": row},
            }
        )
    return made


def read_history(path: Path) -> list[dict[str, Any]]:
    """The history of one result: numbers only, at most ``MAX_EPOCHS`` epochs; empty where it can't be read."""
    try:
        history = read_result(path).get("history")
    except ResultError:
        return []
    if not isinstance(history, list):
        return []
    rows = []
    for position, item in enumerate(history[:MAX_EPOCHS], start=1):
        if isinstance(item, dict):
            values = {key: number(item.get(key)) for key in ("val_acc", "val_loss", "train_loss")}
            values = {key: None if value is None else float(f"{value:.4g}") for key, value in values.items()}
            rows.append({"epoch": number(item.get("epoch")) or position, **values})
    return rows
