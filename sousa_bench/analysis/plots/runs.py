"""Figures with a mark a run: accuracy, cost against accuracy, time, memory, seeds.

``customdata`` holds the run's row number: the page filters and highlights by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sousa_bench.analysis.drawn_runs import ROW_LIMIT
from sousa_bench.analysis.factors import shown
from sousa_bench.analysis.model_sizes import MULTIPLY_ADDS, PARAMETERS
from sousa_bench.analysis.plots.style import (
    GREY,
    accuracy_axis,
    deviation,
    dots,
    figure,
    first_of,
    interval,
    levels,
    log_axis,
    model_colours,
    rounded,
    rows_of_dots,
    safe,
    strategy_symbols,
)
from sousa_bench.analysis.stats.cost_front import COST, front_places
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study

ON_FRONT = "can be on the front"
IN_TEXTS = (
    "test_acc",
    "test_f1_macro",
    "test_acc_low",
    "test_acc_high",
    "interval_note",
    "test_clips",
    "test_players",
    "peak_memory_bytes",
)  # columns of which ``_texts`` speaks


def accuracy_comparison(study: Study, limit: int | None = ROW_LIMIT) -> go.Figure:
    """Test accuracy of each run with its 95 % interval over players, best first.

    Args:
        study: From ``compare``.
        limit: Number of runs, the best ones; None for all that are drawn (``Study.drawn``).
    """
    rows = study.done.sort_values("test_acc", ascending=False, kind="stable")
    return _ranking(
        study, rows["test_acc"], f"Test {study.task.score} of each run", accuracy_axis(study.task), limit, error="x"
    )


def training_time(study: Study, limit: int | None = ROW_LIMIT) -> go.Figure:
    """Training time of each run in minutes, shortest first; arguments as ``accuracy_comparison``."""
    minutes = study.done["training_time_seconds"].dropna().sort_values(kind="stable") / 60
    return _ranking(study, minutes, "Training time", "Training time (minutes)", limit)


def peak_memory(study: Study, limit: int | None = ROW_LIMIT) -> go.Figure | None:
    """Peak memory of each run in GiB, least first, or None where no run recorded it; arguments as above."""
    if "peak_memory_bytes" not in study.table or not study.done["peak_memory_bytes"].notna().any():
        return None
    memory = study.done["peak_memory_bytes"].dropna().sort_values(kind="stable") / 2**30
    return _ranking(study, memory, "Peak memory", "Peak memory (GiB)", limit)


def _ranking(study: Study, values: pd.Series, title: str, axis: str, limit: int | None, error: str = "") -> go.Figure:
    """A row a run, as ``values`` (by row of the table) are sorted."""
    total = len(values)
    values = values.head(limit) if limit else study.drawn.of(values)
    note, drawn = (first_of(len(values), total), (0, 0)) if limit else ("", (len(values), total))
    names = pd.Series([safe(study.run_labels[row]) for row in values.index], values.index, dtype=object)
    traces = _runs(study, values, names, axis.split(" (")[0] + " %{x}", error)
    start = {"rangemode": "normal" if error else "tozero"}
    return rows_of_dots(traces, title + note, axis, list(names), "dots", drawn=drawn, xaxis=start)


def efficiency_scatter(study: Study) -> go.Figure:
    """Test accuracy against trainable parameters (logarithmic), with the Pareto front and what can be on it."""
    rows = study.done[study.done[COST] > 0]
    made = _with_front(study, rows[COST].astype(float), "trainable parameters")
    combinations = study.combinations
    able = combinations[combinations["on_front"].fillna(False) & (combinations[COST] > 0)]
    if len(able):
        rings = dots(
            ON_FRONT,
            rounded(able[COST]),
            rounded(able["test_acc"]),
            f"%{{text}}<br>{ON_FRONT}",
            text=[safe(name) for name in able["combination"]],
            customdata=[study.drawn.part(runs) for runs in able["rows"]],
            marker={"symbol": "circle-open", "size": 18, "color": GREY, "line": {"width": 1.5}},
            error_y=interval(able["test_acc"], able["acc_low"], able["acc_high"]),
            meta={"role": ON_FRONT},
        )
        made.add_trace(rings)
    return made


def accuracy_over_parameters(study: Study) -> go.Figure | None:
    """Test accuracy against all parameters of the network before any adapter, with the Pareto front.

    None where no cohort holds networks of several sizes.
    """
    return _over_size(study, PARAMETERS, "parameters of the network")


def accuracy_over_multiply_adds(study: Study) -> go.Figure | None:
    """Test accuracy against the network's multiply-adds for one clip; else as ``accuracy_over_parameters``."""
    return _over_size(study, MULTIPLY_ADDS, "multiply-adds of the network for a clip")


def _over_size(study: Study, key: str, what: str) -> go.Figure | None:
    if not len(study.model_sizes):
        return None
    rows = study.done[study.done["cohort"].isin(study.model_sizes["cohort"])]
    cost = pd.to_numeric(rows[key], errors="coerce").astype(float)
    return _with_front(study, cost[cost > 0], what)


def _with_front(study: Study, cost: pd.Series, what: str) -> go.Figure:
    """Test accuracy of runs against a cost (logarithmic), with the Pareto front."""
    gain = study.table.loc[cost.index, "test_acc"]
    x, y = cost.to_numpy(), gain.to_numpy(float)
    places = front_places(x, y)
    front = {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": rounded(x[places]),
        "y": rounded(y[places]),
        "hoverinfo": "skip",
        "line": {"dash": "dot", "width": 2, "color": GREY, "shape": "hv"},
        "meta": {"role": "front"},
    }
    return figure(
        [front, *_runs(study, study.drawn.of(cost), gain, f"%{{x:,}} {what}", "y")],
        f"{_score(study)} against {what}",
        {"kind": "points"},
        _drawn(study, cost),
        height=520,
        xaxis={"title": {"text": what.capitalize()}, **log_axis(cost)},
        yaxis={"title": {"text": accuracy_axis(study.task)}},
    )


def time_accuracy(study: Study) -> go.Figure:
    """Test accuracy against training time, the marks as large as the peak memory where it was recorded."""
    rows = study.done[study.done["training_time_seconds"] > 0]
    minutes = rows["training_time_seconds"] / 60
    sizes = None
    if "peak_memory_bytes" in rows and rows["peak_memory_bytes"].notna().any():
        sizes = 7 + 2.2 * np.sqrt(rows["peak_memory_bytes"].fillna(0) / 2**30)
    return figure(
        _runs(study, study.drawn.of(minutes), rows["test_acc"], "%{x} minutes", "y", sizes),
        f"{_score(study)} against training time",
        {"kind": "points"},
        _drawn(study, minutes),
        height=500,
        xaxis={"title": {"text": "Training time (minutes)"}, **log_axis(minutes)},
        yaxis={"title": {"text": accuracy_axis(study.task)}},
    )


def _runs(
    study: Study, x: pd.Series, y: pd.Series, hover: str, error: str = "", sizes: pd.Series | None = None
) -> list[dict[str, Any]]:
    """Dots of runs, a trace a model, and legend entries that say what colours and symbols mean.

    Args:
        study: From ``compare``.
        x: Place of each run, by row of the table.
        y: The other place: numbers or names.
        hover: What is said of a run, beside its name and its accuracy.
        error: The axis along which the accuracy's interval lies; none where it is empty.
        sizes: Size of each dot.
    """
    rows = study.table.loc[x.index]
    colours, symbols = model_colours(study.table), strategy_symbols(study.table)
    traces = []
    models = levels(rows, "model")
    for model in models:
        part = rows[rows["model"] == model]
        marker: dict[str, Any] = {
            "color": colours[model],
            "symbol": [
                symbols[str(strategy)] + ("" if augmented else "-open")
                for strategy, augmented in zip(part["strategy"], part["augmentation"], strict=True)
            ],
            "line": {"width": 1.5, "color": colours[model]},
        }
        if sizes is not None:
            marker["size"] = rounded(sizes[part.index], 3)
        places = y[part.index]
        trace = dots(
            safe(model),
            rounded(x[part.index]),
            list(places) if places.dtype == object else rounded(places),
            "%{text}<br>" + hover,
            legendgroup=safe(model),
            showlegend=False,
            customdata=[int(row) for row in part.index],
            text=_texts(study, part),
            marker=marker,
        )
        if error:
            trace[f"error_{error}"] = interval(part["test_acc"], part["test_acc_low"], part["test_acc_high"])
        traces.append(trace)
    entries = [(model, "circle", colours[model]) for model in models]
    entries += [(strategy, symbols[strategy], GREY) for strategy in levels(rows, "strategy")]
    if rows["augmentation"].nunique() > 1:
        entries.append(("open: no augmentation", "circle-open", GREY))
    for number, (name, symbol, colour) in enumerate(entries):
        marker = {"symbol": symbol, "color": colour, "line": {"width": 1.5, "color": colour}}
        group = {"legendgroup": safe(name)} if number < len(models) else {}
        traces.append(dots(safe(name), [None], [None], "", hoverinfo="skip", marker=marker, **group))
    return traces


def _texts(study: Study, rows: pd.DataFrame) -> list[str]:
    """What stands beside the mark of each run: its name, accuracy, interval, clips and memory."""
    texts = []
    said = rows[[key for key in IN_TEXTS if key in rows]]
    for row, item in zip(rows.index, said.to_dict("records"), strict=True):
        lines = [study.run_labels[row], f"test {study.task.score} {item['test_acc']:.4f}{_macro_f1(item)}"]
        if pd.notna(item["test_acc_low"]):
            lines.append(f"95 % interval {item['test_acc_low']:.4f} to {item['test_acc_high']:.4f}")
        elif item["interval_note"]:
            lines.append(item["interval_note"])
        if item["test_clips"]:
            lines.append(study.task.extent(f"{item['test_clips']:,}", item["test_players"]))
        if pd.notna(memory := item.get("peak_memory_bytes")):
            lines.append(f"peak memory {memory / 2**30:.2f} GiB")
        texts.append("<br>".join(map(safe, lines)))
    return texts


def _macro_f1(item: Mapping[Any, Any]) -> str:
    return f", macro F1 {item['test_f1_macro']:.4f}" if pd.notna(item["test_f1_macro"]) else ""


def _drawn(study: Study, values: pd.Series) -> tuple[int, int]:
    """How many runs are drawn of those that have one of the ``values``, and how many these are."""
    return len(study.drawn.of(values)), len(values)


def _score(study: Study) -> str:
    return study.task.score.capitalize()


def seed_spread(study: Study, limit: int = ROW_LIMIT) -> go.Figure | None:
    """Accuracy of every drawn run, the mean ± standard deviation over seeds or folds, and its standard error.

    None where no combination has two runs.
    """
    frame = study.combinations[study.combinations["runs"] > 1]
    frame = frame.sort_values("test_acc", ascending=False, kind="stable").head(limit)
    if not len(frame):
        return None
    names = [safe(label) for label in frame["combination"]]
    folds = frame["folds"] > 0
    repeats, one = ("folds", "fold") if folds.all() else ("seeds or folds", "run") if folds.any() else ("seeds", "seed")
    every = [(name, row) for name, rows in zip(names, frame["rows"], strict=True) for row in rows]
    runs = [(name, row) for name, row in every if row in study.drawn]
    repeated = study.table[[key for key in (FOLD, "seed") if key in study.table]]
    traces = [
        dots(
            f"one {one}",
            rounded(study.table.at[row, "test_acc"] for _, row in runs),
            [name for name, _ in runs],
            "%{y}<br>%{text}: %{x}",
            customdata=[int(row) for _, row in runs],
            text=[_repeat(row) for row in repeated.loc[[row for _, row in runs]].to_dict("records")],
            marker={"symbol": "line-ns-open", "size": 11, "color": GREY, "line": {"width": 2}},
        )
    ]
    for key, what, colour, symbol in (
        ("acc_std", f"mean ± std over {repeats}", "#0072B2", "circle"),
        ("acc_error", "mean ± standard error", "#D55E00", "square"),
    ):
        hover = "%{y}<br>" + what + ": %{x} ± %{error_x.array}"
        marker = {"color": colour, "symbol": symbol}
        traces.append(
            dots(what, rounded(frame["test_acc"]), names, hover, error_x=deviation(frame[key]), marker=marker)
        )
    title = f"{repeats.capitalize()} and {safe(study.task.groups)}: two kinds of luck"
    more = {"drawn": (len(runs), len(every)), "scattermode": "group", "scattergap": 0.3}
    return rows_of_dots(traces, title, f"Test {study.task.score}", names, "static", **more)


def _repeat(row: Mapping[Any, Any]) -> str:
    """Fold and seed of a run in words."""
    known = [key for key in (FOLD, "seed") if key in row and pd.notna(row[key])]
    return ", ".join(f"{key.split('.')[-1]} {safe(shown(row[key]))}" for key in known) or "seed unknown"
