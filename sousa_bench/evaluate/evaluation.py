"""What ``python -m sousa_bench.evaluate`` does once its command line is read."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.data.datamodule import Clips
from sousa_bench.errors import DataError, UserError
from sousa_bench.evaluate.confusion import CONFUSION, PER_CLASS_FILE, draw, read_back, write_table
from sousa_bench.evaluate.evaluation_result import Evaluation, command, own_test, record
from sousa_bench.evaluate.logits import Heard, hear
from sousa_bench.inference.predictor import Predictor, device_named, is_package
from sousa_bench.results.finished import FinishedRun, finished_run
from sousa_bench.results.predictions import outcome_warnings, write_predictions
from sousa_bench.results.result import PREDICTIONS_FILE, RESULT_FILE, write_result
from sousa_bench.rudiments import DISPLAY, RUDIMENTS
from sousa_bench.training import hardware
from sousa_bench.training.overlap import met_before
from sousa_bench.training.split_data import SplitData, data_node

UNLABELLED = "For clips without labels there is python -m sousa_bench.predict RUN FILE."


def evaluate(options: argparse.Namespace, arguments: Sequence[str]) -> Path:
    """Evaluate, write and print.

    Args:
        options: See :func:`sousa_bench.evaluate.parser`.
        arguments: The words that they were made from.

    Returns:
        The folder that was written.

    Raises:
        UserError: No such run or data, or a value that can't be.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("sousa_bench").setLevel(logging.INFO)
    if is_package(options.run):
        raise UserError(f"{options.run}: a package doesn't hold the run's record; give the run's folder")
    run = finished_run(options.run, options.metric)
    device = device_named(options.device, options.threads)
    evaluation = _prepare(options, run, device)
    folder = evaluation.folder(options.output_dir)
    heard = _hear(evaluation, options, device)
    result = _result(evaluation, heard, arguments)
    table = _write(folder, evaluation, heard, result, images=not options.no_images)
    print("\n".join(_lines(evaluation, result, table)))
    print(f"\nWritten: {folder}/ ({RESULT_FILE}, {PREDICTIONS_FILE}, {PER_CLASS_FILE}, {CONFUSION}.html)")
    return folder


def _prepare(options: argparse.Namespace, run: FinishedRun, device: str) -> Evaluation:
    node = data_node(run, options.overrides, options.config_dir)
    data = SplitData.of(options.split, node)
    try:
        data.check()
        data.chosen()
    except DataError as error:
        if any(word in str(error) for word in ("rudiment", "holds no layout")):
            raise DataError(f"{error} {UNLABELLED}") from error
        raise
    accelerator = "gpu" if device == "cuda" else "cpu"
    hardware.set_up(accelerator)
    return Evaluation(run, data, node, _precision(options.precision, run), accelerator)


def _precision(wanted: str, run: FinishedRun) -> str:
    if wanted != "auto":
        return wanted
    return str((run.result.get("environment") or {}).get("precision") or "32-true")


def _hear(evaluation: Evaluation, options: argparse.Namespace, device: str) -> Heard:
    predictor = Predictor.open(evaluation.run.folder, device=device, checkpoint=options.checkpoint)
    if predictor.labels != list(RUDIMENTS):
        raise UserError(f"{evaluation.run.folder}: its classes are not the {len(RUDIMENTS)} rudiments of this version")
    predictor.precision = evaluation.precision
    predictor.batch_size = int((evaluation.run.config.get("trainer") or {}).get("eval_batch_size") or 16)
    data = evaluation.data
    predictor.quantum, predictor.max_duration = float(data.quantum), float(data.max_duration)
    data.prepare((predictor.sample_rate,))
    return hear(predictor, Clips(data, data.split, predictor.sample_rate, predictor.quantum))


def _result(evaluation: Evaluation, heard: Heard, arguments: Sequence[str]) -> dict[str, Any]:
    table, labels = heard.clips.table, heard.clips.labels
    result = record(evaluation, table, heard.logits, labels, heard.seconds)
    compared = own_test(evaluation, table, heard.logits.argmax(dim=1).numpy())
    met, told = met_before(evaluation.run, evaluation.data)
    result["evaluation"] |= {"own_test": compared, "met_before": met}
    result["command"] = command(arguments)
    kind = (evaluation.run.result.get("weights") or {}).get("kind")
    chance = outcome_warnings(
        heard.logits.numpy(), labels.numpy(), RUDIMENTS, partial=False, random_weights=kind == "random"
    )
    result["warnings"] = [*evaluation.data.warnings, *told, *_numeric_warnings(evaluation, compared), *chance]
    return result


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


def _write(folder: Path, evaluation: Evaluation, heard: Heard, result: dict[str, Any], images: bool) -> pd.DataFrame:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            (folder / RESULT_FILE).unlink()  # an older one would vouch for the new predictions
        write_predictions(folder / PREDICTIONS_FILE, heard.clips.table, heard.logits.numpy())
        write_result(folder, result)
        study = read_back(folder)
        table = write_table(folder, study, result["per_class"])
        problem = draw(folder, study, f"{evaluation.run.name} on {evaluation.data.name}, {_clips(evaluation)}", images)
    except OSError as error:
        raise UserError(
            f"{folder}: can't be written ({error.strerror or error}); choose another --output-dir"
        ) from error
    if problem:
        logging.getLogger("sousa_bench").warning(
            problem.replace("report.html has every plot", f"{CONFUSION}.html shows the same")
        )
    return table


def _clips(evaluation: Evaluation) -> str:
    return "all clips" if evaluation.data.split == "all" else f"{evaluation.data.split} split"


def _lines(evaluation: Evaluation, result: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """The metrics for people."""
    metrics, told = result["metrics"], result["evaluation"]
    players = told["accuracy_interval"]["players"]
    lines = [
        f"{evaluation.run.name}",
        f"on data={evaluation.data.name}, {_clips(evaluation)}: {table['clips'].sum():,} clips of {players} players",
        "",
        f"  accuracy           {metrics['test_acc']:.4f}  {_interval_words(told['accuracy_interval'])}",
        f"  top-5 accuracy     {metrics['test_top5_acc']:.4f}  {_interval_words(told['top5_interval'])}",
        f"  macro F1           {metrics['test_f1_macro']:.4f}",
        f"  balanced accuracy  {metrics['test_balanced_acc']:.4f}",
        f"  loss               {metrics['test_loss']:.4f}",
        "",
        _own_words(told["own_test"], evaluation.run.result["metrics"]["test_acc"]),
    ]
    worst = table[table["taken_for_clips"] > 0].sort_values("taken_for_clips", ascending=False, kind="stable").head(5)
    if len(worst):
        pairs = zip(worst["name"], worst["taken_for"], worst["taken_for_clips"], worst["clips"], strict=True)
        named = "; ".join(f"{name} → {DISPLAY[other]} ({wrong} of {all_})" for name, other, wrong, all_ in pairs)
        lines.append(f"Most often mistaken: {named}")
    return lines + [f"warning: {message}" for message in result["warnings"]]


def _interval_words(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"({found['note']})"
    return f"({found['level']:.0%} interval {found['low']:.4f} to {found['high']:.4f}, over players)".replace("%", " %")


def _own_words(compared: Mapping[str, Any], accuracy: float) -> str:
    if compared["same_clips"] is None:
        return f"The run's own test gave {accuracy:.4f}; whether on these clips can't be told from what is left of it."
    if not compared["same_clips"]:
        return f"The run's own test, on other clips, gave {accuracy:.4f}."
    changed = f"{compared['changed']} predicted otherwise" if compared["changed"] else "each with the same prediction"
    if compared["changed"] is None:
        changed = f"its {PREDICTIONS_FILE} is gone, so single predictions can't be compared"
    return f"These are the clips of the run's own test, which gave {accuracy:.4f}: {changed}."
