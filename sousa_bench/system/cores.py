"""The cores that a process may use: a run of a sweep keeps to its share, but data that all share are made on all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WHOLE = "SOUSA_BENCH_CORES"
"""Variable that a sweep sets for a run that is kept to some cores: the numbers of all that the sweep has."""


def visible_cores() -> list[int]:
    """Numbers of the cores that this process may use; under Slurm or taskset those are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many they are."""
    return len(visible_cores())


def keep_to(cores: list[int]) -> None:
    """Keep this process to some of its cores, and remember the others for :func:`all_cores`."""
    if not hasattr(os, "sched_setaffinity"):
        return
    whole = visible_cores()
    with suppress(OSError):  # a core that was taken away meanwhile
        os.sched_setaffinity(0, cores)
        os.environ[WHOLE] = ",".join(map(str, whole))


@contextmanager
def all_cores() -> Iterator[None]:
    """Give the threads and processes that are started inside every core of the sweep.

    One run makes the data that all share, and the others wait for it: their cores would be idle.
    """
    named = os.environ.get(WHOLE)
    if not named or not hasattr(os, "sched_setaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, {int(core) for core in named.split(",")})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, own)
