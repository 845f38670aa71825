"""The cores that a process may use; under Slurm or taskset those are fewer than the machine has."""

import os


def usable_cores() -> int:
    """How many they are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
