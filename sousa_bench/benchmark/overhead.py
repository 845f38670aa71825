"""A run's wall time against the arithmetic of the same model, batches and steps."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.profilers import Profiler

from sousa_bench.benchmark.arithmetic import bare
from sousa_bench.config.composing import composed
from sousa_bench.training.run import run

CAUSES = ("inputs", "metrics", "checkpoint", "log", "record")


class EpochProfiler(Profiler):
    """Notes when the epochs of a run end, and what takes how long in each.

    Attributes:
        epochs: Seconds of each.
        causes: Seconds of each epoch by cause; what happens inside another cause counts once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []
        self.causes: dict[str, list[float]] = {cause: [] for cause in CAUSES}
        self._spent = dict.fromkeys(CAUSES, 0.0)
        self._open: list[tuple[float, float]] = []
        self._epoch_began = 0.0

    def start(self, action_name: str) -> None:
        """An action begins."""
        if action_name in CAUSES:
            self._open.append((time.perf_counter(), sum(self._spent.values())))

    def stop(self, action_name: str) -> None:
        """An action ends; an epoch reaches from one end of the callback that saves to the next."""
        now = time.perf_counter()
        if action_name in CAUSES:
            began, spent_before = self._open.pop()
            self._spent[action_name] += now - began - (sum(self._spent.values()) - spent_before)
        elif action_name.endswith("KeepState.on_train_start"):
            self._epoch_began = now
        elif action_name.endswith("KeepState.on_validation_end"):
            self.epochs.append(now - self._epoch_began)
            self._epoch_began = now
            for cause in CAUSES:
                self.causes[cause].append(self._spent[cause])
            self._spent = dict.fromkeys(CAUSES, 0.0)


def profiled_run(cfg: DictConfig) -> EpochProfiler:
    """Do a real run in this process, with its logger, checkpoints and result file."""
    profiler = EpochProfiler()
    with tempfile.TemporaryDirectory() as folder:
        run(cfg, Path(folder) / "run", profiler=profiler)
    return profiler


def overhead(overrides: Sequence[str], *, repeats: int) -> dict[str, Any]:
    """Take turns: a run, the arithmetic of the same run, then the other way round, and so on.

    A pass that doesn't count comes first, since a process that has just begun is slower.

    Args:
        overrides: What to run, with at least two epochs.
        repeats: Turns.

    Returns:
        Medians of the epochs from the second on, training and validation together: ``run_seconds``,
        ``compute_seconds``, ``share`` (the overhead over the arithmetic) and ``causes``: seconds of the run by cause,
        of which ``other`` is Lightning's loop and what is between.
    """
    cfg = composed(overrides)
    runs: list[float] = []
    computes: list[float] = []
    causes: dict[str, list[float]] = {cause: [] for cause in CAUSES}
    if cfg.augmentation.name != "off":  # there the inputs are arithmetic too
        del causes["inputs"]
    bare(overrides)
    for turn in range(repeats):
        for side in ("run", "arithmetic") if turn % 2 == 0 else ("arithmetic", "run"):
            if side == "arithmetic":
                computes += bare(overrides)["epochs"][1:]
                continue
            profiler = profiled_run(cfg)
            runs += profiler.epochs[1:]
            for cause, seconds in causes.items():
                seconds += profiler.causes[cause][1:]
    total, compute = statistics.median(runs), statistics.median(computes)
    by_cause = {cause: statistics.median(seconds) for cause, seconds in causes.items()}
    by_cause["other"] = max(0.0, total - compute - sum(by_cause.values()))
    return {
        "setup": " ".join(overrides),
        "epochs": len(runs),
        "run_seconds": total,
        "compute_seconds": compute,
        "causes": by_cause,
        "share": total / compute - 1,
    }
