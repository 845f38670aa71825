"""Figures of single runs' predictions: confusions, F1 of each class, accuracy by slice of the test clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.plots.style import PALETTE, RARE, SYMBOLS, figure, legend_below, rounded, safe
from sousa_bench.analysis.stats.intervals import MIN_PLAYERS, accuracy_interval
from sousa_bench.analysis.study import Study
from sousa_bench.rudiments import DISPLAY, FAMILIES, FAMILY_NAMES, INDEX, NUM_CLASSES

DETAIL_LIMIT = 24
IMAGE_LIMIT = 5
ORDER = list(FAMILIES)  # the order of the PAS sheet, family by family
TEMPO_EDGES = (0, 80, 100, 120, 140, 160, 10_000)
TIERS = ("novice", "beginner", "intermediate", "advanced", "professional", "expert")
SLICE_TITLES = {"skill_tier": "skill tier", "tempo_bpm": "tempo band", "soundfont": "soundfont"}


def predicted_runs(study: Study, limit: int = DETAIL_LIMIT) -> list[int]:
    """Rows of the best runs whose predictions were read, best first."""
    known = {row for clips in study.clip_sets for row in clips.rows}
    return [int(row) for row in study.done.index if row in known][:limit]


def detail_runs(study: Study, limit: int = DETAIL_LIMIT) -> list[int]:
    """As ``predicted_runs``, but with the best run of each model and strategy before the best others.

    So a page that filters still has predictions to show.
    """
    known = predicted_runs(study, len(study.table))
    if len(known) <= limit:
        return known
    cells = study.table.loc[known, ["model", "strategy"]].drop_duplicates()
    chosen = {int(row) for row in cells.index[:limit]}
    chosen |= set([row for row in known if row not in chosen][: limit - len(chosen)])
    return [row for row in known if row in chosen]


def _of(study: Study, row: int) -> tuple[ClipSet, NDArray[np.int16]]:
    for clips in study.clip_sets:
        if row in clips.rows:
            return clips, clips.predicted[clips.rows.index(row)]
    raise KeyError(f"run {row} has no predictions")


def confusion_matrix(study: Study, row: int | None = None) -> go.Figure | None:
    """Confusions of one run, a true class a row, classes grouped by family.

    Args:
        study: From ``compare``.
        row: Row number of the run; default the best one with predictions.

    Returns:
        The figure; None where no run has predictions. Colours are shares of the true class's clips.
    """
    row = _default(study, row)
    if row is None:
        return None
    title, data = confusion_traces(study, row)
    axis = {"tickfont": {"size": 9}, "showgrid": False, "type": "category", "tickmode": "linear", "dtick": 1}
    return figure(
        data,
        title,
        height=880,
        xaxis={"title": {"text": "Predicted rudiment"}, "tickangle": -90, **axis},
        yaxis={"title": {"text": "True rudiment"}, "autorange": "reversed", **axis},
        shapes=_family_lines(),
        annotations=_family_names(),
        meta={"kind": "variants"},
    )


def confusion_traces(study: Study, row: int) -> tuple[str, list[dict[str, Any]]]:
    """Title and traces of ``confusion_matrix``."""
    clips, predicted = _of(study, row)
    place = np.array([INDEX[slug] for slug in ORDER])
    counts = np.bincount(clips.label * NUM_CLASSES + predicted, minlength=NUM_CLASSES**2)
    counts = counts.reshape(NUM_CLASSES, NUM_CLASSES)[np.ix_(place, place)]
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0)
    names = [DISPLAY[slug] for slug in ORDER]
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [rounded(line, 3) for line in shares],
        "customdata": counts.tolist(),
        "hovertemplate": "played: %{y}<br>heard: %{x}<br>%{customdata} clips, %{z:.1%} of that rudiment<extra></extra>",
        "colorscale": RARE,
        "zmin": 0,
        "zmax": 1,
        "colorbar": {"title": {"text": "Share"}, "tickformat": ".0%", "outlinewidth": 0, "thickness": 14},
    }
    return f"Confusions: {safe(study.run_labels[row])}", [heat]


def _bounds() -> list[int]:
    """First class of each family in ``ORDER``, and the end."""
    families = [FAMILIES[slug] for slug in ORDER]
    return [families.index(name) for name in FAMILY_NAMES] + [len(ORDER)]


def _family_lines() -> list[dict[str, Any]]:
    line = {"color": "#ffffff", "width": 1.5}
    edges = [bound - 0.5 for bound in _bounds()[1:-1]]
    end = len(ORDER) - 0.5
    across = [{"type": "line", "x0": -0.5, "x1": end, "y0": edge, "y1": edge, "line": line} for edge in edges]
    return across + [{"type": "line", "x0": edge, "x1": edge, "y0": -0.5, "y1": end, "line": line} for edge in edges]


def _family_names() -> list[dict[str, Any]]:
    bounds = _bounds()
    return [
        {
            "x": (start + end - 1) / 2,
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "text": name.capitalize(),
            "showarrow": False,
        }
        for name, start, end in zip(FAMILY_NAMES, bounds[:-1], bounds[1:], strict=True)
    ]


def per_class_f1(study: Study, row: int | None = None) -> go.Figure | None:
    """F1 of each rudiment in one run, grouped by family, ± one jackknife standard error over players.

    Arguments and None as ``confusion_matrix``. No error bars below ``MIN_PLAYERS`` players.
    """
    row = _default(study, row)
    if row is None:
        return None
    title, data = f1_traces(study, row)
    return figure(
        data,
        title,
        height=520,
        legend=legend_below(),
        xaxis={"tickangle": -60, "tickfont": {"size": 10}, "type": "category", "tickmode": "linear", "dtick": 1},
        yaxis={"title": {"text": "F1 (± jackknife standard error over players)"}, "range": [0, 1.08]},
        bargap=0.15,
        meta={"kind": "variants"},
    )


def f1_traces(study: Study, row: int) -> tuple[str, list[dict[str, Any]]]:
    """Title and traces of ``per_class_f1``."""
    clips, predicted = _of(study, row)
    value, error = f1_by_class(clips, predicted)
    support = np.bincount(clips.label, minlength=NUM_CLASSES)
    traces = []
    for number, family in enumerate(FAMILY_NAMES):
        slugs = [slug for slug in ORDER if FAMILIES[slug] == family]
        place = [INDEX[slug] for slug in slugs]
        bars = {"type": "data", "array": rounded(np.nan_to_num(error[place]), 3), "thickness": 1, "width": 2}
        traces.append(
            {
                "type": "bar",
                "name": family.capitalize(),
                "x": [DISPLAY[slug] for slug in slugs],
                "y": rounded(value[place], 4),
                "customdata": support[place].tolist(),
                "hovertemplate": "%{x}<br>F1 %{y:.3f}, %{customdata} test clips<extra></extra>",
                "marker": {"color": PALETTE[number]},
                "error_y": bars,
            }
        )
    return f"F1 by rudiment: {safe(study.run_labels[row])}", traces


def f1_by_class(clips: ClipSet, predicted: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 of each class and its delete-one-player jackknife standard error, both of shape (classes,).

    NaN for a class without a clip; the error is NaN below ``MIN_PLAYERS`` players.
    """
    player = clips.player if clips.player is not None else np.zeros(len(clips.label), dtype=np.int64)
    players = int(player.max()) + 1
    hit = np.zeros((players, NUM_CLASSES))
    true, said = np.zeros_like(hit), np.zeros_like(hit)
    np.add.at(hit, (player, clips.label), predicted == clips.label)
    np.add.at(true, (player, clips.label), 1)
    np.add.at(said, (player, predicted), 1)
    whole = _f1(hit.sum(0), true.sum(0), said.sum(0))
    if players < MIN_PLAYERS:
        return whole, np.full(NUM_CLASSES, np.nan)
    left = _f1(hit.sum(0) - hit, true.sum(0) - true, said.sum(0) - said)
    with np.errstate(invalid="ignore"):
        error = np.sqrt((players - 1) / players * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    return whole, error


def _f1(hit: NDArray[np.float64], true: NDArray[np.float64], said: NDArray[np.float64]) -> NDArray[np.float64]:
    below = true + said
    result: NDArray[np.float64] = np.divide(2 * hit, below, out=np.zeros_like(hit), where=below > 0)
    return np.where(true > 0, result, np.nan)


def accuracy_by_skill_tier(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Accuracy by the players' skill tier, of the best ``limit`` runs; None where it is unknown."""
    return _slices(study, "skill_tier", limit)


def accuracy_by_tempo(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Accuracy by band of tempo, of the best ``limit`` runs; None where it is unknown."""
    return _slices(study, "tempo_bpm", limit)


def accuracy_by_soundfont(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Accuracy by soundfont, of the best ``limit`` runs; None where it is unknown."""
    return _slices(study, "soundfont", limit)


def _slices(study: Study, key: str, limit: int) -> go.Figure | None:
    labels = study.run_labels
    traces: list[dict[str, Any]] = []
    order: list[int] = []
    names: dict[str, None] = {}
    for row in detail_runs(study) if limit >= DETAIL_LIMIT else predicted_runs(study, limit):
        clips, predicted = _of(study, row)
        if key not in clips.slices or len(order) >= limit:
            continue
        values = tempo_bands(clips.slices[key]) if key == "tempo_bpm" else clips.slices[key]
        levels = _level_order(key, values)
        names |= dict.fromkeys(levels)
        traces.append(_slice_trace(len(order), row, safe(labels[row]), clips, predicted, values, levels))
        order.append(row)
    if not traces:
        return None
    title = SLICE_TITLES[key]
    axis = f"{title.capitalize()} (beats per minute)" if key == "tempo_bpm" else title.capitalize()
    return figure(
        traces,
        f"Test accuracy by {title}",
        height=520,
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "font": {"size": 11}},
        xaxis={
            "title": {"text": axis},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [safe(name) for name in _level_order(key, np.array(list(names)))],
        },
        yaxis={"title": {"text": "Test accuracy (95 % interval over players)"}, "range": _range(traces)},
        scattermode="group",
        scattergap=0.5,
        meta={"kind": "traces", "limit": IMAGE_LIMIT, "order": order},
    )


def _range(traces: list[dict[str, Any]]) -> list[float]:
    """An axis just wide enough for every interval: grouped marks would draw it down to 0."""
    lows = [
        y - e
        for trace in traces
        for y, e in zip(trace["y"], trace["error_y"]["arrayminus"], strict=True)
        if y is not None
    ]
    highs = [
        y + e for trace in traces for y, e in zip(trace["y"], trace["error_y"]["array"], strict=True) if y is not None
    ]
    return [max(min(lows, default=0.0) - 0.03, -0.02), min(max(highs, default=1.0) + 0.03, 1.02)]


def _slice_trace(
    number: int,
    row: int,
    label: str,
    clips: ClipSet,
    predicted: NDArray[np.int16],
    values: NDArray[Any],
    levels: list[str],
) -> dict[str, Any]:
    right = (predicted == clips.label)[None, :]
    accuracy, above, below, words = [], [], [], []
    for level in levels:
        mask = values == level
        mean, low, high, players = _slice_interval(clips, right, mask)
        accuracy.append(mean)
        above.append(high - mean if high == high else 0.0)
        below.append(mean - low if low == low else 0.0)
        note = "" if low == low else " (no interval)"
        words.append(f"{int(mask.sum()):,} clips, {players} players{note}")
    colour = PALETTE[number % len(PALETTE)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label,
        "x": [safe(level) for level in levels],
        "y": rounded(accuracy),
        "text": words,
        "hovertemplate": label + "<br>%{x}: %{y:.4f}<br>%{text}<extra></extra>",
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": rounded(above),
            "arrayminus": rounded(below),
            "width": 0,
            "thickness": 1.4,
        },
        "marker": {"color": colour, "size": 9, "symbol": SYMBOLS[number % len(SYMBOLS)]},
        "meta": {"run": row},
    }


def _slice_interval(
    clips: ClipSet, right: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> tuple[float, float, float, int]:
    """Accuracy, interval and number of players of the clips in ``mask``; NaN ends where there is no interval."""
    mean = float(right[:, mask].mean()) if mask.any() else float("nan")
    if clips.player is None or not mask.any():
        return mean, float("nan"), float("nan"), 0
    sizes = np.bincount(clips.player[mask], minlength=len(clips.players)).astype(float)
    there = sizes > 0
    interval = accuracy_interval(clips.totals(right, mask)[:, there], sizes[there])
    return mean, float(interval.low[0]), float(interval.high[0]), int(there.sum())


def tempo_bands(tempo: NDArray[Any]) -> NDArray[Any]:
    """Names of the tempo bands: ``under 80``, ``80–99``, …, ``160 and over``; ``unknown`` for what is no number."""
    names = ["under 80", "80–99", "100–119", "120–139", "140–159", "160 and over"]
    tempo = np.asarray(tempo, dtype=float)
    known = np.isfinite(tempo)
    bands = np.full(len(tempo), "unknown", dtype=object)
    bands[known] = np.array(names, dtype=object)[
        np.clip(np.digitize(tempo[known], TEMPO_EDGES[1:-1]), 0, len(names) - 1)
    ]
    return bands


def _level_order(key: str, values: NDArray[Any]) -> list[str]:
    """Levels in their natural order: tiers by skill, bands by tempo, soundfonts by name."""
    there = {str(value) for value in values}
    if key == "tempo_bpm":
        natural = ["under 80", "80–99", "100–119", "120–139", "140–159", "160 and over", "unknown"]
    else:
        natural = list(TIERS) if key == "skill_tier" else []
    return [name for name in natural if name in there] + sorted(there - set(natural))


def _default(study: Study, row: int | None) -> int | None:
    return row if row is not None else next(iter(predicted_runs(study, 1)), None)
