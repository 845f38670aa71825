"""This machine's NVIDIA GPUs, as ``nvidia-smi`` tells of them: asking it loads no CUDA into this process."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from functools import cache

SHARED = "SOUSA_BENCH_SHARED_GPU"
"""Variable that a sweep sets for a run whose GPU may hold other runs beside it."""


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` names, else every NVIDIA GPU's number; empty without one."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip() not in ("", "-1")]
    return list(_every_gpu())


def busy_share(uuid: str) -> int | None:
    """Per cent of the last moment in which a GPU worked; None where that can't be known, as of a part of one (MIG)."""
    answer = _ask("utilization.gpu", "-i", uuid)
    return int(answer[0]) if len(answer) == 1 and answer[0].isdecimal() else None


def shares_gpu() -> bool:
    """Whether this process is a run whose GPU may hold other runs."""
    return os.environ.get(SHARED) == "1"


@cache
def _every_gpu() -> tuple[str, ...]:
    """Numbers of the machine's GPUs, asked for once: every config of a sweep wants to know."""
    return tuple(_ask("index"))


def _ask(what: str, *which: str) -> list[str]:
    """A word for each GPU; empty where there is none, or no answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", *which]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if answer.returncode == 0:
            return answer.stdout.split()
    return []
