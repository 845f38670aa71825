"""An evaluation's ``result.json``: the fixed block of a run's, with the metrics of the evaluated clips."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from sousa_bench.analysis.stats.intervals import LEVEL, accuracy_interval, why_no_interval
from sousa_bench.config.identity import IRRELEVANT
from sousa_bench.errors import UserError
from sousa_bench.results.finished import FinishedRun
from sousa_bench.results.result import (
    EFFICIENCY_KEYS,
    EVALUATED,
    METRIC_KEYS,
    PREDICTIONS_FILE,
    RESULT_FILE,
    SCHEMA_VERSION,
    ResultError,
    read_result,
)
from sousa_bench.rudiments import RUDIMENTS
from sousa_bench.sweep.plan import git_commit
from sousa_bench.training.hardware import environment
from sousa_bench.training.metrics import per_class, split_metrics
from sousa_bench.training.split_data import SplitData

ROOTS = ("multirun", "outputs")
FOLDER = Path("outputs") / "evaluate"
KEPT = ("weights", "parameters", "peft", "lineage")
"""Blocks of the run's result that are as true of its evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """What is known before the model is run.

    Attributes:
        run: What is evaluated.
        data: The clips.
        node: Their config.
        precision: Of the forward pass.
        accelerator: ``cpu`` or ``gpu``.
    """

    run: FinishedRun
    data: SplitData
    node: Mapping[str, Any]
    precision: str
    accelerator: str

    @property
    def fingerprint(self) -> str:
        """Hex digest of the run, the clips and the precision: its own, so that it is never taken for the run."""
        parts = {
            "evaluation": self.run.result.get("fingerprint") or self.run.name,
            "split": self.data.split,
            "data": self.data.fingerprint,
            "clips": self.data.test_fingerprint,
            "precision": self.precision,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Of its folder: ``<run>_on_<data>_<split>_<fingerprint>``."""
        return f"{self.run.folder.name}_on_{self.data.name}_{self.data.split}_{self.fingerprint[:8]}"

    def folder(self, chosen: Path | None) -> Path:
        """Where it is written: ``outputs/evaluate`` beside the run's own results root, unless chosen.

        Raises:
            UserError: A run's result lies there.
        """
        folder = chosen if chosen is not None else self._home() / FOLDER / self.name
        try:
            own = read_result(folder / RESULT_FILE) if (folder / RESULT_FILE).exists() else {EVALUATED: ""}
        except ResultError as error:
            raise UserError(
                f"--output-dir {folder}: holds a file that is no result of an evaluation: {error}"
            ) from error
        if EVALUATED not in own:
            raise UserError(f"--output-dir {folder}: holds the result of a run, which is not overwritten")
        return folder

    def _home(self) -> Path:
        root = next((path for path in self.run.folder.parents if path.name in ROOTS), None)
        return root.parent if root is not None else Path.cwd()


def interval(values: np.ndarray, players: pd.Series) -> dict[str, Any]:
    """Confidence interval of a share of clips, clustered by player; see `sousa_bench.analysis.stats.intervals`.

    Args:
        values: (clips,) bool: what counts.
        players: (clips,) names.

    Returns:
        ``low`` and ``high`` (None where there is no interval, and ``note`` says why), ``level``, ``players``.
    """
    codes, names = pd.factorize(players)
    sizes = np.bincount(codes).astype(float)
    totals = np.bincount(codes, weights=values.astype(float), minlength=len(sizes))[None, :].astype(float)
    found = accuracy_interval(totals, sizes)
    note = why_no_interval(len(names))
    return {
        "low": None if note else float(found.low[0]),
        "high": None if note else float(found.high[0]),
        "level": LEVEL,
        "players": len(names),
        "note": note or None,
    }


def record(
    evaluation: Evaluation, table: pd.DataFrame, logits: Tensor, labels: Tensor, seconds: float
) -> dict[str, Any]:
    """The result file's content, warnings left empty.

    Args:
        evaluation: What was evaluated.
        table: The clips, in the order of ``logits``.
        logits: (clips, classes) float32.
        labels: (clips,) int64.
        seconds: That the model took.
    """
    run, now = evaluation.run.result, datetime.now()
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    metrics = {key: value for key, value in run["metrics"].items() if key in METRIC_KEYS or key.startswith("val_")}
    efficiency = {key: run["efficiency"].get(key) for key in EFFICIENCY_KEYS}
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment_id": f"{evaluation.name}_{now:%Y%m%d_%H%M%S}",
        "config": _config(evaluation),
        "metrics": {**metrics, **split_metrics("test", logits, labels)},
        "efficiency": {
            **efficiency,
            "evaluation_seconds": seconds,
            "evaluation_clips_per_second": len(labels) / max(seconds, 1e-9),
        },
        "status": "completed",
        "error": None,
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}",
        "git_commit": git_commit(),
        "fingerprint": evaluation.fingerprint,
        EVALUATED: evaluation.run.name,
        "evaluation": {
            "run_folder": str(evaluation.run.folder),
            "run_fingerprint": run.get("fingerprint"),
            "split": evaluation.data.split,
            "precision": evaluation.precision,
            "accuracy_interval": interval((logits.argmax(dim=1) == labels).numpy(), table["player"]),
            "top5_interval": interval((top == labels[:, None]).any(dim=1).numpy(), table["player"]),
        },
        "resolved_config": _resolved(evaluation),
        "overrides": [],
        "environment": environment(evaluation.accelerator, evaluation.precision),
        "warnings": [],
        "data": evaluation.data.describe(),
        **{key: run[key] for key in KEPT if key in run},
        "per_class": per_class(logits, labels, RUDIMENTS),
        "files": {"predictions": PREDICTIONS_FILE},
    }


def command(arguments: Sequence[str]) -> str:
    """The shell command that evaluates again."""
    return shlex.join(["python", "-m", "sousa_bench.evaluate", *arguments])


def _config(evaluation: Evaluation) -> dict[str, Any]:
    """The run's flat config; the data are those evaluated, and two keys more keep evaluations apart."""
    own = dict(evaluation.run.result["config"])
    return {
        **own,
        "data": evaluation.data.name,
        "trained_on": own["data"],
        "evaluated_split": evaluation.data.split,
    }


def _resolved(evaluation: Evaluation) -> dict[str, Any]:
    config = evaluation.run.config
    trained = {key: value for key, value in config["data"].items() if f"data.{key}" not in IRRELEVANT}
    return {**config, "data": dict(evaluation.node), "trained_data": trained}


def own_test(evaluation: Evaluation, table: pd.DataFrame, predicted: np.ndarray) -> dict[str, Any]:
    """How this compares with the run's own test, where the clips are the same.

    Returns:
        ``same_clips``, None where it can't be told; and where they are ``test_acc`` of the run and ``changed``: clips
        with another prediction, None where the run's predictions are gone.
    """
    file = evaluation.run.folder / PREDICTIONS_FILE
    if not file.is_file():
        return _own_test_by_fingerprint(evaluation)
    theirs = pd.read_parquet(file, columns=["sample_id", "label", "predicted"])
    mine = table[["sample_id", "label"]].assign(now=predicted)
    both = theirs.merge(mine, on=["sample_id", "label"])
    if not len(both) == len(theirs) == len(mine):
        return {"same_clips": False}
    return {
        "same_clips": True,
        "test_acc": evaluation.run.result["metrics"]["test_acc"],
        "changed": int((both["predicted"] != both["now"]).sum()),
    }


def _own_test_by_fingerprint(evaluation: Evaluation) -> dict[str, Any]:
    own = evaluation.run.result
    known = (own.get("data") or {}).get("test_fingerprint")
    if known is None:
        return {"same_clips": None}
    if known != evaluation.data.test_fingerprint:
        return {"same_clips": False}
    return {"same_clips": True, "test_acc": own["metrics"]["test_acc"], "changed": None}
