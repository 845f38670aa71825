"""What is said of a trained model wherever it is handed on: its weights, and how it did on the test clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import (
    UNREADABLE,
    clip_names,
    group_names,
    logits_of,
    read_columns,
    true_labels,
)
from sousa_bench.analysis.stats.average_precision import blocks, precision_interval
from sousa_bench.analysis.stats.intervals import LEVEL, accuracy_interval, why_no_interval
from sousa_bench.results.finished import FinishedRun
from sousa_bench.results.result import PREDICTIONS_FILE, is_refit
from sousa_bench.system.foreign import is_share
from sousa_bench.task import CLIP, Task, counted

LONGEST = 120
"""Characters of what a foreign file says of its weights."""
BEFORE_REFIT = "before_refit"
"""The key that marks a package's metrics as those of the runs that a refit comes from."""


def about_model(run: FinishedRun | None, description: Mapping[str, Any], task: Task) -> str:
    """Which weights a model came from and its test score, in one line.

    Args:
        run: The run; None of a package or of a model before any training.
        description: What a package says of itself, or the description beside a run's weights; a package's may be
            foreign: what it doesn't say, or says oddly, is left out.
        task: What the model answers.
    """
    metrics = description.get("metrics") if run is None else tested_metrics(run, task)
    own = "weights" not in description and "base_weights" not in description
    weights = description if own else description.get("base_weights", description.get("weights"))
    what = "Weights" if own else "Base weights"
    return " ".join(filter(None, (f"{what}: {_weights_text(weights)}.", _score_text(metrics, task))))


def _weights_text(weights: Any) -> str:
    if not isinstance(weights, Mapping):
        return "not known"
    kind, origin = (str(weights.get(key))[:LONGEST] for key in ("kind", "origin"))
    return f"{kind} ({origin})"


def _score_text(metrics: Any, task: Task) -> str:
    if not isinstance(metrics, Mapping):
        return ""
    key = f"test_{task.metric}"
    value, ends = metrics.get(key), metrics.get(f"{key}_interval")
    if not is_share(value):
        return ""
    text = f"Test {task.score} {_score(value, task)}"
    if isinstance(ends, list) and len(ends) == 2 and all(map(is_share, ends)):
        text += f" ({100 * LEVEL:g} % interval {_score(ends[0], task)} to {_score(ends[1], task)})"
    if metrics.get(BEFORE_REFIT):
        return f"{text} before it was trained again on more clips."
    clips, groups = metrics.get("test_clips"), metrics.get(f"test_{task.groups_key}")
    if isinstance(clips, int):
        many = f" of {counted(groups, task.group)}" if task.grouped and isinstance(groups, int) else ""
        text += f", {counted(clips, CLIP)}{many}"
    return f"{text}."


def _score(value: Any, task: Task) -> str:
    return f"{value:.3f}" if task.several else f"{100 * value:.1f} %"


def tested_metrics(run: FinishedRun, task: Task) -> dict[str, Any]:
    """A run's metrics, with 95 % intervals of its test score by group, clips and groups where there are predictions.

    Args:
        run: The run.
        task: Its task.
    """
    before_refit = {BEFORE_REFIT: True} if is_refit(run.result) else {}
    return {**run.result["metrics"], **before_refit, **_intervals(run, task)}


def _intervals(run: FinishedRun, task: Task) -> dict[str, Any]:
    """Nothing where there are no predictions, or what lies in their place can't be read."""
    try:
        content = read_columns(run.folder, PREDICTIONS_FILE, "logits")
        logits, labels = logits_of(content, task), true_labels(content, task)
        group = group_names(content) if task.grouped else blocks(clip_names(content))
    except UNREADABLE:
        return {}
    names, of = np.unique([""] if group is None else group, return_inverse=True)
    groups = {} if group is None else {f"test_{task.groups_key}": len(names)}
    made: dict[str, Any] = {"test_clips": len(labels), **groups}
    reason = why_no_interval(len(names), task, group is not None)
    if reason or group is None:
        return {**made, "no_interval": reason}
    if task.several:
        ends = precision_interval(logits, labels, group)
        return {**made, "test_map_interval": [round(end, 6) for end in ends], "interval_level": LEVEL}
    clips = np.bincount(of).astype(np.float64)
    for name, right in {"test_acc": 1, "test_top5_acc": 5}.items():
        totals = np.bincount(of, weights=_right(logits, labels, right)).astype(np.float64)
        found = accuracy_interval(totals[None], clips)
        made[f"{name}_interval"] = [round(float(found.low[0]), 6), round(float(found.high[0]), 6)]
    return {**made, "interval_level": LEVEL}


def _right(logits: NDArray[np.float32], labels: NDArray[Any], top: int) -> NDArray[np.bool_]:
    best = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    right: NDArray[np.bool_] = (best == labels[:, None]).any(axis=1)
    return right
