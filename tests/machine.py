"""How slow this machine is at present: waits are what a quiet one needs, times that."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time

WORK = "import hydra.main, numpy; sum(i * i for i in range(2_000_000))"
QUIET = 1.2
"""Seconds that a Python doing this takes on two quiet cores."""


@functools.cache
def slowness() -> float:
    """Measured once a session; 1 on a quiet machine, times the processes that run tests side by side with `-n`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", WORK], check=True)
    lanes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return lanes * max(1.0, (time.perf_counter() - started) / QUIET)


def patience(seconds: float) -> float:
    """How long to wait here for what takes up to ``seconds`` on a quiet machine."""
    return round(seconds * slowness(), 1)
