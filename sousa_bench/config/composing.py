"""Composing configs: those of a whole sweep, quickly, and one outside of a training command. Imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import hydra
from hydra._internal.config_repository import ConfigRepository
from omegaconf import DictConfig

from sousa_bench.config import conf_folder
from sousa_bench.config.config_errors import explained
from sousa_bench.config.like_configs import NUMBER, Kind, LikeConfig
from sousa_bench.config.overrides import split
from sousa_bench.config.run_config import RunConfig
from sousa_bench.config.search_spaces import drop_space
from sousa_bench.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


class RememberingRepository(ConfigRepository):
    """Reads each config file once for all jobs of a sweep; reading is a third of the time that composing takes."""

    files: ClassVar[dict[tuple[Any, ...], Any]] = {}

    def load_config(self, config_path: str) -> Any:
        """The parsed file, as a copy that the composition may change."""
        key = (config_path, *((source.scheme(), source.path) for source in self.get_sources()))
        if key not in self.files:
            self.files[key] = super().load_config(config_path)
        return copy.deepcopy(self.files[key])


def remember_files(loader: ConfigLoader) -> None:
    """Let a config loader read each file once."""
    repository = getattr(loader, "repository", None)
    if type(repository) is ConfigRepository:
        repository.__class__ = RememberingRepository


def compose(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Compose one job's config.

    Raises:
        ConfigError: It can't be composed; the message says why, what comes closest, and which job it is.
    """
    try:
        with explained():
            return drop_space(loader.load_sweep_config(master, list(overrides)))
    except ConfigError as error:
        raise ConfigError(f"{error} (in the run {' '.join(overrides)})") from error


class Composer:
    """Composes the jobs of a sweep; of those that differ in plain numbers alone, one: the others are like it.

    Args:
        loader: Hydra's.
        master: The config that the sweep was started with.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        remember_files(loader)
        self._loader = loader
        self._master = master
        self._kinds: dict[tuple[str, ...], Kind] = {}

    def compose(self, overrides: Sequence[str]) -> RunConfig:
        """Compose one job's config; see :func:`compose`."""
        numbers = [word for word in overrides if NUMBER.fullmatch(word)]
        name = tuple(split(word)[0] + "=" if word in numbers else word for word in overrides)
        if (kind := self._kinds.get(name)) is not None:
            return LikeConfig(kind, overrides, numbers)
        config = compose(self._loader, self._master, overrides)
        if numbers and _stand_alone(numbers, overrides, config.hydra.runtime.choices):
            self._kinds[name] = Kind(config, [split(word)[0] for word in numbers])
        return RunConfig(config)


def _stand_alone(numbers: Sequence[str], overrides: Sequence[str], choices: Collection[str]) -> bool:
    """Whether each of the numbers has a key that chooses nothing, and into which no other override reaches."""
    ways = [f"{key}." for key, value in map(split, overrides) if key not in choices or value.startswith("{")]
    own = [f"{split(word)[0]}." for word in numbers]
    return all(
        key[:-1] not in choices and sum(way.startswith(key) or key.startswith(way) for way in ways) == 1 for key in own
    )


def composed(overrides: Sequence[str], config_folder: Path | None = None, *, with_hydra: bool = False) -> DictConfig:
    """Compose the root config: the package's own choices, with a user's beside them.

    Args:
        overrides: As on the command line.
        config_folder: Another folder with choices, as the training's ``--config-dir``.
        with_hydra: Whether Hydra's own node stays in it.

    Raises:
        ConfigError: It can't be composed.
    """
    search = [] if config_folder is None else [f"hydra.searchpath=[file://{config_folder.absolute()}]"]
    with explained(), hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return drop_space(hydra.compose("config", overrides=[*overrides, *search], return_hydra_config=with_hydra))
