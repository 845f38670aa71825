"""Synthetic clips that no command has written yet: written while the fork server imports what runs need."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from sousa_bench.sweep.job import Job

if TYPE_CHECKING:
    from sousa_bench.data import SousaData


def write_early(jobs: Sequence[Job]) -> threading.Thread | None:
    """Begin to write the synthetic clips of the first pending run, beside this thread.

    The imports keep one core busy for seconds before any run can start. A run that starts before the clips are there
    waits for them, as it does for another run's.

    Returns:
        The thread, which keeps no process alive; None where that run's data aren't synthetic.
    """
    first = next((job.config for job in jobs if job.decision == "pending"), None)
    if first is None or OmegaConf.select(first, "data.synthetic", default=None) is None:
        return None
    from sousa_bench.config.instantiate import build  # with Hydra and pandas, which --help does without

    thread = threading.Thread(target=partial(_write, build(first.data)), name="early clips", daemon=True)
    thread.start()
    return thread


def _write(data: SousaData) -> None:
    with suppress(Exception):  # the run meets it again, and its result says it
        _ = data.source
