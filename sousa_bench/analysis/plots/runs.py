"""Figures with a mark a run: accuracy, cost against accuracy, time, memory, seeds.

``customdata`` holds the run's row number: the page filters and highlights by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sousa_bench.analysis.factors import shown
from sousa_bench.analysis.plots.style import (
    ROW_HEIGHT,
    colours,
    figure,
    legend_below,
    levels,
    log_axis,
    rounded,
    safe,
    symbols,
)
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study

IMAGE_LIMIT = 40


def accuracy_comparison(study: Study, limit: int | None = IMAGE_LIMIT) -> go.Figure:
    """Test accuracy of each run with its 95 % interval over players, best first.

    Args:
        study: From ``compare``.
        limit: Number of runs, the best ones; None for all.
    """
    rows = study.done.sort_values("test_acc", ascending=False, kind="stable")
    return _dots(
        study, rows, "test_acc", "Test accuracy of each run", "Test accuracy (95 % interval over players)", limit
    )


def training_time(study: Study, limit: int | None = IMAGE_LIMIT) -> go.Figure:
    """Training time of each run in minutes, shortest first; arguments as ``accuracy_comparison``."""
    rows = study.done.dropna(subset="training_time_seconds").sort_values("training_time_seconds", kind="stable")
    return _dots(study, rows, "training_time_seconds", "Training time", "Training time (minutes)", limit, scale=1 / 60)


def peak_memory(study: Study, limit: int | None = IMAGE_LIMIT) -> go.Figure | None:
    """Peak memory of each run in GiB, least first, or None where no run recorded it; arguments as above."""
    if "peak_memory_bytes" not in study.table or not study.done["peak_memory_bytes"].notna().any():
        return None
    rows = study.done.dropna(subset="peak_memory_bytes").sort_values("peak_memory_bytes", kind="stable")
    return _dots(study, rows, "peak_memory_bytes", "Peak memory", "Peak memory (GiB)", limit, scale=1 / 2**30)


def _dots(
    study: Study, rows: pd.DataFrame, key: str, title: str, axis: str, limit: int | None, scale: float = 1.0
) -> go.Figure:
    """Rows of dots, a run a row, coloured by model."""
    total = len(rows)
    rows = rows if limit is None else rows.head(limit)
    shown = f" (first {len(rows)} of {total})" if len(rows) < total else ""
    labels = study.run_labels
    marks = _Marks(study)
    traces = []
    for model in levels(study.table, "model"):
        part = rows[rows["model"] == model]
        if not len(part):
            continue
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": safe(model),
            "legendgroup": safe(model),
            "showlegend": False,
            "x": rounded(part[key].to_numpy(float) * scale),
            "y": [safe(labels[row]) for row in part.index],
            "customdata": [int(row) for row in part.index],
            "text": [marks.words(row) for row in part.index],
            "hovertemplate": "%{y}<br>" + axis.split(" (")[0] + " %{x}<br>%{text}<extra></extra>",
            "marker": {
                "color": marks.colour[model],
                "size": 9,
                "symbol": [marks.symbol(row) for row in part.index],
                "line": {"width": 1.5, "color": marks.colour[model]},
            },
        }
        if key == "test_acc":
            trace["error_x"] = _whiskers(part, marks.colour[model])
        traces.append(trace)
    order = [safe(labels[row]) for row in rows.index]
    return figure(
        [*traces, *_legend(study, rows)],
        title + shown,
        height=150 + ROW_HEIGHT * max(len(rows), 4),
        showlegend=True,
        legend=legend_below(),
        xaxis={"title": {"text": axis}, "rangemode": "normal" if key == "test_acc" else "tozero"},
        yaxis={"categoryorder": "array", "categoryarray": order[::-1], "tickfont": {"size": 11}, "type": "category"},
        meta={"kind": "dots", "limit": IMAGE_LIMIT, "order": [int(row) for row in rows.index]},
    )


def _whiskers(rows: pd.DataFrame, colour: str) -> dict[str, Any]:
    value = rows["test_acc"].to_numpy(float)
    return {
        "type": "data",
        "symmetric": False,
        "array": rounded(np.nan_to_num(rows["test_acc_high"].to_numpy(float) - value)),
        "arrayminus": rounded(np.nan_to_num(value - rows["test_acc_low"].to_numpy(float))),
        "thickness": 1.3,
        "width": 0,
        "color": colour,
    }


class _Marks:
    """Colour, symbol and hover words of a run."""

    def __init__(self, study: Study) -> None:
        self.table = study.table
        self.colour = colours(levels(study.table, "model"))
        self.shape = symbols(levels(study.table, "strategy"))

    def symbol(self, row: int) -> str:
        """The strategy's symbol, open without augmentation."""
        shape = self.shape[str(self.table.at[row, "strategy"])]
        return shape if self.table.at[row, "augmentation"] else f"{shape}-open"

    def words(self, row: int) -> str:
        """What stands under a mark's name."""
        item = self.table.loc[row]
        parts = [f"test accuracy {item['test_acc']:.4f}, macro F1 {item['test_f1_macro']:.4f}"]
        if item["test_acc_low"] == item["test_acc_low"]:
            parts.append(f"95 % interval {item['test_acc_low']:.4f} to {item['test_acc_high']:.4f}")
        elif item["interval_note"]:
            parts.append(str(item["interval_note"]))
        if item["test_clips"]:
            parts.append(f"{item['test_clips']:,} clips, {item['test_players']} players")
        return safe("; ".join(parts)).replace("; ", "<br>")


def efficiency_scatter(study: Study) -> go.Figure:
    """Test accuracy against trainable parameters (logarithmic), with the Pareto front."""
    rows = study.done
    rows = rows[rows["trainable_params"].notna() & (rows["trainable_params"] > 0)]
    labels, marks = study.run_labels, _Marks(study)
    traces: list[dict[str, Any]] = []
    for model in levels(study.table, "model"):
        part = rows[rows["model"] == model]
        if not len(part):
            continue
        whiskers = _whiskers(part, marks.colour[model]) | {"thickness": 1}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": safe(model),
                "legendgroup": safe(model),
                "showlegend": False,
                "x": rounded(part["trainable_params"], 9),
                "y": rounded(part["test_acc"]),
                "customdata": [int(row) for row in part.index],
                "text": [f"{safe(labels[row])}<br>{marks.words(row)}" for row in part.index],
                "hovertemplate": "%{text}<br>%{x:,} trainable parameters<extra></extra>",
                "error_y": whiskers,
                "marker": {
                    "color": marks.colour[model],
                    "size": 10,
                    "symbol": [marks.symbol(row) for row in part.index],
                    "line": {"width": 1.5, "color": marks.colour[model]},
                },
            }
        )
    x, y = pareto_front(rows["trainable_params"].to_numpy(float), rows["test_acc"].to_numpy(float))
    front = {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": rounded(x, 9),
        "y": rounded(y),
        "hoverinfo": "skip",
        "line": {"dash": "dot", "width": 2, "color": "#7A7A7A", "shape": "hv"},
        "meta": {"role": "front"},
    }
    return figure(
        [front, *traces, *_legend(study, rows)],
        "Accuracy against trainable parameters",
        height=520,
        legend=legend_below(),
        xaxis={"title": {"text": "Trainable parameters"}, **log_axis(rows["trainable_params"])},
        yaxis={"title": {"text": "Test accuracy (95 % interval over players)"}},
        meta={"kind": "points"},
    )


def _legend(study: Study, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Legend entries that say what colours and symbols mean: marks of their own, without a place in the plot."""
    grey = "#7A7A7A"
    hue = colours(levels(study.table, "model"))
    shape = symbols(levels(study.table, "strategy"))
    entries: list[tuple[str, str, str, str | None]] = [
        (model, "circle", hue[model], model) for model in levels(rows, "model")
    ]
    entries += [(strategy, shape[strategy], grey, None) for strategy in levels(rows, "strategy")]
    if rows["augmentation"].nunique() > 1:
        entries.append(("open: no augmentation", "circle-open", grey, None))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [None],
            "y": [None],
            "name": safe(name),
            "hoverinfo": "skip",
            "marker": {"symbol": mark, "color": colour, "size": 9, "line": {"width": 1.5, "color": colour}},
            **({"legendgroup": safe(group)} if group is not None else {}),
        }
        for name, mark, colour, group in entries
    ]


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that no other beats in both: less cost and at least the gain.

    Args:
        cost: Shape (points,), smaller is better.
        gain: Shape (points,), larger is better.

    Returns:
        Cost and gain of the front, by rising cost.
    """
    order = np.lexsort((-gain, cost))
    best = np.maximum.accumulate(gain[order]) if len(order) else gain
    keep = [index for index in range(len(order)) if index == 0 or gain[order[index]] > best[index - 1]]
    return cost[order][keep], gain[order][keep]


def time_accuracy(study: Study) -> go.Figure:
    """Test accuracy against training time, the marks as large as the peak memory where it was recorded."""
    rows = study.done.dropna(subset="training_time_seconds")
    rows = rows[rows["training_time_seconds"] > 0]
    labels, marks = study.run_labels, _Marks(study)
    traces = []
    for model in levels(study.table, "model"):
        part = rows[rows["model"] == model]
        if not len(part):
            continue
        size: Any = 10
        if "peak_memory_bytes" in part and part["peak_memory_bytes"].notna().any():
            size = rounded(7 + 2.2 * np.sqrt(np.nan_to_num(part["peak_memory_bytes"].to_numpy(float)) / 2**30), 3)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": safe(model),
                "legendgroup": safe(model),
                "showlegend": False,
                "x": rounded(part["training_time_seconds"].to_numpy(float) / 60),
                "y": rounded(part["test_acc"]),
                "customdata": [int(row) for row in part.index],
                "text": [f"{safe(labels[row])}<br>{marks.words(row)}{_memory(part.loc[row])}" for row in part.index],
                "hovertemplate": "%{text}<br>%{x} minutes<extra></extra>",
                "error_y": _whiskers(part, marks.colour[model]) | {"thickness": 1},
                "marker": {
                    "color": marks.colour[model],
                    "size": size,
                    "opacity": 0.85,
                    "symbol": [marks.symbol(row) for row in part.index],
                    "line": {"width": 1.5, "color": marks.colour[model]},
                },
            }
        )
    return figure(
        [*traces, *_legend(study, rows)],
        "Accuracy against training time",
        height=500,
        legend=legend_below(),
        xaxis={"title": {"text": "Training time (minutes)"}, **log_axis(rows["training_time_seconds"] / 60)},
        yaxis={"title": {"text": "Test accuracy (95 % interval over players)"}},
        meta={"kind": "points"},
    )


def _memory(row: pd.Series) -> str:
    value = row.get("peak_memory_bytes")
    return f"<br>peak memory {value / 2**30:.2f} GiB" if isinstance(value, (int, float)) and value == value else ""


def seed_spread(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Accuracy of every run, the mean ± standard deviation over seeds or folds, and the standard error over players.

    None where no combination has two runs.
    """
    frame = study.combinations[study.combinations["runs"] > 1]
    frame = frame.sort_values("test_acc", ascending=False, kind="stable").head(limit)
    if not len(frame):
        return None
    names = [safe(label) for label in frame["combination"]]
    repeats = "folds" if (frame["folds"] > 0).all() else "seeds" if not (frame["folds"] > 0).any() else "seeds or folds"
    single = [(name, row) for name, rows in zip(names, frame["rows"], strict=True) for row in rows]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"one {repeats[:-1] if repeats != 'seeds or folds' else 'run'}",
            "x": rounded(study.table.at[r, "test_acc"] for _, r in single),
            "y": [name for name, _ in single],
            "customdata": [int(row) for _, row in single],
            "text": [_repeat(study.table.loc[row]) for _, row in single],
            "hovertemplate": "%{y}<br>%{text}: %{x}<extra></extra>",
            "marker": {"symbol": "line-ns-open", "size": 11, "color": "#7A7A7A", "line": {"width": 2}},
        },
        _spread(frame, names, "acc_std", f"mean ± std over {repeats}", "#0072B2", "circle"),
        _spread(frame, names, "acc_error", "mean ± standard error over players", "#D55E00", "square"),
    ]
    return figure(
        traces,
        f"{repeats.capitalize()} and players: two kinds of luck",
        height=150 + ROW_HEIGHT * max(len(frame), 4),
        legend=legend_below(),
        xaxis={"title": {"text": "Test accuracy"}},
        yaxis={"categoryorder": "array", "categoryarray": names[::-1], "tickfont": {"size": 11}, "type": "category"},
        scattermode="group",
        scattergap=0.3,
        meta={"kind": "static"},
    )


def _repeat(row: pd.Series) -> str:
    """Fold and seed of a run in words."""
    words = [
        f"{key.split('.')[-1]} {safe(shown(row[key]))}" for key in (FOLD, "seed") if key in row and row[key] == row[key]
    ]
    return ", ".join(words) or "seed unknown"


def _spread(frame: pd.DataFrame, names: list[str], key: str, title: str, colour: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": title,
        "x": rounded(frame["test_acc"]),
        "y": names,
        "hovertemplate": "%{y}<br>" + title + ": %{x} ± %{error_x.array}<extra></extra>",
        "error_x": {
            "type": "data",
            "array": rounded(np.nan_to_num(frame[key].to_numpy(float))),
            "color": colour,
            "width": 3,
        },
        "marker": {"color": colour, "size": 8, "symbol": symbol},
    }
