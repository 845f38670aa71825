"""What ``config.json`` says of a package: model, labels, preprocessing, metrics, where all of it came from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pandas as pd

import sousa_bench
from sousa_bench.analysis.stats.average_precision import blocks, precision_interval
from sousa_bench.analysis.stats.intervals import LEVEL, accuracy_interval, why_no_interval
from sousa_bench.data.decode import SHORTEST, SILENCE
from sousa_bench.data.saved_task import is_sousa, saved_task
from sousa_bench.export.onnx_graph import INPUT, OPSET, OUTPUT
from sousa_bench.inference.answer import LIKELY
from sousa_bench.inference.predictor import PACKAGE_FORMAT, PACKAGE_KEY, Predictor
from sousa_bench.inference.strokes import CONTRAST, FALL, FLOOR, HIGH_PASS, RISE, SETTLE, STEP
from sousa_bench.results.finished import FinishedRun
from sousa_bench.results.result import PREDICTIONS_FILE
from sousa_bench.task import CLIP, Task, counted

GRAPH_FILE = "model.onnx"
DATA_KEYS = (
    "name",
    "source",
    "fingerprint",
    "test_fingerprint",
    "counts",
    "players",
    "groups",
    "classes",
    "fold",
    "filters",
)
RUN_KEYS = ("experiment_id", "fingerprint", "git_commit", "timestamp", "command", "warnings", "lineage")


def package_config(predictor: Predictor, run: FinishedRun, command: str) -> dict[str, Any]:
    """All of ``config.json`` but the check.

    Args:
        predictor: The run's.
        run: The run.
        command: The command line of the export.
    """
    result = run.result
    return {
        PACKAGE_KEY: PACKAGE_FORMAT,
        "sousa_bench": sousa_bench.__version__,
        "model": model_node(predictor),
        "labels": predictor.labels,
        "task": predictor.task.as_dict(),
        "preprocessing": preprocessing(predictor),
        "listening": listening(predictor.task),
        "onnx": {"file": GRAPH_FILE, "opset": OPSET, "input": INPUT, "output": OUTPUT},
        "metrics": {**result["metrics"], **intervals(run, predictor.task)},
        "data": {key: value for key, value in (result.get("data") or {}).items() if key in DATA_KEYS},
        "base_weights": predictor.description["weights"],
        "training": {**result["config"], "parameters": result.get("parameters")},
        "run": {key: result[key] for key in RUN_KEYS if result.get(key) is not None},
        "environment": {key: value for key, value in (result.get("environment") or {}).items() if key != "hostname"},
        "command": command,
    }


def model_node(predictor: Predictor) -> dict[str, Any]:
    """The model's config, from which an empty model of the same shape is built: its variant said, no base weights."""
    node = dict(predictor.description["model"])
    variant = predictor.model.variant
    numbers = {variant: dict(node["variants"][variant])}
    return {**node, "variant": variant, "variants": numbers, "weights": "random", "checkpoint": None}


def preprocessing(predictor: Predictor) -> dict[str, Any]:
    """What a waveform must be, and what the graph does with it by itself."""
    return {
        "sample_rate": predictor.sample_rate,
        "channels": 1,
        "mix": "mean over channels",
        "resampling": "to sample_rate before the graph; training used soxr HQ",
        "scaling": "float32, full scale is -1 to 1 (16-bit samples divided by 32768)",
        "min_duration": SHORTEST,
        "max_duration": predictor.max_duration,
        "quantum": predictor.quantum,
        "in_the_graph": "cut to max_duration, rounded to 16 bits, padded with zeros to a multiple of quantum, features",
        "batches": "clips of one length",
        **({} if predictor.windows is None else {"windows": predictor.windows}),
    }


def listening(task: Task) -> dict[str, Any]:
    """What ``predict.py`` asks of a sound before it asks the graph, and from where on it accepts one of several labels.

    ``strokes`` is None where nothing is known of the task's sounds but that silence is none of them.
    """
    strokes = {
        "contrast": CONTRAST,
        "high_pass": HIGH_PASS,
        "rise": RISE,
        "fall": FALL,
        "step": STEP,
        "settle": SETTLE,
        "floor": FLOOR,
    }
    return {"silence": SILENCE, "strokes": strokes if is_sousa(task) else None, "likely": LIKELY}


def intervals(run: FinishedRun, task: Task) -> dict[str, Any]:
    """95 % intervals of the test accuracies by group, with clips and groups; without predictions: nothing."""
    file = run.folder / PREDICTIONS_FILE
    if not file.is_file():
        return {}
    table = pd.read_parquet(file)
    group = next((name for name in ("group", "player") if name in table), "")
    if not task.grouped:
        group, table["group"] = "group", blocks(table["sample_id"].to_numpy(str))
    known = bool(group) and bool(table[group].notna().all())
    clips = np.asarray(table.groupby(group).size() if known else [], dtype=np.float64)
    made: dict[str, Any] = {"test_clips": len(table), **({f"test_{task.groups_key}": len(clips)} if known else {})}
    if reason := why_no_interval(len(clips), task, known):
        return {**made, "no_interval": reason}
    if task.several:
        logits = np.stack(table["logits"].tolist())
        labels = np.zeros(logits.shape, dtype=bool)
        for row, numbers in enumerate(table["label"]):
            labels[row, numbers] = True
        ends = precision_interval(logits, labels, table[group].to_numpy(str))
        return {**made, "test_map_interval": [round(end, 6) for end in ends], "interval_level": LEVEL}
    for name, right in {"test_acc": 1, "test_top5_acc": 5}.items():
        totals = _right(table, right).groupby(table[group]).sum().to_numpy(np.float64)
        found = accuracy_interval(totals[None], clips)
        made[f"{name}_interval"] = [round(float(found.low[0]), 6), round(float(found.high[0]), 6)]
    return {**made, "interval_level": LEVEL}


def _right(table: pd.DataFrame, top: int) -> pd.Series:
    logits = np.stack(table["logits"].tolist())
    best = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return pd.Series((best == table["label"].to_numpy()[:, None]).any(axis=1), index=table.index)


def model_card(config: Mapping[str, Any]) -> str:
    """The card, ``README.md`` of a package, in the form that the hub reads, from all of its ``config.json``."""
    weights = config["base_weights"]
    licence = weights["license"] or f"not known: ask whoever gave the file {weights['origin']}"
    if weights["kind"] == "random":
        licence = "none: the base weights were random"
    template = resources.files("sousa_bench.export").joinpath("model_card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # noqa: S701 - Markdown
    task = saved_task(config, "config.json")
    clips = counted(str(config["metrics"].get("test_clips")), CLIP)
    tested = config["metrics"].get(f"test_{task.groups_key}")
    words = {
        "asked": task,
        "sousa": is_sousa(task),
        "named": f"{'drum ' if is_sousa(task) else ''}{task.nouns}",
        "extent": f"{clips} of {counted(str(tested), task.group)}" if task.grouped and tested else clips,
    }
    return environment.from_string(template).render(config, licence=licence, **words)
