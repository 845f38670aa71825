"""A whole sweep by its command against the arithmetic of its runs, and against one naive process after another."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sousa_bench.benchmark.measurement import ask
from sousa_bench.errors import UserError
from sousa_bench.sweep.resources import fitting_jobs, slots
from sousa_bench.system.python import python_environment

MATRIX = {"model": "ast,htsat,beats,efficientat", "peft": "lora,adalora,ia3", "augmentation": "on,off"}


def sweep(overrides: Sequence[str], *, naive_runs: int) -> dict[str, Any]:
    """Do a sweep on warm data, then the arithmetic of its runs, as many at the same time, then naive processes.

    Args:
        overrides: Of the sweep; what they leave open is the comparison's.
        naive_runs: How many of the runs to do as naive processes, evenly spread; all take many times the sweep's time.

    Returns:
        ``wall_seconds`` of the command; ``compute_seconds``, the arithmetic of all ``runs`` divided by the ``n_jobs``
        at the same time; ``share``, the overhead over the arithmetic; ``seconds_per_run``, the overhead of a run, in
        seconds of one of the runs at the same time; ``naive_seconds`` of one naive process after another, scaled up
        from ``naive_runs`` of them, and ``ratio``, how many times as fast the sweep is: None where not measured.
    """
    given = dict(word.partition("=")[::2] for word in overrides)
    matrix = {**MATRIX, **{key: value for key, value in given.items() if key in MATRIX}}
    rest = [word for word in overrides if word.partition("=")[0] not in MATRIX]
    combinations = [
        [f"{key}={value}" for key, value in zip(matrix, values, strict=True)] + rest
        for values in itertools.product(*(value.split(",") for value in matrix.values()))
    ]
    runs = len(combinations)
    n_jobs = min(fitting_jobs(1), runs)
    ask("arithmetic.prepare", combinations[0])
    wall = timed_command([*(f"{key}={value}" for key, value in matrix.items()), *rest])
    places = itertools.cycle(slots(n_jobs))
    with ThreadPoolExecutor(n_jobs) as pool:
        measured = list(pool.map(lambda words, place: ask("arithmetic.bare", words, place), combinations, places))
    compute = sum(sum(each["epochs"]) + each["test"] for each in measured) / n_jobs
    naive, naive_runs = None, min(naive_runs, runs)
    if naive_runs:
        started = time.perf_counter()
        for place in spread(runs, naive_runs):
            ask("naive.naive_run", combinations[place])
        naive = (time.perf_counter() - started) * runs / naive_runs
    return {
        "setup": " ".join(overrides),
        "runs": runs,
        "n_jobs": n_jobs,
        "wall_seconds": wall,
        "compute_seconds": compute,
        "naive_seconds": naive,
        "naive_runs": naive_runs,
        "share": wall / compute - 1,
        "seconds_per_run": (wall - compute) * n_jobs / runs,
        "ratio": None if naive is None else naive / wall,
    }


def spread(count: int, chosen: int) -> list[int]:
    """Positions of so many of ``count`` runs, evenly spread, by turns at even and odd places."""
    places = [number * count // chosen for number in range(chosen)]
    room = count // chosen > 1
    return [place + number % 2 if room else place for number, place in enumerate(places)]


def timed_command(words: Sequence[str], **variables: str) -> float:
    """Seconds of the command, in a folder of its own, with ``variables`` in its environment.

    Raises:
        UserError: A run was not completed.
    """
    command = [sys.executable, "-m", "sousa_bench.train", "-m", "sweep=benchmark", *words]
    with tempfile.TemporaryDirectory(prefix="sousa_benchmark.", ignore_cleanup_errors=True) as folder:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=python_environment(**variables), capture_output=True, text=True)
        taken = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"the sweep ended with exit code {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return taken
