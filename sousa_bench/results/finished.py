"""Completed runs on the disk: one by its folder, or the best of a sweep. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sousa_bench.errors import UserError
from sousa_bench.results.merit import loss_of, lower_by_name, merit
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import ADAPTER_FOLDER, EVALUATED, RESULT_FILE, ResultError, is_refit, read_result
from sousa_bench.results.scan import scan
from sousa_bench.system.files import is_there


class RunError(UserError):
    """A place that holds no completed run, or one without its trained weights."""


@dataclass(frozen=True)
class FinishedRun:
    """A completed run.

    Attributes:
        folder: Its folder.
        result: Its result file's content.
        chosen: Why it and not another, for a line to people, where it was chosen among several; else empty.
    """

    folder: Path
    result: dict[str, Any]
    chosen: str = ""

    @property
    def name(self) -> str:
        """Its id in tables and reports."""
        return str(self.result.get("experiment_id") or self.folder.name)

    @property
    def described(self) -> str:
        """Its name, and why it and not another."""
        return f"{self.name}, {self.chosen}" if self.chosen else self.name

    @property
    def config(self) -> dict[str, Any]:
        """Its whole composed config."""
        return dict(self.result.get("resolved_config") or {})

    @property
    def adapter(self) -> Path:
        """The folder of what it trained.

        Raises:
            RunError: It was removed.
        """
        folder = self.folder / ADAPTER_FOLDER
        if not folder.is_dir():
            raise RunError(
                f"{self.folder}: the trained weights ({ADAPTER_FOLDER}/) are gone; run it again (force=true)"
            )
        return folder


def finished_run(place: Path, metric: str | None = None) -> FinishedRun:
    """The run in a folder, or the best one of a sweep.

    Args:
        place: A run's folder, its ``result.json``, a sweep, or any folder with runs below it.
        metric: What ranks the runs of a sweep; the higher the better, except for a loss. None: see ``ranked``.

    Raises:
        RunError: There is none, or the one asked for is not completed.
    """
    folder = place.parent if place.name == RESULT_FILE else place
    if is_there(folder / RESULT_FILE):
        try:
            result = read_result(folder)
        except ResultError as error:
            raise RunError(str(error)) from error
        if EVALUATED in result:
            raise RunError(f"{folder}: this is an evaluation of {result[EVALUATED]}; give that run's folder")
        if result["status"] != "completed":
            raise RunError(
                f"{folder}: this run is {result['status']}, not completed; its training's command goes on with it"
            )
        return FinishedRun(folder.resolve(), result)
    runs = finished_runs([folder])
    runs = [run for run in runs if not is_refit(run.result)] or runs  # a refit repeats the scores of others
    best = ranked(runs, metric)[0]
    if len(runs) == 1:
        return best
    key = metric or ranking(best.result["metrics"])
    return replace(
        best, chosen=f"the best of {len(runs):,} completed runs by {key} ({best.result['metrics'][key]:.3f})"
    )


def refuse_absent(place: Path) -> None:
    """Refuse a place that is not there; commands ask before they load torch.

    Raises:
        RunError: It isn't.
    """
    if not is_there(place):
        raise RunError(
            f"{place}: there is no such folder; give a run's folder or a sweep's, below multirun/ or outputs/"
        )


def finished_runs(places: Sequence[Path]) -> list[FinishedRun]:
    """Every completed run of some sweeps or folders, as the analysis finds them.

    That includes those that a manifest points to elsewhere below the same results roots. Of several completed runs of
    one fingerprint the newest counts; evaluations are no runs.

    Raises:
        RunError: There is none.
    """
    found: dict[str, FinishedRun] = {}
    for place in places:
        refuse_absent(place)
        for folder in {path.parent for path in scan([place]).files if path.name == RESULT_FILE}:
            try:
                result = read_result(folder)
            except ResultError:
                continue
            if result["status"] != "completed" or EVALUATED in result:
                continue
            run = FinishedRun(folder.resolve(), result)
            digest = str(result.get("fingerprint") or run.folder)
            if digest not in found or found[digest].result["timestamp"] < result["timestamp"]:
                found[digest] = run
    if not found:
        raise RunError(f"{', '.join(map(str, places))}: no completed run here; python -m sousa_bench.status tells why")
    return sorted(found.values(), key=lambda run: run.folder)


def ranked(runs: Sequence[FinishedRun], metric: str | None = None) -> list[FinishedRun]:
    """Runs from best to worst; between equals ``merit`` decides.

    Args:
        runs: The runs.
        metric: None: ``val_acc``, or ``val_map`` where clips may have several labels. A choice by test accuracy would
            make the winner's test accuracy too good.

    Raises:
        RunError: One does not know the metric.
    """
    key = metric or ranking(runs[0].result["metrics"])

    def place(run: FinishedRun) -> tuple[float, float, float, float, str]:
        metrics = run.result["metrics"]
        if metrics.get(key) is None:
            raise RunError(f"metric {key}: {run.folder} has none of that name; {_near(key, metrics)}")
        trainable = (run.result.get("efficiency") or {}).get("trainable_params")
        validation = metrics.get(ranking(metrics))
        return merit(metrics[key], validation, loss_of(metrics), trainable, run.name, lower=lower)

    declared = runs[0].result.get("declared_metrics")
    said = declared.get(key.partition("_")[2]) if isinstance(declared, Mapping) else None
    lower = said.get("better") == "lower" if isinstance(said, Mapping) else lower_by_name(key)
    return sorted(runs, key=place)


def _near(key: str, metrics: Mapping[str, Any]) -> str:
    """What a run has in place of a metric that it lacks."""
    near = difflib.get_close_matches(key, metrics, 1)
    return (f"did you mean {near[0]}? " if near else "") + f"it has {', '.join(sorted(metrics))}"
