"""The sweeper that knows what a run is: ``hydra/sweeper=sousa``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict


class SousaSweeper(BasicSweeper):
    """Composes all jobs first, drops duplicates, skips what is done, and writes the sweep's manifest.

    Args:
        params: What an experiment varies.
        combinations: Lists of overrides; each is crossed with the product of the rest, in the place of their own.
    """

    def __init__(
        self, params: dict[str, str] | None = None, combinations: Sequence[Sequence[str]] | None = None
    ) -> None:
        super().__init__(max_batch_size=None, params=params)
        self._combinations = combinations

    def sweep(self, arguments: list[str]) -> Any:
        """Do the product of the overrides' values; see :mod:`sousa_bench.sweep`."""
        from sousa_bench.sweep.sweep import do_sweep_elsewhere, plan_sweep

        from .local_launcher import LocalLauncher

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        sweep = plan_sweep(loader, self.config, self._jobs(arguments))
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(sweep.folder)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        if isinstance(self.launcher, LocalLauncher):
            return [self.launcher.launch_sweep(sweep)]
        return [do_sweep_elsewhere(sweep, self.launcher)]

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job."""
        from sousa_bench.config.overrides import check_combinations, split
        from sousa_bench.errors import ConfigError

        assert self.hydra_context is not None
        given: Any = self._combinations
        if OmegaConf.is_config(given):
            given = OmegaConf.to_container(given)
        combinations = check_combinations(given, arguments)
        own = {split(word)[0] for combination in combinations for word in combination}
        params = [word for word in self._parse_config() if word.partition("=")[0] not in own]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*params, *arguments])
        if endless := next((each for each in overrides if each.is_interval_sweep()), None):
            raise ConfigError(
                f"{endless.input_line}: an interval has no end of values; let a search choose: hydra/sweeper=optuna"
            )
        [jobs] = self.split_arguments(overrides, None)
        return [[*job, *combination] for combination in combinations or [[]] for job in jobs]
