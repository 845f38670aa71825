"""A config composed outside of a training command: the package's own, with a user's choices beside it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from sousa_bench.config.config_errors import explain, is_config_error
from sousa_bench.config.paths import conf_folder
from sousa_bench.errors import ConfigError


def composed(overrides: Sequence[str], config_folder: Path | None = None, *, with_hydra: bool = False) -> DictConfig:
    """Compose the root config.

    Args:
        overrides: As on the command line.
        config_folder: Another folder with choices, as the training's ``--config-dir``.
        with_hydra: Whether Hydra's own node stays in it.

    Raises:
        ConfigError: It can't be composed.
    """
    search = [] if config_folder is None else [f"hydra.searchpath=[file://{config_folder.absolute()}]"]
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return compose("config", overrides=[*overrides, *search], return_hydra_config=with_hydra)
    except Exception as error:
        if not is_config_error(error):
            raise
        raise ConfigError(explain(error)) from error
