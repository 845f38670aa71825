"""What each of several runs at a time may use: its own GPU, and its share of the threads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import psutil

from sousa_bench.system.cores import usable_cores
from sousa_bench.system.gpus import visible_gpus

MOST_ON_GPU = 8
"""Runs on a GPU at the same time, of its own accord."""


@dataclass(frozen=True)
class Slot:
    """One place for a run.

    Attributes:
        number: From 0.
        environment: Variables of a run in this place.
        threads: Threads of PyTorch's operations.
    """

    number: int
    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1

    @property
    def gpus(self) -> list[str]:
        """The GPUs of a run in this place; empty where it has none, or all."""
        return list(filter(None, self.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")))


def slots(n_jobs: int, devices: int = 1) -> list[Slot]:
    """Divide the machine into ``n_jobs`` places, each with GPUs for a run of ``devices`` processes.

    A single run gets everything, in Lightning's usual order. Several runs take the visible GPUs round robin (more
    runs than GPUs share them), and each as many threads as its share of the cores; ``OMP_NUM_THREADS``, when set, says
    another number. On which cores they run is the system's to choose, which knows what else runs on the machine.
    """
    share = max(1, usable_cores() // n_jobs)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdecimal() and int(asked) > 0 else share
    gpus = visible_gpus() if n_jobs > 1 else []
    places = []
    for number in range(n_jobs):
        environment = {"OMP_NUM_THREADS": str(threads)}
        if gpus:
            own = [gpus[(number * devices + place) % len(gpus)] for place in range(min(devices, len(gpus)))]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        places.append(Slot(number, environment, threads))
    return places


def fitting_jobs(devices: int, per_gpu: int | str | None = None) -> int:
    """How many runs at a time ``n_jobs=auto`` means.

    One a GPU where there are GPUs. Without, one a core as long as each finds 4 GiB of free memory, at most eight: a
    model that is small enough for a CPU gains more from a neighbour than from a second thread.

    Args:
        devices: Devices of each run.
        per_gpu: Most runs on a GPU, instead of one; ``auto``: one a core, at most eight.
    """
    if gpus := visible_gpus():
        if per_gpu == "auto":
            per_gpu = max(1, min(usable_cores() // len(gpus), MOST_ON_GPU))
        return max(1, len(gpus) * int(per_gpu or 1) // devices)
    room = psutil.virtual_memory().available // (4 * 2**30)
    return max(1, min(usable_cores(), room, 8) // devices)
