"""An evaluation's table by class and its figure: confusions, or of several labels a clip average precisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.clip_sets import ClipSet
from sousa_bench.analysis.plots import Plot, confusion_matrix, per_class_average_precision
from sousa_bench.analysis.plots.details import f1_by_class
from sousa_bench.analysis.plots.style import safe
from sousa_bench.analysis.report.images import write_images
from sousa_bench.analysis.stats.class_order import confusions
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import RESULT_FILE
from sousa_bench.task import Task

PER_CLASS_FILE = "per_class.csv"


def figure_name(task: Task) -> str:
    """Name of the figure's files."""
    return "average_precision" if task.several else "confusion"


def read_back(folder: Path) -> Study:
    """An evaluation as the analysis reads it."""
    return compare(collect([folder / RESULT_FILE]))


def write_table(folder: Path, study: Study, scores: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Write ``per_class.csv``: a row a class, family by family.

    Args:
        folder: Of the evaluation.
        study: From :func:`read_back`.
        scores: Precision, recall, F1 and support by class.

    Returns:
        The table: the class under the task's ``noun``, ``name``, ``family``, ``clips``, ``precision``, ``recall``,
        ``f1``, ``f1_error`` (a jackknife standard error over groups), ``taken_for`` (the class it is most often
        mistaken for) and ``taken_for_clips``. Where a clip may have several labels: ``average_precision`` in place of
        all that follows ``clips``.
    """
    [clips] = study.clip_sets
    task = clips.task
    if task.several:
        table = pd.DataFrame([_named(task, name, scores[name]) for name in task.order])
    else:
        table = _mistakes(clips, scores)
    table.to_csv(folder / PER_CLASS_FILE, index=False, float_format="%.6f")
    return table


def _named(task: Task, name: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """A row: what the class is called, its clips and its metrics."""
    metrics = {key: value for key, value in scores.items() if key != "support"}
    names = {task.noun: name, "name": task.display(name), "family": task.families.get(name)}
    return {**names, "clips": scores["support"], **metrics}


def _mistakes(clips: ClipSet, scores: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    _, errors = f1_by_class(clips, clips.predicted[0])
    task = clips.task
    counts = confusions(clips.label, clips.predicted[0], len(task.classes))
    rows = []
    for name in task.order:
        number = task.classes.index(name)
        wrong = counts[number].copy()
        wrong[number] = 0
        most = int(wrong.argmax())
        error = float(errors[number])
        rows.append(
            {
                **_named(task, name, scores[name]),
                "f1_error": error if not math.isnan(error) else None,
                "taken_for": task.classes[most] if wrong[most] else None,
                "taken_for_clips": int(wrong[most]),
            }
        )
    return pd.DataFrame(rows)


def draw(folder: Path, study: Study, title: str, images: bool) -> str:
    """Write the figure as an HTML page, which needs no network, and as a PNG file.

    Returns:
        Why there is no PNG file; empty where there is, or none was wanted.
    """
    name = figure_name(study.task)
    figure = per_class_average_precision(study) if study.task.several else confusion_matrix(study)
    assert figure is not None, "an evaluation always has predictions"
    figure.update_layout(title={"text": safe(title)})
    figure.write_html(folder / f"{name}.html", include_plotlyjs=True)
    return write_images([Plot(name, "", figure, "")], folder) if images else ""
