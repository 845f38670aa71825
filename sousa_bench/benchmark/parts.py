"""The parts of the benchmark in order: measured, shown, written."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Mapping
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
from sousa_bench.system.cores import usable_cores
from sousa_bench.system.processor import processor

LINES = {
    "overhead": "{setup}: {run_seconds:.2f} s an epoch, arithmetic {compute_seconds:.2f} s, overhead {share:.1%} "
    "({by_cause})",
    "precision": "{setup}: {float32_seconds:.2f} {clock} seconds an epoch in float32, {bfloat16_seconds:.2f} in "
    "bfloat16, {ratio:.2f} times as fast; {float32_utilisation:.0%} and {bfloat16_utilisation:.0%} of what matrix "
    "products reach",
    "naive": "{setup}: {naive_seconds:.2f} s an epoch against {our_seconds:.2f} s, {ratio:.2f} times as fast; clips of "
    "{seconds_of_audio:.2f} s on average; logits differ by {logits_difference:.1e}",
    "cache": "{cache_clips_per_second:.0f} clips/s, bare decoding and resampling {bare_clips_per_second:.0f}: "
    "{ratio:.0%}",
    "sweep": "{runs} runs, {n_jobs} at a time: {wall_seconds:.1f} s, arithmetic {compute_seconds:.1f} s, overhead "
    "{share:.1%} ({seconds_per_run:.2f} s a run)",
    "inference": "{setup}: {latency_ms:.1f} ms a clip of {seconds_of_audio:g} s, {clips_per_second:.1f} clips/s in "
    "batches of {batch}",
    "methods": "{setup}: {trainable:,} trainable; memory of a step {peak_mib:.1f} MiB, {activation_mib:.1f} of them "
    "activations; step {step_seconds:.3f} s, {of_head:.2f} times head's, {of_full:.2f} times full's; afterwards "
    "{latency_ms:.1f} ms a clip, {kind}",
}
NAIVE_LINE = "; naive {naive_seconds:.0f} s, from {naive_runs} of the runs: {ratio:.2f} times as fast"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Do the parts that were asked for; each figure is written as soon as it is there.

    Raises:
        UserError: One can't be done.
    """
    if options.epochs < 2 and "overhead" in options.parts:
        raise ConfigError("--epochs 1: the first epoch doesn't count; give at least 2")
    if options.methods and "methods" not in options.parts:
        raise ConfigError("--methods: the part methods alone reads it; add it to --parts, or leave --methods out")
    methods = _methods(options) if "methods" in options.parts else {}
    figures: dict[str, Any] = {"machine": machine(), "command": vars(options) | {"json": str(options.json)}}
    print(
        "{date}: {cores} cores of {processor}, {memory_gib} GiB, {gpu_count} GPU, Python {python}, torch {torch}, "
        "load {load}".format(**figures["machine"], gpu_count=len(figures["machine"]["gpus"]) or "no")
    )
    for part in options.parts:
        figures[part] = []
        for row in _rows(part, options, methods):
            figures[part].append(row)
            print(f"{part}: {line(part, row)}", flush=True)
            write_json(options.json, figures)
    print(f"Figures: {options.json}")
    return figures


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    return {
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "processor": processor(),
        "cores": usable_cores(),
        "gpus": visible_gpus(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "sousa_bench": sousa_bench.__version__,
    }


def line(part: str, row: dict[str, Any]) -> str:
    """The figures of one measurement in words."""
    text = LINES[part]
    if part == "sweep" and row["ratio"] is not None:
        text += NAIVE_LINE
    if part == "methods":
        row = row | {f"{what}_mib": row[f"{what}_bytes"] / 2**20 for what in ("peak", "activation")}
        row["kind"] = "merged" if row["merges"] else "with its modules"
    by_cause = [f"{cause} {seconds / row['compute_seconds']:.1%}" for cause, seconds in row.get("causes", {}).items()]
    return text.format(**row, by_cause=", ".join(by_cause)).replace("%", " %")


def _size(options: argparse.Namespace) -> list[str]:
    # Of other sizes than tiny, random weights cost what the published ones cost.
    return [] if options.variant == "tiny" else [f"model.variant={options.variant}", "weights=random"]


def _methods(options: argparse.Namespace) -> dict[str, list[str]]:
    """What is measured on each model; says what was named and doesn't fit."""
    from sousa_bench.benchmark.method_costs import fitting

    made = {}
    for model in options.models:
        made[model], unfit = fitting([f"model={model}", *_size(options), *options.overrides], options.methods)
        for reason in unfit:
            print(f"methods: left out: {reason}")
    return made


def _rows(part: str, options: argparse.Namespace, methods: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    size = _size(options)
    if part == "sweep":
        yield sweep([f"model={','.join(options.models)}", *size, *options.overrides], naive_runs=options.naive_runs)
    elif part == "cache":
        yield ask("cache_rate.cache", options.overrides, repeats=options.repeats)
    elif part == "methods":
        for model in options.models:
            words = [f"model={model}", *size, *options.overrides]
            yield from ask("method_costs.method_costs", words, repeats=options.repeats, methods=methods[model])[part]
    else:
        functions = {part: f"{part}.{part}" for part in ("overhead", "precision", "naive")}
        function = functions.get(part, f"arithmetic.{part}")
        more: dict[str, list[list[str]]] = {"naive": [["augmentation=off"]], "inference": [[]]}
        more["precision"] = [[f"augmentation={a}"] for a in options.augmentation]
        more["overhead"] = [[*words, f"trainer.max_epochs={options.epochs}"] for words in more["precision"]]
        for model in options.models:
            for words in more[part]:
                overrides = [f"model={model}", *size, *options.overrides, *words]
                yield ask(function, overrides, repeats=options.repeats)
