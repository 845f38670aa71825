"""What ``python -m sousa_bench.evaluate`` does once its command line is read."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from sousa_bench.data.datamodule import Clips, EvalBatches
from sousa_bench.errors import DataError, UserError
from sousa_bench.evaluate.class_table import PER_CLASS_FILE, draw, figure_name, read_back, write_table
from sousa_bench.evaluate.evaluation_result import evaluation_result
from sousa_bench.inference.predictor import Predictor, device_named, is_package
from sousa_bench.results.finished import FinishedRun, RunError, finished_run
from sousa_bench.results.metrics import metrics_of, ranking
from sousa_bench.results.predictions import write_predictions
from sousa_bench.results.result import (
    EVALUATED,
    PREDICTIONS_FILE,
    RESULT_FILE,
    ResultError,
    is_refit,
    missing_fields,
    read_result,
    write_result,
)
from sousa_bench.results.scan import ROOT_NAMES
from sousa_bench.system.number_checks import is_whole
from sousa_bench.task import Task
from sousa_bench.training import hardware
from sousa_bench.training.evaluated_clips import SplitData, data_node

log = logging.getLogger("sousa_bench")

UNLABELLED = "For clips without labels there is python -m sousa_bench.predict RUN FILE."
FOLDER = Path("outputs") / "evaluate"
TAKEN_OVER = ("config.", "metrics.", "efficiency.")  # blocks of the run's result that stand in its evaluation's
LONG = 500  # clips from which on there is a progress bar


@dataclass
class Evaluation:
    """A run on some clips.

    Attributes:
        run: What is evaluated.
        data: The clips.
        node: Their config.
        precision: Of the forward pass.
        accelerator: ``cpu`` or ``gpu``.
        clips: The decoded clips, in the order of ``logits``; this and the next two are there after :meth:`infer`.
        logits: (clips, classes) float32.
        seconds: That the model took.
    """

    run: FinishedRun
    data: SplitData
    node: Mapping[str, Any]
    precision: str
    accelerator: str
    clips: Clips = field(init=False)
    logits: Tensor = field(init=False)
    seconds: float = field(init=False)

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

    @property
    def split_name(self) -> str:
        """The clips, for people."""
        return "all clips" if self.data.split == "all" else f"{self.data.split} split"

    def folder(self, chosen: Path | None) -> Path:
        """Where it is written: ``outputs/evaluate`` beside the run's own results root, unless chosen.

        Raises:
            UserError: A run's result lies there.
        """
        root = next((path for path in self.run.folder.parents if path.name in ROOT_NAMES), None)
        folder = chosen or (root.parent if root else Path.cwd()) / FOLDER / self.name
        try:
            own = read_result(folder / RESULT_FILE) if (folder / RESULT_FILE).exists() else {EVALUATED: ""}
        except ResultError as error:
            raise UserError(
                f"--output-dir {folder}: holds a file that is no result of an evaluation: {error}"
            ) from error
        if EVALUATED not in own:
            raise UserError(f"--output-dir {folder}: holds the result of a run, which is not overwritten")
        return folder

    def _batch_size(self) -> int:
        """How many clips the run's own test took at once.

        Raises:
            RunError: The run's record holds no number there.
        """
        trainer = self.run.config.get("trainer")
        size = trainer.get("eval_batch_size") if isinstance(trainer, Mapping) else None
        if size is None:
            return 16
        if not is_whole(size, least=1):
            raise RunError(
                f"{self.run.folder / RESULT_FILE}: trainer.eval_batch_size={str(size)[:80]!r} is no number of clips; "
                "run it again"
            )
        return size

    def infer(self, device: str, checkpoint: str | None) -> None:
        """Run the model over the clips, in the batches of the run's own test.

        Raises:
            UserError: The model has other classes, or a logit is not finite.
        """
        predictor = Predictor.open(self.run.folder, device=device, checkpoint=checkpoint)
        if predictor.task.digest != self.data.task.digest:
            raise UserError(
                f"{self.run.folder}: was trained for {_kind(predictor.task)}, and data={self.data.name} has "
                f"{_kind(self.data.task)}: only clips of the same classes can be evaluated"
            )
        predictor.precision = self.precision
        predictor.batch_size = self._batch_size()
        predictor.quantum, predictor.max_duration = float(self.data.quantum), float(self.data.max_duration)
        self.data.prepare((predictor.sample_rate,))
        self.clips = Clips(self.data, self.data.split, predictor.sample_rate, predictor.quantum)
        started = time.perf_counter()
        pieces = self.clips.pieces
        logits = np.zeros((len(pieces), len(predictor.labels)), dtype=np.float32)
        with tqdm(
            total=len(pieces),
            unit=" clips" if len(pieces) == len(self.clips) else " windows",
            disable=len(pieces) < LONG,
            leave=False,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            file=sys.stderr,
        ) as bar:
            for batch in EvalBatches(self.clips, predictor.batch_size):
                logits[batch.index] = predictor.logits([self.clips.heard(int(i)) for i in batch.index])
                bar.update(len(batch.index))
        self.logits = torch.from_numpy(pieces.mean(np.arange(len(pieces)), logits)[1])
        if not torch.isfinite(self.logits).all():
            raise UserError(f"{predictor.place}: the model answers with numbers that are not finite; run it again")
        self.seconds = time.perf_counter() - started


def evaluate(options: argparse.Namespace, arguments: Sequence[str]) -> Path:
    """Evaluate, write and print.

    Args:
        options: See :func:`sousa_bench.evaluate.__main__.parser`.
        arguments: The words that they were made from.

    Returns:
        The folder that was written.

    Raises:
        UserError: No such run or data, or a value that can't be.
    """
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    if is_package(options.run):
        raise UserError(f"{options.run}: a package doesn't hold the run's record; give the run's folder")
    run = finished_run(options.run, options.metric)
    if missing := [name for name in missing_fields(run.result) if name.startswith(TAKEN_OVER) and "test_" not in name]:
        raise RunError(f"{run.folder / RESULT_FILE}: lacks {', '.join(missing)}, which an evaluation takes over")
    device = device_named(options.device, options.threads)
    evaluation = _prepare(options, run, device)
    folder = evaluation.folder(options.output_dir)
    evaluation.infer(device, options.checkpoint)
    result = evaluation_result(evaluation, arguments)
    try:
        table = _write(folder, evaluation, result, images=not options.no_images)
    except OSError as error:
        raise UserError(
            f"{folder}: can't be written ({error.strerror or error}); choose another --output-dir"
        ) from error
    print("\n".join(_lines(evaluation, result, table)))
    files = (RESULT_FILE, PREDICTIONS_FILE, PER_CLASS_FILE, f"{figure_name(evaluation.data.task)}.html")
    print(f"\nWritten: {folder}/ ({', '.join(files)})")
    return folder


def _kind(task: Task) -> str:
    several = "any number of " if task.several else ""
    return f"{several}{len(task.classes)} {task.nouns} ({', '.join(task.classes[:3])}, …)"


def _prepare(options: argparse.Namespace, run: FinishedRun, device: str) -> Evaluation:
    node = data_node(run, options.overrides, options.config_dir)
    data = SplitData.of(options.split, node)
    try:
        data.check()
        data.chosen()
    except DataError as error:
        if any(word in str(error) for word in ("rudiment", "no label", "as the labels", "holds no layout")):
            raise DataError(f"{error} {UNLABELLED}") from error
        raise
    accelerator = "gpu" if device == "cuda" else "cpu"
    hardware.set_up(accelerator)
    own_precision = (run.result.get("environment") or {}).get("precision") or "32-true"
    precision = str(own_precision) if options.precision == "auto" else options.precision
    return Evaluation(run, data, node, precision, accelerator)


def _write(folder: Path, evaluation: Evaluation, result: dict[str, Any], images: bool) -> pd.DataFrame:
    """Write all files; returns the table by class."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (folder / RESULT_FILE).unlink()  # an older one would vouch for the new predictions
    write_predictions(
        folder / PREDICTIONS_FILE, evaluation.clips.table, evaluation.logits.numpy(), evaluation.data.task
    )
    write_result(folder, result)
    study = read_back(folder)
    table = write_table(folder, study, result["per_class"])
    title = f"{evaluation.run.name} on {evaluation.data.name}, {evaluation.split_name}"
    if problem := draw(folder, study, title, images):
        log.warning(
            problem.replace("report.html has every plot", f"{figure_name(evaluation.data.task)}.html shows the same")
        )
    return table


def _lines(evaluation: Evaluation, result: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """The metrics for people."""
    metrics, about = result["metrics"], result["evaluation"]
    task = evaluation.data.task
    intervals = {
        name: about[key]
        for name, key in (("acc", "accuracy_interval"), ("top5_acc", "top5_interval"), ("map", "map_interval"))
        if key in about
    }
    size = task.extent(f"{len(evaluation.clips):,}", intervals[task.metric][task.groups_key], " of ")
    declared = {metric.name: metric.as_dict() for metric in metrics_of(task)} | dict(
        result.get("declared_metrics") or {}
    )
    texts = {name: f"  {_interval_text(found, task)}" for name, found in intervals.items()}
    own = evaluation.run.result["metrics"]
    width = max(18, *(len(metric["label"]) for metric in declared.values())) if task.several else 18
    lines = [
        evaluation.run.described,
        f"on data={evaluation.data.name}, {evaluation.split_name}: {size}",
        "",
        *(
            f"  {metric['label']:<{width}} {metrics[key]:{metric['format']}}{texts.get(name, '')}"
            for name, metric in declared.items()
            if (key := f"test_{name}") in metrics
        ),
        "",
        _own_test_text(about["own_test"], own[ranking(own, "test")], is_refit(evaluation.run.result)),
    ]
    return [*lines, *_weakest(table, task), *(f"warning: {message}" for message in result["warnings"])]


def _weakest(table: pd.DataFrame, task: Task) -> list[str]:
    """The classes with which it goes worst; none where there are no mistakes."""
    if task.several:
        last = table.dropna(subset="average_precision").sort_values("average_precision", kind="stable").head(5)
        pairs = zip(last["name"], last["average_precision"], strict=True)
        return [f"Least average precision: {'; '.join(f'{name} {value:.3f}' for name, value in pairs)}"]
    worst = table[table["taken_for_clips"] > 0].sort_values("taken_for_clips", ascending=False, kind="stable").head(5)
    mistakes = zip(worst["name"], worst["taken_for"], worst["taken_for_clips"], worst["clips"], strict=True)
    named = [f"{name} → {task.display(other)} ({wrong} of {all_})" for name, other, wrong, all_ in mistakes]
    return [f"Most often mistaken: {'; '.join(named)}"] if named else []


def _interval_text(found: Mapping[str, Any], task: Task) -> str:
    if found["low"] is None:
        return f"({found['note']})"
    level = f"{found['level']:.0%}".replace("%", " %")
    return f"({level} interval {found['low']:.4f} to {found['high']:.4f}, over {task.groups})"


def _own_test_text(compared: Mapping[str, Any], accuracy: float, refit: bool) -> str:
    if refit:
        return f"It has no test of its own; before it was trained again on more clips, tests gave {accuracy:.4f}."
    if "changed" not in compared:
        if compared["same_clips"] is None:
            return (
                f"The run's own test gave {accuracy:.4f}; whether on these clips can't be told from what is left of it."
            )
        return f"The run's own test, on other clips, gave {accuracy:.4f}."
    changed = f"{compared['changed']} predicted otherwise" if compared["changed"] else "each with the same prediction"
    if compared["changed"] is None:
        changed = f"its {PREDICTIONS_FILE} is gone, so single predictions can't be compared"
    if compared["same_clips"] is None:
        return f"The run's own test, on clips of the same names and in other files, gave {accuracy:.4f}: {changed}."
    return f"These are the clips of the run's own test, which gave {accuracy:.4f}: {changed}."
