"""A whole sweep by its command against the arithmetic of its runs, and against one naive process after another."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sousa_bench.benchmark.measurement import ask
from sousa_bench.errors import UserError
from sousa_bench.sweep.resources import fitting_jobs, slots
from sousa_bench.system.python import python_environment

MATRIX = {"model": "ast,htsat,beats,efficientat", "peft": "lora,adalora,ia3", "augmentation": "on,off"}


@dataclass(frozen=True)
class SweepFigures:
    """A sweep on warm data.

    Attributes:
        setup: Its overrides.
        runs: How many.
        n_jobs: Runs at the same time.
        wall_seconds: From the command's start to its end.
        compute_seconds: The arithmetic of all runs, divided by the runs at the same time.
        naive_seconds: The same runs as one naive process after another, scaled up from ``naive_runs`` of them; None
            where that was not measured.
        naive_runs: How many of the runs the naive side was measured on, spread over the sweep.
    """

    setup: str
    runs: int
    n_jobs: int
    wall_seconds: float
    compute_seconds: float
    naive_seconds: float | None
    naive_runs: int

    @property
    def share(self) -> float:
        """Overhead over the arithmetic."""
        return self.wall_seconds / self.compute_seconds - 1

    @property
    def seconds_per_run(self) -> float:
        """Overhead of a run, in seconds of one of the runs at the same time."""
        return (self.wall_seconds - self.compute_seconds) * self.n_jobs / self.runs

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the naive processes."""
        return None if self.naive_seconds is None else self.naive_seconds / self.wall_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain fields."""
        return {**asdict(self), "share": self.share, "seconds_per_run": self.seconds_per_run, "ratio": self.ratio}


def sweep(overrides: Sequence[str], *, naive_runs: int) -> SweepFigures:
    """Do a sweep, then the arithmetic of its runs side by side as the sweep did them, then the naive processes.

    Args:
        overrides: Of the sweep; what they leave open is the comparison's.
        naive_runs: How many of the runs to do as naive processes, evenly spread; all take many times the sweep's time.
    """
    given = dict(word.partition("=")[::2] for word in overrides)
    matrix = {**MATRIX, **{key: value for key, value in given.items() if key in MATRIX}}
    rest = [word for word in overrides if word.partition("=")[0] not in MATRIX]
    combinations = [
        [f"{key}={value}" for key, value in zip(matrix, values, strict=True)] + rest
        for values in itertools.product(*(value.split(",") for value in matrix.values()))
    ]
    n_jobs = min(fitting_jobs(1), len(combinations))
    ask("warm", combinations[0])
    wall = _whole_sweep([*(f"{key}={value}" for key, value in matrix.items()), *rest])
    places = slots(n_jobs)
    with ThreadPoolExecutor(n_jobs) as pool:
        compute = list(
            pool.map(lambda item: ask("compute", item[1], places[item[0] % n_jobs]), enumerate(combinations))
        )
    arithmetic = sum(sum(each["epochs"]) + each["test"] for each in compute) / n_jobs
    slow, naive_runs = None, min(naive_runs, len(combinations))
    if naive_runs:
        started = time.perf_counter()
        for place in spread(len(combinations), naive_runs):
            ask("naive_run", combinations[place])
        slow = (time.perf_counter() - started) * len(combinations) / naive_runs
    return SweepFigures(" ".join(overrides), len(combinations), n_jobs, wall, arithmetic, slow, naive_runs)


def spread(count: int, chosen: int) -> list[int]:
    """Positions of so many of ``count`` runs, evenly spread, by turns at even and odd places."""
    places = [number * count // chosen for number in range(chosen)]
    room = count // chosen > 1
    return [place + number % 2 if room else place for number, place in enumerate(places)]


def _whole_sweep(words: Sequence[str]) -> float:
    """Seconds of the command, in a folder of its own.

    Raises:
        UserError: A run was not completed.
    """
    folder = Path(tempfile.mkdtemp(prefix="sousa_benchmark."))
    try:
        command = [sys.executable, "-m", "sousa_bench.train", "-m", "sweep=benchmark", *words]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=python_environment(), capture_output=True, text=True)
        taken = time.perf_counter() - started
        if done.returncode:
            raise UserError(f"the sweep ended with exit code {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
        return taken
    finally:
        shutil.rmtree(folder, ignore_errors=True)
