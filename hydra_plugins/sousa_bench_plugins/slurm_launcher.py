"""The launcher for a cluster: ``hydra/launcher=slurm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from .local_launcher import LocalLauncher, job_return

if TYPE_CHECKING:
    from sousa_bench.sweep.plan import SweepSettings
    from sousa_bench.sweep.progress import Progress
    from sousa_bench.sweep.sweep import Sweep


class SlurmLauncher(LocalLauncher):
    """Submits a sweep as one job array and follows it; ``conf/hydra/launcher/slurm.yaml`` explains the values."""

    def __init__(self, **preset: Any) -> None:
        super().__init__(float(preset.get("grace", 30.0)))
        self._preset: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in preset.items()
        }

    def launch_sweep(self, sweep: Sweep, progress: Progress | None = None) -> Sequence[JobReturn]:
        """See :class:`LocalLauncher`."""
        from sousa_bench.sweep.slurm.job_array import do_sweep_on_slurm
        from sousa_bench.sweep.slurm.submit import Preset

        return [job_return(outcome) for outcome in do_sweep_on_slurm(sweep, Preset(**self._preset), progress)]

    def width(self, settings: SweepSettings) -> int:
        """See :class:`LocalLauncher`."""
        from sousa_bench.sweep.slurm.submit import Preset

        preset = Preset(**self._preset)
        return preset.array_parallelism * preset.runs_per_task
