"""The sweeper that lets Optuna choose: ``hydra/sweeper=optuna``, or a method's space (``search=NAME``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf


class OptunaSweeper(BasicSweeper):
    """Asks Optuna for trials, does them in batches as a sweep does its runs, and tells it what they reached.

    Args:
        params: What varies, as a mapping of key to values in Hydra's sweep syntax.
        direction: ``maximize``, ``minimize``, or None for the metric's own.
        settings: The rest of ``conf/hydra/sweeper/optuna.yaml``.
    """

    def __init__(self, params: dict[str, str] | None = None, direction: str | None = None, **settings: Any) -> None:
        super().__init__(max_batch_size=None, params=params)
        self._direction = direction
        self._settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def sweep(self, arguments: list[str]) -> Any:
        """Search; see :mod:`sousa_bench.search`."""
        from sousa_bench.errors import ConfigError
        from sousa_bench.search.search import search
        from sousa_bench.search.search_settings import SearchSettings

        from .local_launcher import LocalLauncher

        assert self.config is not None
        assert self.hydra_context is not None
        if not isinstance(self.launcher, LocalLauncher):
            raise ConfigError("a search runs with hydra/launcher=local or hydra/launcher=slurm")
        params: Mapping[str, Any] = self.params or {}
        return search(
            self.hydra_context.config_loader,
            self.config,
            self.launcher,
            SearchSettings.of(self._direction, **self._settings),
            {str(key): str(value) for key, value in params.items()},
            arguments,
        )
