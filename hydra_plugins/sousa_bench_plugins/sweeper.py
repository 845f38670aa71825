"""The sweeper that knows what a run is: ``hydra/sweeper=sousa``."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict


class SousaSweeper(BasicSweeper):
    """Composes all jobs first, drops duplicates, skips what is done, and writes the sweep's manifest."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Do the product of the overrides' values; see :mod:`sousa_bench.sweep`."""
        from sousa_bench.sweep.session import elsewhere, plan_sweep

        from .local_launcher import LocalLauncher

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        [jobs] = self.split_arguments(overrides, None)
        sweep = plan_sweep(loader, self.config, jobs)
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(sweep.folder)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        if isinstance(self.launcher, LocalLauncher):
            return [self.launcher.launch_sweep(sweep)]
        return [elsewhere(sweep, self.launcher)]
