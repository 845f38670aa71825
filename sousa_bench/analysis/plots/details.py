"""Figures of single runs' predictions: confusions, F1 of each class, accuracy by slice of the test clips."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.plots.style import (
    LEGEND_BELOW,
    PALETTE,
    RARE,
    SYMBOLS,
    accuracy_axis,
    deviation,
    dots,
    figure,
    heatmap,
    interval,
    rounded,
    run_colours,
    safe,
)
from sousa_bench.analysis.stats.class_order import confusions
from sousa_bench.analysis.stats.intervals import MIN_PLAYERS, accuracy_interval
from sousa_bench.analysis.study import Study
from sousa_bench.task import Task

DETAIL_LIMIT = 24
IMAGE_LIMIT = 5
CONFUSION_AXIS = {"tickfont": {"size": 9}, "showgrid": False, "type": "category", "tickmode": "linear", "dtick": 1}
CONFUSION_EDGE, CLASS_HEIGHT, MOST_HEIGHT = 240, 16, 1600  # pixels, of the labels, of a class, of all
MOST_CLASSES = 1000  # of a confusion matrix
F1_LABELS = 80
PAGE_CELLS = 1_000_000  # of all confusion matrices in the page
TEMPO_EDGES = (80, 100, 120, 140, 160)
TEMPO_BANDS = ("under 80", "80–99", "100–119", "120–139", "140–159", "160 and over", "unknown")
TIERS = ("novice", "beginner", "intermediate", "advanced", "professional", "expert")


def predicted_runs(study: Study, limit: int = DETAIL_LIMIT) -> list[int]:
    """Rows of the best runs whose predictions were read, best first; none where a clip may have several labels."""
    known = {row for clips in study.clip_sets for row in clips.rows if not clips.task.several}
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


def variant_runs(study: Study) -> list[int]:
    """As ``detail_runs``, of the runs whose confusions the page holds: fewer where there are many classes."""
    classes = max((len(clips.task.classes) for clips in study.clip_sets), default=1)
    return detail_runs(study, min(max(PAGE_CELLS // classes**2, 1), DETAIL_LIMIT))


def _predictions(study: Study, row: int) -> tuple[ClipSet, NDArray[np.int16]]:
    for clips in study.clip_sets:
        if row in clips.rows:
            return clips, clips.predicted[clips.rows.index(row)]
    raise KeyError(f"run {row} has no predictions")


def confusion_matrix(study: Study, row: int | None = None) -> go.Figure | None:
    """Confusions of one run, a true class a row, in the order of ``ClipSet.order``.

    Args:
        study: From ``compare``.
        row: Row number of the run; default the best one with predictions.

    Returns:
        The figure; None where no run has predictions, or there are more than ``MOST_CLASSES`` classes. Colours are
        shares of the true class's clips.
    """
    rows = [row] if row is not None else predicted_runs(study, 1)
    if not rows or len(_predictions(study, rows[0])[0].task.classes) > MOST_CLASSES:
        return None
    title, data = confusion_traces(study, rows[0])
    task = _predictions(study, rows[0])[0].task
    height = min(CONFUSION_EDGE + CLASS_HEIGHT * len(task.classes), MOST_HEIGHT)
    axis = {**CONFUSION_AXIS, "dtick": _every(task, (MOST_HEIGHT - CONFUSION_EDGE) // CLASS_HEIGHT)}
    noun = safe(task.noun)
    return figure(
        data,
        title,
        {"kind": "variants"},
        height=height,
        xaxis={"title": {"text": f"Predicted {noun}"}, "tickangle": -90, **axis},
        yaxis={"title": {"text": f"True {noun}"}, "autorange": "reversed", **axis},
        shapes=_family_lines(task),
        annotations=_family_names(task),
    )


def confusion_traces(study: Study, row: int) -> tuple[str, list[dict[str, Any]]]:
    """Title and traces of ``confusion_matrix``."""
    clips, predicted = _predictions(study, row)
    task = clips.task
    counts = confusions(clips.label, predicted, len(clips.order))[np.ix_(clips.order, clips.order)]
    sums = counts.sum(axis=1, keepdims=True)
    names = [safe(task.display(task.classes[number])) for number in clips.order]
    heat = heatmap(
        names,
        names,
        np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0),
        "played: %{y}<br>heard: %{x}<br>%{customdata} clips, %{z:.1%} of that " + safe(task.noun),
        "Share",
        (0, 1),
        customdata=counts.tolist(),
        colorscale=RARE,
        colorbar={"tickformat": ".0%"},
    )
    return f"Confusions: {safe(study.run_labels[row])}", [heat]


def _every(task: Task, labels: int) -> int:
    """Every how many classes an axis that has room for ``labels`` names one."""
    return -(-len(task.classes) // labels)


def _family_bounds(task: Task) -> list[int]:
    """First class of each family in the task's order, and the end."""
    families = [task.families[name] for name in task.order if task.families]
    return [families.index(name) for name in task.family_names] + [len(families)]


def _family_lines(task: Task) -> list[dict[str, Any]]:
    line = {"type": "line", "line": {"color": "#ffffff", "width": 1.5}}
    ends = {0: -0.5, 1: len(task.order) - 0.5}
    return [
        {**line, **{f"{along}{end}": value for end, value in ends.items()}, f"{across}0": edge, f"{across}1": edge}
        for along, across in ("xy", "yx")
        for edge in (bound - 0.5 for bound in _family_bounds(task)[1:-1])
    ]


def _family_names(task: Task) -> list[dict[str, Any]]:
    usual = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    return [
        {**usual, "x": (start + end - 1) / 2, "text": safe(name.capitalize())}
        for name, (start, end) in zip(task.family_names, itertools.pairwise(_family_bounds(task)), strict=True)
    ]


def per_class_f1(study: Study, row: int | None = None) -> go.Figure | None:
    """F1 of each class in one run, ordered as its confusions, ± one jackknife standard error over players.

    Arguments and None as ``confusion_matrix``. No error bars below ``MIN_PLAYERS`` players.
    """
    rows = [row] if row is not None else predicted_runs(study, 1)
    if not rows:
        return None
    title, data = f1_traces(study, rows[0])
    clips, _ = _predictions(study, rows[0])
    groups = safe(clips.task.groups)
    classes = {"type": "category", "tickmode": "linear", "dtick": _every(clips.task, F1_LABELS)}
    return figure(
        data,
        title,
        {"kind": "variants"},
        height=520,
        xaxis={"tickangle": -60, "tickfont": {"size": 10}, **classes},
        yaxis={"title": {"text": f"F1 (± jackknife standard error over {groups})"}, "range": [0, 1.08]},
        bargap=0.15,
    )


def f1_traces(study: Study, row: int) -> tuple[str, list[dict[str, Any]]]:
    """Title and traces of ``per_class_f1``."""
    clips, predicted = _predictions(study, row)
    value, error = f1_by_class(clips, predicted)
    task = clips.task
    support = np.bincount(clips.label, minlength=len(task.classes))
    traces = []
    for number, family in enumerate(task.family_names or ("",)):
        place = [number for number in clips.order if task.families.get(task.classes[number], "") == family]
        traces.append(
            {
                "type": "bar",
                "name": safe(family.capitalize()),
                "x": [safe(task.display(task.classes[number])) for number in place],
                "y": rounded(value[place], 4),
                "customdata": support[place].tolist(),
                "hovertemplate": "%{x}<br>F1 %{y:.3f}, %{customdata} test clips<extra></extra>",
                "marker": {"color": PALETTE[number % len(PALETTE)]},
                "error_y": deviation(error[place]),
            }
        )
    return f"F1 by {safe(task.noun)}: {safe(study.run_labels[row])}", traces


def per_class_average_precision(study: Study) -> go.Figure | None:
    """Average precision of each class in the best run whose clips may have several labels; None where there is none."""
    rows = [int(row) for row in study.done.index if study.results.tasks[row].several][:1]
    if not rows:
        return None
    task, found = study.results.tasks[rows[0]], study.table.loc[rows[0]]
    values = np.array([found.get(f"per_class.{name}.average_precision", np.nan) for name in task.order], dtype=float)
    counts = [found.get(f"per_class.{name}.support", 0) for name in task.order]
    bars = {
        "type": "bar",
        "x": [safe(task.display(name)) for name in task.order],
        "y": rounded(values, 4),
        "customdata": counts,
        "hovertemplate": "%{x}<br>average precision %{y:.3f}, %{customdata} test clips<extra></extra>",
        "marker": {"color": PALETTE[0]},
    }
    classes = {"type": "category", "tickmode": "linear", "dtick": _every(task, F1_LABELS)}
    return figure(
        [bars],
        f"Average precision by {safe(task.noun)}: {safe(study.run_labels[rows[0]])}",
        {"kind": "static"},
        height=520,
        xaxis={"tickangle": -60, "tickfont": {"size": 10}, **classes},
        yaxis={"title": {"text": "Average precision"}, "range": [0, 1.08]},
        bargap=0.15,
    )


def f1_by_class(clips: ClipSet, predicted: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 of each class and its delete-one-player jackknife standard error, both of shape (classes,).

    NaN for a class without a clip; the error is NaN below ``MIN_PLAYERS`` players.
    """
    player = clips.player if clips.player is not None else np.zeros(len(clips.label), dtype=np.int64)
    players = int(player.max()) + 1
    hit = np.zeros((players, len(clips.task.classes)))
    true, said = np.zeros_like(hit), np.zeros_like(hit)
    np.add.at(hit, (player, clips.label), predicted == clips.label)
    np.add.at(true, (player, clips.label), 1)
    np.add.at(said, (player, predicted), 1)
    whole = _f1(hit.sum(0), true.sum(0), said.sum(0))
    if players < MIN_PLAYERS:
        return whole, np.full_like(whole, np.nan)
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
    return _slices(study, "skill_tier", "skill tier", "Skill tier", TIERS, limit)


def accuracy_by_tempo(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Accuracy by band of tempo, of the best ``limit`` runs; None where it is unknown."""
    return _slices(study, "tempo_bpm", "tempo band", "Tempo band (beats per minute)", TEMPO_BANDS, limit)


def accuracy_by_soundfont(study: Study, limit: int = IMAGE_LIMIT) -> go.Figure | None:
    """Accuracy by soundfont, of the best ``limit`` runs; None where it is unknown."""
    return _slices(study, "soundfont", "soundfont", "Soundfont", (), limit)


def _slices(study: Study, key: str, title: str, axis: str, order: Sequence[str], limit: int) -> go.Figure | None:
    """Accuracy in slices of the test clips.

    Args:
        study: From ``compare``.
        key: What cuts the clips: a key of ``ClipSet.slices``.
        title: What it is called in the figure's title.
        axis: And at the axis.
        order: The names of slices in their natural order; others follow by name.
        limit: Number of runs.
    """
    rows = detail_runs(study) if limit >= DETAIL_LIMIT else predicted_runs(study, limit)
    there = [(row, *_predictions(study, row)) for row in rows]
    there = [(row, clips, predicted) for row, clips, predicted in there if key in clips.slices][:limit]
    if not there:
        return None
    traces, found, ends = [], set(), []
    styles = run_colours(study.table, [row for row, _, _ in there])
    for row, clips, predicted in there:
        colour, number = styles[row]
        label = safe(study.run_labels[row])
        values = tempo_bands(clips.slices[key]) if key == "tempo_bpm" else clips.slices[key]
        names = _in_order(values, order)
        value, low, high, texts = _slice_accuracies(clips, predicted, [values == name for name in names])
        found |= set(names)
        ends += [value, low, high]
        traces.append(
            dots(
                label,
                [safe(name) for name in names],
                rounded(value),
                label + "<br>%{x}: %{y:.4f}<br>%{text}",
                text=texts,
                error_y=interval(value, low, high),
                marker={"color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)]},
                meta={"run": row},
            )
        )
    names = [safe(name) for name in _in_order(found, order)]
    # Just wide enough for every interval: grouped marks would draw the axis down to 0.
    least, most = np.nanmin(np.concatenate(ends)), np.nanmax(np.concatenate(ends))
    return figure(
        traces,
        f"Test accuracy by {title}",
        {"kind": "traces", "limit": IMAGE_LIMIT, "order": [row for row, _, _ in there]},
        height=520,
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": axis}, "type": "category", "categoryorder": "array", "categoryarray": names},
        yaxis={
            "title": {"text": accuracy_axis(study.task)},
            "range": [max(least - 0.03, -0.02), min(most + 0.03, 1.02)],
        },
        scattermode="group",
        scattergap=0.5,
    )


def _slice_accuracies(
    clips: ClipSet, predicted: NDArray[np.int16], masks: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Accuracy, the ends of its interval (NaN where there is none) and a description of each slice of the clips."""
    right = (predicted == clips.label)[None, :]
    made = np.full((3, len(masks)), np.nan)
    texts = []
    for number, mask in enumerate(masks):
        made[0, number] = right[:, mask].mean()
        players = 0
        if clips.player is not None:
            sizes = np.bincount(clips.player[mask], minlength=len(clips.players)).astype(float)
            there = sizes > 0
            players = int(there.sum())
            ends = accuracy_interval(clips.totals(right, mask)[:, there], sizes[there])
            made[1:, number] = ends.low[0], ends.high[0]
        note = " (no interval)" if np.isnan(made[1, number]) else ""
        texts.append(safe(clips.task.extent(f"{int(mask.sum()):,}", players)) + note)
    return made[0], made[1], made[2], texts


def tempo_bands(tempo: NDArray[Any]) -> NDArray[Any]:
    """Names of the tempo bands: ``under 80``, ``80–99``, …, ``160 and over``; ``unknown`` for what is no number."""
    tempo = np.asarray(tempo, dtype=float)
    bands = np.where(np.isfinite(tempo), np.digitize(tempo, TEMPO_EDGES), len(TEMPO_BANDS) - 1)
    return np.array(TEMPO_BANDS, dtype=object)[bands]


def _in_order(values: Iterable[Any], order: Sequence[str]) -> list[str]:
    """The different values, those of ``order`` first."""
    there = {str(value) for value in values}
    return [name for name in order if name in there] + sorted(there.difference(order))
