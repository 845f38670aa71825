"""What each of several runs at a time may use: its own GPU, or its share of the cores."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from sousa_bench.system.cores import visible_cores


@dataclass(frozen=True)
class Slot:
    """One place for a run.

    Attributes:
        number: From 0.
        environment: Variables of a run in this place.
        cpus: Cores that it stays on, or None for all.
        threads: Threads of PyTorch's operations.
    """

    number: int
    environment: dict[str, str] = field(default_factory=dict)
    cpus: list[int] | None = None
    threads: int = 1


def slots(n_jobs: int, devices: int = 1) -> list[Slot]:
    """Divide the machine into ``n_jobs`` places, each with GPUs for a run of ``devices`` processes.

    A single run gets everything, in Lightning's usual order. Several runs take the visible GPUs round robin (more
    runs than GPUs share them), and each its share of the cores. ``OMP_NUM_THREADS``, when set, is the number of
    threads of each run.
    """
    cores = visible_cores()
    share = max(1, len(cores) // n_jobs)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdecimal() and int(asked) > 0 else share
    if n_jobs == 1:
        return [Slot(0, {"OMP_NUM_THREADS": str(threads)}, None, threads)]
    gpus = visible_gpus()
    places = []
    for number in range(n_jobs):
        environment = {"OMP_NUM_THREADS": str(threads)}
        if gpus:
            own = [gpus[(number * devices + place) % len(gpus)] for place in range(min(devices, len(gpus)))]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        first = number * share % len(cores)
        places.append(Slot(number, environment, cores[first : first + share], threads))
    return places


def fitting_jobs(devices: int) -> int:
    """How many runs at a time ``n_jobs=auto`` means.

    One a GPU where there are GPUs. Without, one a core as long as each finds 4 GiB of free memory, at most eight: a
    model that is small enough for a CPU gains more from a neighbour than from a second thread.

    Args:
        devices: Devices of each run.
    """
    if gpus := visible_gpus():
        return max(1, len(gpus) // devices)
    room = psutil.virtual_memory().available // (4 * 2**30)
    return max(1, min(len(visible_cores()), room, 8) // devices)


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` names, else every NVIDIA GPU's number; empty without one. Loads no CUDA."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
        if answer.returncode == 0:
            return answer.stdout.split()
    return []
