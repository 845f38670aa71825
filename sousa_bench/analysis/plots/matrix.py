"""Figures over the matrix: model by strategy, augmentation, main effects, other factors, all paired differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sousa_bench.analysis.columns import p_value
from sousa_bench.analysis.drawn_runs import ROW_LIMIT
from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.not_run import refused
from sousa_bench.analysis.plots.style import (
    DIVERGING,
    LEGEND_BELOW,
    PALETTE,
    SEQUENTIAL,
    SYMBOLS,
    accuracy_scale,
    deviation,
    dots,
    figure,
    first_of,
    heatmap,
    interval,
    levels,
    model_colours,
    rounded,
    rows_of_dots,
    safe,
)
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact
from sousa_bench.analysis.stats.data_sets import data_set_verdicts
from sousa_bench.analysis.stats.pairs import ALPHA
from sousa_bench.analysis.study import Study

ZERO_LINE = {"zeroline": True, "zerolinewidth": 2}
LEAST_BOUND = 5.0  # percentage points that get the full colour, so that a few clips' difference doesn't


def model_strategy_heatmap(study: Study) -> go.Figure:
    """Mean test accuracy by model and strategy; a cell says how many runs it averages, or that a sweep refused it."""
    done = study.done
    models, strategies = levels(done, "model"), levels(done, "strategy")
    runs = {cell: group.index.tolist() for cell, group in done.groupby(["model", "strategy"])}
    cells = [[runs.get((model, strategy), []) for strategy in strategies] for model in models]
    means = [[float(done.loc[rows, "test_acc"].mean()) for rows in line] for line in cells]
    heat = heatmap(
        [safe(strategy) for strategy in strategies],
        [safe(model) for model in models],
        means,
        f"%{{y}} + %{{x}}<br>mean test {study.task.score} %{{z:.4f}}",
        study.task.score.capitalize(),
        accuracy_scale(mean for line in means for mean in line),
        text=[
            [f"{mean:.3f}<br>n={len(rows)}" if rows else "" for mean, rows in zip(*lines, strict=True)]
            for lines in zip(means, cells, strict=True)
        ],
        texttemplate="%{text}",
        colorscale=SEQUENTIAL,
        xgap=2,
        ygap=2,
        meta={"cells": cells} if study.drawn.all else None,
    )
    refusals = {(each.model, each.strategy) for each in refused(study)}
    return figure(
        [heat],
        f"Mean test {study.task.score} by model and PEFT strategy",
        {"kind": "cells" if study.drawn.all else "static"},
        annotations=[
            {"x": safe(strategy), "y": safe(model), "text": "not run", "showarrow": False}
            for model, strategy in sorted(refusals)
            if model in models and strategy in strategies and (model, strategy) not in runs
        ],
        height=170 + 62 * max(len(models), 2),
        xaxis={"title": {"text": "PEFT strategy"}, "type": "category", "showgrid": False},
        yaxis={"title": {"text": "Model"}, "type": "category", "autorange": "reversed", "showgrid": False},
    )


def augmentation_effect(study: Study, limit: int | None = ROW_LIMIT) -> go.Figure | None:
    """Paired difference of accuracy with and without augmentation, with its 95 % interval; None without a pair."""
    table = augmentation_impact(study).table
    if not len(table):
        return None
    total = len(table)
    table = table.head(limit or total)
    names = [safe(label) for label in table["label"]]
    colours = model_colours(study.table)
    traces = [
        _points(
            safe(model),
            part,
            "difference",
            [safe(label) for label in part["label"]],
            [
                f"p {p_value(row['p'])}, of all {p_value(row['p_adjusted'])}<br>"
                + safe(study.task.extent(f"{row['clips']:,}", row["players"]))
                for row in part.to_dict("records")
            ],
            {"color": colours[str(model)]},
            customdata=[
                [study.drawn.part(side) for side in sides]
                for sides in zip(part["with_rows"], part["without_rows"], strict=True)
            ],
        )
        for model, part in table.groupby("model")
    ]
    title = "What augmentation changes" + first_of(len(table), total)
    axis = "With minus without (points, 95 % interval)"
    return rows_of_dots(traces, title, axis, names, "dots", xaxis=ZERO_LINE)


def main_effects(study: Study) -> go.Figure | None:
    """Deviation of each factor's levels from the grand mean, with 95 % intervals; None where not decomposed."""
    found = next(((name, item.levels) for name, item in study.effects.items() if len(item.levels)), None)
    if found is None:
        return None
    cohort, rows = found
    traces = [
        _points(
            safe(factor),
            part,
            "deviation",
            [safe(f"{factor}: {level}") for level in part["level"]],
            [f"mean {study.task.score} {row.accuracy:.4f} over {row.cells} cells" for row in part.itertuples()],
            {"color": PALETTE[number % len(PALETTE)], "symbol": SYMBOLS[number % len(SYMBOLS)]},
        )
        for number, (factor, part) in enumerate(rows.groupby("factor", sort=False))
    ]
    names = [label for trace in traces for label in trace["y"]]
    title = "Main effects" + (f" (cohort {safe(cohort)})" if len(study.effects) > 1 else "")
    axis = "Deviation from the mean (points, 95 % interval)"
    return rows_of_dots(traces, title, axis, names, "static", xaxis=ZERO_LINE)


def mean_ranks(study: Study, limit: int = ROW_LIMIT) -> go.Figure | None:
    """Mean ranks over data sets, each within half the critical difference; None where there are no several."""
    if not (verdicts := data_set_verdicts(study)):
        return None
    item = verdicts[0]
    names = [safe(name) for name in item.accuracy.index[:limit]]
    mean, half = item.ranks.mean[:limit], item.ranks.critical / 2
    bars = interval(mean, mean - half, mean + half)
    trace = dots("methods", rounded(mean), names, "%{y}<br>mean rank %{x:.2f}", error_x=bars, showlegend=False)
    title = f"Mean rank over {len(item.names)} data sets" + (f" ({safe(item.kind)})" if item.kind else "")
    title += first_of(len(names), len(item.accuracy))
    return rows_of_dots([trace], title, "Mean rank (half the critical difference on either side)", names, "static")


def _points(
    name: str, rows: pd.DataFrame, key: str, labels: list[str], texts: list[str], marker: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Dots of differences in percentage points, with their intervals."""
    value, low, high = (100 * rows[column].to_numpy(float) for column in (key, "low", "high"))
    hover = "%{y}<br>%{x:+.2f} points<br>%{text}"
    bars = interval(value, low, high)
    return dots(name, rounded(value), labels, hover, text=texts, error_x=bars, marker=marker, **more)


def factor_effect(study: Study, factor: str, limit: int = 24) -> go.Figure:
    """Test accuracy against a factor that varied beside the usual three (``peft.r``, a learning rate, a fold).

    Runs that differ in this factor alone (seeds averaged) are joined by a line.
    """
    done = study.done
    numeric = pd.to_numeric(done[factor], errors="coerce")
    is_number = bool(numeric.notna().all())
    others = [key for key in (*BASE_FACTORS, *study.results.factors) if key != factor]
    colours = model_colours(study.table)
    groups = sorted(done.groupby(others, dropna=False, sort=False), key=lambda item: -item[1]["test_acc"].max())
    traces = []
    for number, (values, rows) in enumerate(groups[:limit]):
        level = numeric.loc[rows.index] if is_number else rows[factor].map(shown)
        means = rows["test_acc"].groupby(level.to_numpy()).agg(["mean", "std", "count"])
        label = _line_label(dict(zip(others, values, strict=True)))
        traces.append(
            dots(
                label,
                rounded(means.index, 9) if is_number else [safe(value) for value in means.index],
                rounded(means["mean"]),
                label + f"<br>{safe(factor)} %{{x}}: %{{y:.4f}}<br>%{{text}}",
                mode="lines+markers",
                text=[f"{count} runs" for count in means["count"]],
                error_y=deviation(means["std"]),
                marker={"symbol": SYMBOLS[number % len(SYMBOLS)]},
                line={"color": colours[str(values[0])], "width": 1.6},
            )
        )
    return figure(
        traces,
        f"Test {study.task.score} by {safe(factor)}"
        + (f" (best {limit} of {len(groups)} lines)" if len(groups) > limit else ""),
        {"kind": "static"},
        height=560,
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": safe(factor)}, **_factor_axis(numeric, is_number)},
        yaxis={"title": {"text": f"Test {study.task.score} (± std over seeds)"}},
    )


def _line_label(named: dict[str, Any]) -> str:
    words = [f"{named['model']} + {named['strategy']}", "aug" if named["augmentation"] else "no aug"]
    words += [f"{key.split('.')[-1]}={shown(value)}" for key, value in named.items() if key not in BASE_FACTORS]
    return safe(", ".join(words))


def _factor_axis(numeric: pd.Series, is_number: bool) -> dict[str, Any]:
    """A logarithmic axis where the largest level is four times the smallest or more."""
    if not is_number:
        return {"type": "category"}
    values = sorted(set(numeric))
    if values[0] > 0 and values[-1] / values[0] >= 4:
        return {"type": "log", "tickvals": values[:12], "ticktext": [shown(value) for value in values[:12]]}
    return {"type": "linear"}


def pairwise_differences(study: Study, limit: int = 24) -> go.Figure | None:
    """Paired differences between the best combinations (row minus column); a dot marks what is clear."""
    if not len(study.pairs):
        return None
    cohort = study.pairs["cohort"].mode().iloc[0]
    pairs = study.pairs[study.pairs["cohort"] == cohort]
    tested = {*pairs["first"], *pairs["second"]}
    frame = study.combinations
    frame = frame[(frame["cohort"] == cohort) & frame["combination"].isin(tested)]
    names = list(frame.sort_values("test_acc", ascending=False, kind="stable")["combination"].head(limit))
    place = {name: number for number, name in enumerate(names)}
    size = len(names)
    values = np.full((size, size), np.nan)
    texts, words = np.full((2, size, size), "", dtype=object)
    for row in pairs[pairs["first"].isin(names) & pairs["second"].isin(names)].itertuples():
        i, j = place[row.first], place[row.second]
        values[i, j], values[j, i] = 100 * row.difference, -100 * row.difference
        texts[i, j] = texts[j, i] = "●" if row.p_adjusted <= ALPHA else ""
        words[i, j] = words[j, i] = f"p {p_value(row.p)}, of all {p_value(row.p_adjusted)}"
    bound = max([LEAST_BOUND, *np.abs(values[np.isfinite(values)])])
    labels = [safe(name) for name in names]
    heat = heatmap(
        labels,
        labels,
        values,
        "%{y}<br>minus %{x}<br>%{z:+.2f} points, %{customdata}",
        "Points",
        (-bound, bound),
        text=texts.tolist(),
        texttemplate="%{text}",
        customdata=words.tolist(),
        colorscale=DIVERGING,
        textfont={"size": 9},
        xgap=1,
        ygap=1,
    )
    axis = {"type": "category", "showgrid": False, "tickfont": {"size": 10}}
    return figure(
        [heat],
        f"Paired differences of {study.task.score} (●: clear, {len(pairs)} comparisons)",
        {"kind": "static"},
        height=330 + 20 * size,
        xaxis={"tickangle": -60, **axis},
        yaxis={"autorange": "reversed", **axis},
    )
