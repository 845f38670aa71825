"""Figures over the matrix: model by strategy, augmentation, main effects, other factors, all paired differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.plots.style import (
    DIVERGING,
    PALETTE,
    ROW_HEIGHT,
    SEQUENTIAL,
    SYMBOLS,
    accuracy_scale,
    colours,
    figure,
    legend_below,
    levels,
    rounded,
    safe,
)
from sousa_bench.analysis.report.console import p_value
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact
from sousa_bench.analysis.stats.pairs import ALPHA
from sousa_bench.analysis.study import Study

LEAST_BOUND = 5.0  # percentage points that get the full colour, so that a few clips' difference doesn't


def model_strategy_heatmap(study: Study) -> go.Figure:
    """Mean test accuracy by model and strategy; a cell says how many runs it averages."""
    done = study.done
    models, strategies = levels(done, "model"), levels(done, "strategy")
    cells = [[_cell(done, model, strategy) for strategy in strategies] for model in models]
    means = [[float(done.loc[rows, "test_acc"].mean()) if rows else float("nan") for rows in line] for line in cells]
    texts = [
        [f"{mean:.3f}<br>n={len(rows)}" if rows else "" for mean, rows in zip(line, row_cells, strict=True)]
        for line, row_cells in zip(means, cells, strict=True)
    ]
    low, high = accuracy_scale(mean for line in means for mean in line)
    heat = {
        "type": "heatmap",
        "x": [safe(strategy) for strategy in strategies],
        "y": [safe(model) for model in models],
        "z": [rounded(line) for line in means],
        "text": texts,
        "texttemplate": "%{text}",
        "hovertemplate": "%{y} + %{x}<br>mean test accuracy %{z:.4f}<extra></extra>",
        "colorscale": SEQUENTIAL,
        "zmin": low,
        "zmax": high,
        "colorbar": {"title": {"text": "Accuracy"}, "outlinewidth": 0, "thickness": 14},
        "xgap": 2,
        "ygap": 2,
        "meta": {"cells": cells},
    }
    return figure(
        [heat],
        "Mean test accuracy by model and PEFT strategy",
        height=170 + 62 * max(len(models), 2),
        xaxis={"title": {"text": "PEFT strategy"}, "type": "category", "showgrid": False},
        yaxis={"title": {"text": "Model"}, "type": "category", "autorange": "reversed", "showgrid": False},
        meta={"kind": "cells"},
    )


def _cell(done: pd.DataFrame, model: str, strategy: str) -> list[int]:
    return [int(row) for row in done.index[(done["model"] == model) & (done["strategy"] == strategy)]]


def augmentation_effect(study: Study, limit: int | None = 40) -> go.Figure | None:
    """Paired difference of accuracy with and without augmentation, with its 95 % interval; None without a pair."""
    table = augmentation_impact(study).table
    if not len(table):
        return None
    total = len(table)
    table = table if limit is None else table.head(limit)
    colour = colours(levels(study.table, "model"))
    traces = []
    for model in levels(table, "model"):
        part = table[table["model"] == model]
        words = [
            f"p {p_value(row['p'])}, Holm {p_value(row['p_holm'])}<br>{row['clips']:,} clips, {row['players']} players"
            for _, row in part.iterrows()
        ]
        value, low, high = (100 * part[key].to_numpy(float) for key in ("difference", "low", "high"))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": safe(model),
                "x": rounded(value),
                "y": [safe(label) for label in part["label"]],
                "text": words,
                "customdata": [
                    [int(r) for r in (*a, *b)] for a, b in zip(part["with_rows"], part["without_rows"], strict=True)
                ],
                "hovertemplate": "%{y}<br>%{x:+.2f} points<br>%{text}<extra></extra>",
                "marker": {"color": colour[model], "size": 9},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": rounded(np.nan_to_num(high - value)),
                    "arrayminus": rounded(np.nan_to_num(value - low)),
                    "width": 0,
                    "thickness": 1.4,
                    "color": colour[model],
                },
            }
        )
    return figure(
        traces,
        "What augmentation changes" + (f" (first {len(table)} of {total})" if len(table) < total else ""),
        height=160 + ROW_HEIGHT * max(len(table), 4),
        legend=legend_below(),
        xaxis={
            "title": {"text": "With minus without (points, 95 % interval)"},
            "zeroline": True,
            "zerolinewidth": 2,
        },
        yaxis={
            "categoryorder": "array",
            "categoryarray": [safe(label) for label in table["label"]][::-1],
            "tickfont": {"size": 11},
            "type": "category",
        },
        meta={"kind": "dots", "limit": 40},
    )


def main_effects(study: Study) -> go.Figure | None:
    """Deviation of each factor's levels from the grand mean, with 95 % intervals; None where not decomposed."""
    found = [(name, item) for name, item in study.effects.items() if len(item.levels)]
    if not found:
        return None
    name, item = found[0]
    rows = item.levels
    traces = []
    for number, factor in enumerate(dict.fromkeys(rows["factor"])):
        part = rows[rows["factor"] == factor]
        value, low, high = (100 * part[key].to_numpy(float) for key in ("deviation", "low", "high"))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": safe(factor),
                "x": rounded(value),
                "y": [safe(f"{factor}: {level}") for level in part["level"]],
                "text": [
                    f"mean accuracy {a:.4f} over {c} cells"
                    for a, c in zip(part["accuracy"], part["cells"], strict=True)
                ],
                "hovertemplate": "%{y}<br>%{x:+.2f} points<br>%{text}<extra></extra>",
                "marker": {
                    "color": PALETTE[number % len(PALETTE)],
                    "size": 10,
                    "symbol": SYMBOLS[number % len(SYMBOLS)],
                },
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": rounded(np.nan_to_num(high - value)),
                    "arrayminus": rounded(np.nan_to_num(value - low)),
                    "width": 0,
                    "thickness": 1.6,
                },
            }
        )
    order = [label for trace in traces for label in trace["y"]]
    where = f" (cohort {safe(name)})" if len(study.effects) > 1 else ""
    return figure(
        traces,
        "Main effects" + where,
        height=150 + 26 * max(len(rows), 4),
        legend=legend_below(),
        xaxis={
            "title": {"text": "Deviation from the mean (points, 95 % interval)"},
            "zeroline": True,
            "zerolinewidth": 2,
        },
        yaxis={"categoryorder": "array", "categoryarray": order[::-1], "type": "category"},
        meta={"kind": "static"},
    )


def factor_effect(study: Study, factor: str, limit: int = 24) -> go.Figure:
    """Test accuracy against a factor that varied beside the usual three (``peft.r``, a learning rate, a fold).

    Runs that differ in this factor alone (seeds averaged) are joined by a line.
    """
    done = study.done
    numeric = pd.to_numeric(done[factor], errors="coerce")
    is_number = bool(numeric.notna().all())
    others = [key for key in (*BASE_FACTORS, *study.results.factors) if key != factor]
    colour = colours(levels(study.table, "model"))
    groups = sorted(done.groupby(others, dropna=False, sort=False), key=lambda item: -item[1]["test_acc"].max())
    traces = []
    for number, (values, rows) in enumerate(groups[:limit]):
        values = values if isinstance(values, tuple) else (values,)
        level = numeric.loc[rows.index] if is_number else rows[factor].map(shown)
        means = rows["test_acc"].groupby(level.to_numpy()).agg(["mean", "std", "count"])
        label = _line_label(others, values)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label,
                "x": rounded(means.index, 9) if is_number else [safe(value) for value in means.index],
                "y": rounded(means["mean"]),
                "text": [f"{count} runs" for count in means["count"]],
                "hovertemplate": label + f"<br>{safe(factor)} %{{x}}: %{{y:.4f}}<br>%{{text}}<extra></extra>",
                "error_y": {"type": "data", "array": rounded(np.nan_to_num(means["std"])), "thickness": 1, "width": 2},
                "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8},
                "line": {"color": colour[str(values[0])], "width": 1.6},
            }
        )
    return figure(
        traces,
        f"Test accuracy by {safe(factor)}" + (f" (best {limit} of {len(groups)} lines)" if len(groups) > limit else ""),
        height=560,
        legend={"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top", "font": {"size": 11}},
        xaxis={"title": {"text": safe(factor)}, **_factor_axis(numeric, is_number)},
        yaxis={"title": {"text": "Test accuracy (± std over seeds)"}},
        meta={"kind": "static"},
    )


def _line_label(keys: list[str], values: tuple[Any, ...]) -> str:
    named = dict(zip(keys, values, strict=True))
    words = [f"{named['model']} + {named['strategy']}", "aug" if named["augmentation"] else "no aug"]
    words += [f"{key.split('.')[-1]}={shown(value)}" for key, value in named.items() if key not in BASE_FACTORS]
    return safe(", ".join(words))


def _factor_axis(numeric: pd.Series, is_number: bool) -> dict[str, Any]:
    """A logarithmic axis where the levels span a factor of eight or more."""
    if not is_number:
        return {"type": "category"}
    values = sorted(set(numeric))
    if values[0] > 0 and values[-1] / values[0] >= 4:
        return {"type": "log", "tickvals": values[:12], "ticktext": [shown(value) for value in values[:12]]}
    return {"type": "linear"}


def pairwise_differences(study: Study, limit: int = 24) -> go.Figure | None:
    """Paired differences between the best combinations (row minus column); a dot marks what is clear after Holm."""
    if not len(study.pairs):
        return None
    cohort = study.pairs["cohort"].mode().iloc[0]
    pairs = study.pairs[study.pairs["cohort"] == cohort]
    tested = {*pairs["first"], *pairs["second"]}
    frame = study.combinations[
        (study.combinations["cohort"] == cohort) & study.combinations["combination"].isin(tested)
    ]
    names = list(frame.sort_values("test_acc", ascending=False, kind="stable")["combination"].head(limit))
    place = {name: number for number, name in enumerate(names)}
    size = len(names)
    values, texts = np.full((size, size), np.nan), np.full((size, size), "", dtype=object)
    words = np.full((size, size), "", dtype=object)
    for row in pairs.itertuples():
        if row.first not in place or row.second not in place:
            continue
        i, j = place[row.first], place[row.second]
        for a, b, sign in ((i, j, 1), (j, i, -1)):
            values[a, b] = 100 * sign * row.difference
            texts[a, b] = "●" if row.p_holm <= ALPHA else ""
            words[a, b] = f"p {p_value(row.p)}, Holm {p_value(row.p_holm)}"
    bound = max(float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0, LEAST_BOUND)
    labels = [safe(name) for name in names]
    heat = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": [rounded(line, 4) for line in values],
        "text": texts.tolist(),
        "texttemplate": "%{text}",
        "customdata": words.tolist(),
        "zmin": -bound,
        "zmax": bound,
        "hovertemplate": "%{y}<br>minus %{x}<br>%{z:+.2f} points, %{customdata}<extra></extra>",
        "colorscale": DIVERGING,
        "colorbar": {"title": {"text": "Points"}, "outlinewidth": 0, "thickness": 14},
        "textfont": {"size": 9, "color": "#1c2430"},
        "xgap": 1,
        "ygap": 1,
    }
    return figure(
        [heat],
        f"Paired differences of accuracy (●: clear after Holm, {len(pairs)} comparisons)",
        height=330 + 20 * size,
        xaxis={"tickangle": -60, "type": "category", "showgrid": False, "tickfont": {"size": 10}},
        yaxis={"autorange": "reversed", "type": "category", "showgrid": False, "tickfont": {"size": 10}},
        meta={"kind": "static"},
    )
