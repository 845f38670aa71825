"""An evaluation's table by class and its confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.plots import Plot, confusion_matrix
from sousa_bench.analysis.plots.details import f1_by_class
from sousa_bench.analysis.plots.style import safe
from sousa_bench.analysis.report.images import write_images
from sousa_bench.analysis.stats.class_order import confusions
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import RESULT_FILE

PER_CLASS_FILE = "per_class.csv"
CONFUSION = "confusion"


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
        mistaken for) and ``taken_for_clips``.
    """
    [clips] = study.clip_sets
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
                task.noun: name,
                "name": task.display(name),
                "family": task.families.get(name),
                "clips": scores[name]["support"],
                **{key: scores[name][key] for key in ("precision", "recall", "f1")},
                "f1_error": error if not math.isnan(error) else None,
                "taken_for": task.classes[most] if wrong[most] else None,
                "taken_for_clips": int(wrong[most]),
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(folder / PER_CLASS_FILE, index=False, float_format="%.6f")
    return table


def draw(folder: Path, study: Study, title: str, images: bool) -> str:
    """Write ``confusion.html``, which needs no network, and ``confusion.png``.

    Returns:
        Why there is no PNG file; empty where there is, or none was wanted.
    """
    figure = confusion_matrix(study)
    assert figure is not None, "an evaluation always has predictions"
    figure.update_layout(title={"text": safe(title)})
    figure.write_html(folder / f"{CONFUSION}.html", include_plotlyjs=True)
    return write_images([Plot(CONFUSION, "", figure, "")], folder) if images else ""
