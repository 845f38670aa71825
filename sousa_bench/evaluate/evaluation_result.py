"""An evaluation's ``result.json``: the fixed block of a run's, with the metrics of the evaluated clips."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.stats.average_precision import blocks, precision_interval
from sousa_bench.analysis.stats.intervals import LEVEL, accuracy_interval, why_no_interval
from sousa_bench.config.identity import IRRELEVANT
from sousa_bench.errors import ConfigError
from sousa_bench.results.confidence import Confidence, counted_answers
from sousa_bench.results.metrics import calibrated, metrics_of, own_metrics, per_class, ranking, split_metrics
from sousa_bench.results.predictions import outcome_warnings
from sousa_bench.results.result import EFFICIENCY_KEYS, EVALUATED, PREDICTIONS_FILE, SCHEMA_VERSION, is_refit
from sousa_bench.system.commit import git_commit
from sousa_bench.task import Task
from sousa_bench.training.hardware import environment
from sousa_bench.training.outcome import given_answers
from sousa_bench.training.seen_before import met_before

if TYPE_CHECKING:
    from sousa_bench.evaluate.evaluation import Evaluation

KEPT = ("weights", "network", "parameters", "peft", "lineage", "declared_metrics")
"""Blocks of the run's result that are as true of its evaluation."""


def evaluation_result(evaluation: Evaluation, arguments: Sequence[str]) -> dict[str, Any]:
    """The result file's content.

    Args:
        evaluation: With its logits.
        arguments: The command's.
    """
    run, data, now = evaluation.run, evaluation.data, datetime.now()
    own, config = run.result, run.config
    logits, labels, groups = evaluation.logits, evaluation.clips.labels, evaluation.clips.table["group"]
    compared = own_test(evaluation)
    met, met_warnings = met_before(run, data)
    random_weights = (own.get("weights") or {}).get("kind") == "random"
    confidence = Confidence.of(own, run.folder)
    temperature = own["metrics"].get("temperature")  # results by earlier versions have none
    tested = confidence and counted_answers(given_answers(logits, labels, data.task), confidence.threshold)
    metrics, metric_warnings = metrics_of(data.task), []
    try:
        metrics = (*metrics, *own_metrics(config.get("metrics")))
    except ConfigError as error:
        metric_warnings = [f"the run's own metrics are left out: {error}"]
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment_id": f"{evaluation.name}_{now:%Y%m%d_%H%M%S}",
        # The run's flat config; two keys more keep evaluations apart.
        "config": {
            **own["config"],
            "data": data.name,
            "trained_on": own["config"]["data"],
            "evaluated_split": data.split,
        },
        "metrics": {
            **{key: value for key, value in own["metrics"].items() if not key.startswith("test_")},
            **split_metrics("test", logits, labels, metrics),
            **(calibrated(logits, labels, temperature) if temperature else {}),
        },
        **({"confidence": own["confidence"] | {"test": tested}} if confidence else {}),
        "efficiency": {
            **{key: own["efficiency"].get(key) for key in EFFICIENCY_KEYS},
            "evaluation_seconds": evaluation.seconds,
            "evaluation_clips_per_second": len(labels) / max(evaluation.seconds, 1e-9),
        },
        "status": "completed",
        "error": None,
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}",
        "git_commit": git_commit(),
        "fingerprint": evaluation.fingerprint,
        EVALUATED: run.name,
        "evaluation": {
            "run_folder": str(run.folder),
            "run_fingerprint": own.get("fingerprint"),
            "split": data.split,
            "precision": evaluation.precision,
            **intervals(evaluation),
            "own_test": compared,
            "met_before": met,
        },
        "resolved_config": {
            **config,
            "data": dict(evaluation.node),
            "trained_data": {key: value for key, value in config["data"].items() if f"data.{key}" not in IRRELEVANT},
        },
        "overrides": [],
        "environment": environment(evaluation.accelerator, evaluation.precision),
        "warnings": [
            *data.warnings,
            *met_warnings,
            *metric_warnings,
            *_numeric_warnings(evaluation, compared),
            *outcome_warnings(
                logits.numpy(),
                labels.numpy(),
                data.task,
                groups,
                partial=False,
                random_weights=random_weights,
                split=data.split,
            ),
        ],
        "task": data.task.as_dict(),
        "data": data.describe(),
        **{key: own[key] for key in KEPT if key in own},
        "per_class": per_class(logits, labels, data.task),
        "files": {"predictions": PREDICTIONS_FILE},
        "command": shlex.join(["python", "-m", "sousa_bench.evaluate", *arguments]),
    }


def intervals(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """``accuracy_interval`` and ``top5_interval``; ``map_interval`` where a clip may have several labels."""
    task, logits, labels = evaluation.data.task, evaluation.logits, evaluation.clips.labels
    groups = evaluation.clips.table["group"]
    if not task.grouped:
        groups = pd.Series(blocks(evaluation.clips.table["sample_id"].to_numpy(str)))
    if task.several:
        ends = precision_interval(logits.numpy(), labels.numpy() > 0, groups.to_numpy(str))
        return {"map_interval": _interval(*ends, groups.nunique(), task)}
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return {
        "accuracy_interval": interval((logits.argmax(dim=1) == labels).numpy(), groups, task),
        "top5_interval": interval((top == labels[:, None]).any(dim=1).numpy(), groups, task),
    }


def interval(values: np.ndarray, groups: pd.Series, task: Task) -> dict[str, Any]:
    """Confidence interval of a share of clips, clustered by group; see `sousa_bench.analysis.stats.intervals`.

    Args:
        values: (clips,) bool: what counts.
        groups: (clips,) names.
        task: Says what the groups are called.

    Returns:
        ``low`` and ``high`` (None where there is no interval, and ``note`` says why), ``level``, and the number of
        groups under the task's ``groups_key``.
    """
    codes, names = pd.factorize(groups)
    totals = np.bincount(codes, weights=values).astype(float)[None, :]
    found = accuracy_interval(totals, np.bincount(codes).astype(float))
    return _interval(float(found.low[0]), float(found.high[0]), len(names), task)


def _interval(low: float, high: float, groups: int, task: Task) -> dict[str, Any]:
    note = why_no_interval(groups, task)
    return {
        "low": None if note else low,
        "high": None if note else high,
        "level": LEVEL,
        task.groups_key: groups,
        "note": note or None,
    }


def own_test(evaluation: Evaluation) -> dict[str, Any]:
    """How this compares with the run's own test, where the clips are the same.

    Returns:
        ``same_clips``, None where it can't be told; and where they are, or have the same names and labels at least,
        ``test_acc`` of the run (``test_map`` where a clip may have several labels) and ``changed``: clips with another
        prediction (other classes of a probability above 0.5), None where the run's predictions are gone.
    """
    own = evaluation.run.result
    file = evaluation.run.folder / PREDICTIONS_FILE
    known = None if is_refit(own) else (own.get("data") or {}).get("test_fingerprint")
    changed = None
    if file.is_file():
        task = evaluation.data.task
        theirs = pd.read_parquet(file, columns=["sample_id", "label", "logits" if task.several else "predicted"])
        mine = evaluation.clips.table[["sample_id", "label"]]
        if task.several:
            mine = mine.assign(label=mine["label"].map(tuple), now=_above_half(evaluation.logits.numpy()))
            said = _above_half(np.stack(theirs["logits"].tolist()))
            theirs = theirs.assign(label=theirs["label"].map(tuple), predicted=said)
        else:
            mine = mine.assign(now=evaluation.logits.argmax(dim=1).numpy())
        both = theirs.merge(mine, on=["sample_id", "label"])
        named: bool | None = len(both) == len(theirs) == len(mine)
        changed = int((both["predicted"] != both["now"]).sum())
        # A name says nothing of the sound: a copy with noise has the same. Files that were converted differ, too.
        same = None if named and known not in (None, evaluation.data.test_fingerprint) else named
    else:
        same = named = None if known is None else known == evaluation.data.test_fingerprint
    if not named:
        return {"same_clips": same}
    key = ranking(own["metrics"], "test")
    return {"same_clips": same, key: own["metrics"][key], "changed": changed}


def _above_half(logits: np.ndarray) -> pd.Series:
    """Of each clip the classes of a probability above 0.5, several labels a clip."""
    return pd.Series([tuple(np.flatnonzero(row > 0)) for row in logits], dtype=object)


def _numeric_warnings(evaluation: Evaluation, compared: Mapping[str, Any]) -> list[str]:
    """Say where the numbers can't be those of the run's own test, though the clips are."""
    theirs = evaluation.run.result.get("environment") or {}
    then = (theirs.get("accelerator"), theirs.get("precision"))
    now = (evaluation.accelerator, evaluation.precision)
    if not compared["same_clips"] or then == now or None in then:
        return []
    changed = compared["changed"]
    differ = "how many predictions differ can't be told" if changed is None else f"{changed} predictions differ"
    return [
        f"the run's own test was computed in {then[1]} on the {then[0]}, this in {now[1]} on the {now[0]}: {differ}"
    ]
