"""What ``config.json`` says of a package: model, labels, preprocessing, metrics, where all of it came from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

import sousa_bench
from sousa_bench.analysis.tested_model import about_model, tested_metrics
from sousa_bench.data.decode import SHORTEST, SILENCE
from sousa_bench.data.saved_task import is_sousa, saved_task
from sousa_bench.export.onnx_graph import INPUT, OPSET, OUTPUT
from sousa_bench.inference.answer import marked
from sousa_bench.inference.predictor import PACKAGE_FORMAT, PACKAGE_KEY, Predictor
from sousa_bench.inference.strokes import CONTRAST, FALL, FLOOR, HIGH_PASS, RISE, SETTLE, STEP
from sousa_bench.results.confidence import LIKELY
from sousa_bench.results.finished import FinishedRun
from sousa_bench.system.foreign import is_share
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
    data = result.get("data")
    return {
        PACKAGE_KEY: PACKAGE_FORMAT,
        "sousa_bench": sousa_bench.__version__,
        "model": model_node(predictor),
        "labels": predictor.labels,
        "task": predictor.task.as_dict(),
        "preprocessing": preprocessing(predictor),
        "listening": listening(predictor.task),
        "onnx": {"file": GRAPH_FILE, "opset": OPSET, "input": INPUT, "output": OUTPUT},
        "about": about_model(run, predictor.description, predictor.task),
        "metrics": tested_metrics(run, predictor.task),
        "confidence": result.get("confidence"),
        "confidence_text": None if predictor.confidence is None else marked(predictor.confidence),
        "data": {key: value for key, value in data.items() if key in DATA_KEYS} if isinstance(data, Mapping) else {},
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


def model_card(config: Mapping[str, Any]) -> str:
    """The card, ``README.md`` of a package, in the form that the hub reads, from all of its ``config.json``."""
    weights = config["base_weights"]
    licence = weights.get("license") or f"not known: ask whoever gave the file {weights['origin']}"
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
        "confident_tested": _is_counted((config["confidence"] or {}).get("test")),
        "extent": f"{clips} of {counted(str(tested), task.group)}" if task.grouped and tested else clips,
    }
    return environment.from_string(template).render(config, licence=licence, **words)


def _is_counted(test: Any) -> bool:
    """Whether a block ``confidence``, which may be foreign, counts the test clips' answers as ours do."""
    if not isinstance(test, Mapping) or not all(isinstance(test.get(key), int) for key in ("answers", "confident")):
        return False
    return test.get("precision", "") is None or is_share(test.get("precision"))
