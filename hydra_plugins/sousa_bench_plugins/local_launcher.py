"""The launcher for this machine: ``hydra/launcher=local``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from sousa_bench.sweep.job import Outcome
    from sousa_bench.sweep.plan import SweepSettings
    from sousa_bench.sweep.progress import Progress
    from sousa_bench.sweep.sweep import Sweep


class LocalLauncher(Launcher):
    """Runs ``n_jobs`` supervised processes at a time, the next as soon as one ends.

    Args:
        grace: Seconds that a run gets to save its state before it is killed.
        timeout_min: Minutes that an attempt may take at most, beside ``timeout``; None: no other limit.
        runs_per_gpu: Most runs on a GPU, or ``auto``; None: as many as ``n_jobs`` makes.
    """

    def __init__(
        self, grace: float = 30.0, timeout_min: float | None = None, runs_per_gpu: int | str | None = None
    ) -> None:
        self.grace = grace
        self.runs_per_gpu = runs_per_gpu
        self.timeout_min = timeout_min
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self._folder: Path | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the runs call sousa_bench's own function, not ``task_function``."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do one batch of another sweeper's, such as Optuna's.

        Raises:
            KeyboardInterrupt: An earlier batch was stopped by a signal.
            UserError: A run of an earlier batch failed, under ``on_error=stop``.
        """
        from sousa_bench.sweep.plan import SweepSettings
        from sousa_bench.sweep.session import check_going_on
        from sousa_bench.sweep.sweep import plan_sweep

        assert self.config is not None
        assert self.hydra_context is not None
        check_going_on(SweepSettings.of(self.config))
        sweep = plan_sweep(self.hydra_context.config_loader, self.config, job_overrides, self._folder)
        self._folder = sweep.folder
        return self.launch_sweep(sweep)

    def launch_sweep(self, sweep: Sweep, progress: Progress | None = None) -> Sequence[JobReturn]:
        """Do a planned sweep.

        Args:
            sweep: The plan.
            progress: That of the larger whole, where this is one of its batches.

        Raises:
            ConfigError: ``timeout_min`` is no time.
        """
        from sousa_bench.errors import ConfigError
        from sousa_bench.sweep.sweep import do_sweep_here

        if self.timeout_min is not None:
            if not (isinstance(self.timeout_min, int | float) and 0 < self.timeout_min < math.inf):
                raise ConfigError(f"hydra.launcher.timeout_min={self.timeout_min}: it must be above 0, or null")
            for job in sweep.jobs:
                job.source = job.source.having("timeout", min(job.timeout or math.inf, 60 * self.timeout_min))
        return [job_return(outcome) for outcome in do_sweep_here(sweep, progress)]

    def width(self, settings: SweepSettings) -> int:
        """How many runs go on at the same time."""
        return settings.n_jobs


def job_return(outcome: Outcome) -> JobReturn:
    """An outcome in Hydra's terms. A failed run is a NaN and never an exception, which would end the sweep."""
    returned: Any = JobReturn(
        overrides=outcome.job.overrides,
        working_dir=str(outcome.job.folder),
        task_name="train",
        status=JobStatus.COMPLETED,
    )
    returned.return_value = outcome.score
    return returned
