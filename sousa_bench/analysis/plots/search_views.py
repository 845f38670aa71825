"""Figures of a search: the best so far, how closely the score follows each key, and every trial across its keys.

A search is a sweep whose folder holds Optuna's study; its trials are the runs, in the order of their numbers.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from sousa_bench.analysis.plots.style import PALETTE, SEQUENTIAL, dots, figure, rounded, safe
from sousa_bench.analysis.study import Study
from sousa_bench.config.overrides import split
from sousa_bench.results.manifest import STUDY_FILE

FEWEST_TRIALS = 3
MAX_TRIALS = 500
MAX_KEYS = 10
LOG_FROM = 10  # times the smallest that the largest of positive values is, from which their axis is logarithmic


@dataclass(frozen=True)
class Search:
    """The trials of one search that have a validation score.

    Attributes:
        name: The sweep's.
        trials: Rows of the study's table, by number of the trial (``sweep.index``); without those that have none.
        keys: Each key that varied between them, with its value in each trial. They come from the overrides, since keys
            with another value in every trial are no factors of their own.
    """

    name: str
    trials: pd.DataFrame
    keys: dict[str, pd.Series]


def largest_search(study: Study) -> Search | None:
    """The search with the most trials in the table; None where there is none with ``FEWEST_TRIALS``."""
    if "sweep.index" not in study.table:
        return None
    found: list[tuple[Path, pd.DataFrame]] = []
    number = pd.to_numeric(study.table["sweep.index"].astype(str), errors="coerce").astype(float)
    numbered = study.table.assign(**{"sweep.index": number})
    scored = numbered[numbered["val_acc"].notna() & np.isfinite(number)]
    parents = scored["folder"].map(os.path.dirname)  # a Path object for each of 100,000 runs costs 0.3 s
    for folder, rows in scored.groupby(parents.map({name: Path(name) for name in parents.unique()})):
        if (Path(str(folder)) / STUDY_FILE).is_file() and len(rows) >= FEWEST_TRIALS:
            found.append((Path(str(folder)), rows))
    if not found:
        return None
    folder, rows = max(found, key=lambda each: len(each[1]))
    rows = rows.sort_values("sweep.index", kind="stable").head(MAX_TRIALS)
    return Search(folder.name, rows, _varied(study, rows))


def _varied(study: Study, rows: pd.DataFrame) -> dict[str, pd.Series]:
    asked = [dict(map(split, study.results.overrides[row])) for row in rows.index]
    keys = dict.fromkeys(key for words in asked for key in words)
    columns = {key: pd.Series([words.get(key, "") for words in asked], rows.index, dtype=object) for key in keys}
    return dict(itertools.islice(((k, v) for k, v in columns.items() if v.nunique() > 1), MAX_KEYS))


def best_so_far(study: Study) -> go.Figure | None:
    """The validation score of each trial and the best up to it; None without a search."""
    if (search := largest_search(study)) is None:
        return None
    number, score = search.trials["sweep.index"], search.trials["val_acc"].astype(float)
    best = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": rounded(number),
        "y": rounded(score.cummax()),
        "hoverinfo": "skip",
        "line": {"shape": "hv", "color": PALETTE[1], "width": 2},
    }
    trials = dots(
        "a trial",
        rounded(number),
        rounded(score),
        "%{text}<br>%{y:.4f}",
        text=[_values(search, row) for row in search.trials.index],
        customdata=[int(row) for row in search.trials.index],
        marker={"color": PALETTE[0]},
    )
    return figure(
        [best, trials],
        f"Search {safe(search.name)}: best so far",
        {"kind": "points"},
        xaxis={"title": {"text": "Trial"}, "rangemode": "tozero"},
        yaxis={"title": {"text": f"Validation {study.task.score}"}},
    )


def search_importance(study: Study) -> go.Figure | None:
    """How closely the validation score follows each key, from 0 to 1; None without a search over a key.

    Numbers: the size of Spearman's rank correlation. Choices: the root of the correlation ratio of the score's ranks.
    """
    search = largest_search(study)
    if search is None or not search.keys:
        return None
    ranks = search.trials["val_acc"].rank()
    found = sorted(((_association(values, ranks), key) for key, values in search.keys.items()), reverse=True)
    bars = {
        "type": "bar",
        "x": [safe(key) for _, key in found],
        "y": rounded(value for value, _ in found),
        "hovertemplate": "%{x}: %{y:.2f}<extra></extra>",
        "marker": {"color": PALETTE[0]},
    }
    return figure(
        [bars],
        f"Search {safe(search.name)}: what the score follows",
        {"kind": "static"},
        xaxis={"type": "category"},
        yaxis={"title": {"text": f"Rank correlation with validation {study.task.score}"}, "range": [0, 1.02]},
    )


def search_trials(study: Study) -> go.Figure | None:
    """A line a trial across its keys, each on an axis of its own, coloured by the score; None without a search."""
    search = largest_search(study)
    if search is None or not search.keys:
        return None
    score = search.trials["val_acc"].astype(float)
    axes = {key: _place(values) for key, values in search.keys.items()}
    axes["val map" if study.task.several else "val acc"] = _place(score)
    share = _place(score).to_numpy()
    colours = sample_colorscale(SEQUENTIAL, list(np.nan_to_num(share, nan=0.0)))
    traces: list[dict[str, Any]] = []
    for place in np.argsort(score.to_numpy(), kind="stable"):
        row = int(search.trials.index[place])
        traces.append(
            dots(
                safe(study.run_labels[row]),
                [safe(key) for key in axes],
                rounded(values.iloc[place] for values in axes.values()),
                "%{text}",
                mode="lines+markers",
                text=[f"{_values(search, row)}<br>{score.iloc[place]:.4f}"] * len(axes),
                customdata=[row] * len(axes),
                showlegend=False,
                line={"color": colours[place], "width": 1.5},
                marker={"color": colours[place], "size": 6},
            )
        )
    ends = [
        {"x": safe(key), "y": end, "yanchor": side, "showarrow": False, "text": safe(values.iloc[int(place)])}
        for key, values in search.keys.items()
        for end, side, place in ((1, "bottom", axes[key].argmax()), (0, "top", axes[key].argmin()))
    ]
    return figure(
        traces,
        f"Search {safe(search.name)}: every trial",
        {"kind": "points"},
        annotations=ends,
        xaxis={"type": "category"},
        yaxis={"visible": False, "range": [-0.08, 1.08]},
    )


def _values(search: Search, row: Any) -> str:
    number = int(search.trials["sweep.index"].loc[row])
    said = [f"{key}={values.loc[row]}" for key, values in search.keys.items()]
    return safe(f"trial {number}: {', '.join(said)}")


def _numbers(values: pd.Series) -> pd.Series | None:
    """The values as numbers; None where one is none."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.astype(float) if np.isfinite(numbers.astype(float)).all() else None


def _association(values: pd.Series, ranks: pd.Series) -> float:
    numbers = _numbers(values)
    if numbers is not None:
        found = numbers.rank().corr(ranks)
    else:
        means = ranks.groupby(values.astype(str)).transform("mean")
        found = np.sqrt(means.var(ddof=0) / ranks.var(ddof=0)) if ranks.nunique() > 1 else 0.0
    return 0.0 if np.isnan(found) else float(abs(found))


def _place(values: pd.Series) -> pd.Series:
    """Where each value lies between the least (0) and the most (1); choices stand evenly, by name."""
    numbers = _numbers(values)
    if numbers is None:
        names = values.astype(str)
        order = {name: number for number, name in enumerate(sorted(names.unique()))}
        numbers = names.map(order).astype(float)
    elif numbers.min() > 0 and numbers.max() / numbers.min() >= LOG_FROM:
        numbers = pd.Series(np.log(numbers), index=numbers.index)
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span else numbers * 0 + 0.5
