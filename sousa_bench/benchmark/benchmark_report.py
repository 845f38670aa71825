"""The parts of the benchmark in order: measured, shown, written."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from typing import Any

import psutil

import sousa_bench
from sousa_bench.benchmark.measurement import ask
from sousa_bench.benchmark.whole_sweep import sweep
from sousa_bench.errors import ConfigError
from sousa_bench.results.result import write_json
from sousa_bench.sweep.resources import visible_gpus
from sousa_bench.system.cores import visible_cores


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Do the parts that were asked for; each figure is written as soon as it is there.

    Raises:
        UserError: One can't be done.
    """
    if options.epochs < 2 and "overhead" in options.parts:
        raise ConfigError("--epochs 1: the first epoch doesn't count; give at least 2")
    figures: dict[str, Any] = {"machine": machine(), "command": vars(options) | {"json": str(options.json)}}
    print(describe(figures["machine"]))
    for part in options.parts:
        figures[part] = []
        for row in _PARTS[part](options):
            figures[part].append(row)
            print(f"{part}: {_LINES[part](row)}", flush=True)
            write_json(options.json, figures)
    print(f"Figures: {options.json}")
    return figures


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    from sousa_bench.training.hardware import processor

    return {
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "processor": processor(),
        "cores": len(visible_cores()),
        "gpus": visible_gpus(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "sousa_bench": sousa_bench.__version__,
    }


def describe(facts: dict[str, Any]) -> str:
    """One line about the machine."""
    gpus = f", {len(facts['gpus'])} GPU" if facts["gpus"] else ", no GPU"
    return (
        f"{facts['date']}: {facts['cores']} cores of {facts['processor']}, {facts['memory_gib']} GiB{gpus}, "
        f"Python {facts['python']}, torch {facts['torch']}, load {facts['load']}"
    )


def _model(options: argparse.Namespace, model: str) -> list[str]:
    return [f"model={model}", *_variant(options), *options.overrides]


def _variant(options: argparse.Namespace) -> list[str]:
    """Of other sizes than tiny, random weights cost what the published ones cost."""
    return [] if options.variant == "tiny" else [f"model.variant={options.variant}", "weights=random"]


def _overhead(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for model in options.models:
        for augmentation in options.augmentation:
            words = [*_model(options, model), f"augmentation={augmentation}", f"trainer.max_epochs={options.epochs}"]
            yield ask("overhead", words, repeats=options.repeats)


def _naive(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for model in options.models:
        yield ask("naive", [*_model(options, model), "augmentation=off"], repeats=options.repeats)


def _cache(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    yield ask("cache", options.overrides, repeats=options.repeats)


def _sweep(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    words = [f"model={','.join(options.models)}", *_variant(options), *options.overrides]
    yield sweep(words, naive_runs=options.naive_runs).as_dict()


def _inference(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for model in options.models:
        yield ask("inference", _model(options, model), repeats=options.repeats)


def _overhead_line(row: dict[str, Any]) -> str:
    causes = ", ".join(
        f"{cause} {100 * seconds / row['compute_seconds']:.1f} %" for cause, seconds in row["causes"].items()
    )
    return (
        f"{row['setup']}: {row['run_seconds']:.2f} s an epoch, arithmetic {row['compute_seconds']:.2f} s, "
        f"overhead {100 * row['share']:.1f} % ({causes})"
    )


def _naive_line(row: dict[str, Any]) -> str:
    return (
        f"{row['setup']}: {row['naive_seconds']:.2f} s an epoch against {row['our_seconds']:.2f} s, "
        f"{row['ratio']:.2f} times as fast; clips of {row['seconds_of_audio']:.2f} s on average; "
        f"logits differ by {row['logits_difference']:.1e}"
    )


def _cache_line(row: dict[str, Any]) -> str:
    return (
        f"{row['cache_clips_per_second']:.0f} clips/s, "
        f"bare decoding and resampling {row['bare_clips_per_second']:.0f}: {100 * row['ratio']:.0f} %"
    )


def _sweep_line(row: dict[str, Any]) -> str:
    line = (
        f"{row['runs']} runs, {row['n_jobs']} at a time: {row['wall_seconds']:.1f} s, arithmetic "
        f"{row['compute_seconds']:.1f} s, overhead {100 * row['share']:.1f} % ({row['seconds_per_run']:.2f} s a run)"
    )
    if row["ratio"] is None:
        return line
    naive = f"naive {row['naive_seconds']:.0f} s, from {row['naive_runs']} of the runs"
    return f"{line}; {naive}: {row['ratio']:.2f} times as fast"


def _inference_line(row: dict[str, Any]) -> str:
    return (
        f"{row['setup']}: {row['latency_ms']:.1f} ms a clip of {row['seconds_of_audio']:g} s, "
        f"{row['clips_per_second']:.1f} clips/s in batches of {row['batch']}"
    )


_PARTS = {"overhead": _overhead, "naive": _naive, "cache": _cache, "sweep": _sweep, "inference": _inference}
_LINES = {
    "overhead": _overhead_line,
    "naive": _naive_line,
    "cache": _cache_line,
    "sweep": _sweep_line,
    "inference": _inference_line,
}
