"""Composing configs: those of a whole sweep, quickly, and one outside of a training command. Imports no torch."""

from __future__ import annotations

import copy
import functools
import pickle
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from sousa_bench.config import conf_folder
from sousa_bench.config.config_errors import explained
from sousa_bench.config.overrides import split
from sousa_bench.config.search_spaces import drop_space

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

NUMBER = re.compile(r"(?!hydra\.)[a-z]\w*(\.\w+)*=\d+(\.\d+)?(e-?\d+)?")
"""An override of a key by a plain number, which chooses nothing."""


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
        ConfigError: It can't be composed; the message says why and what comes closest.
    """
    with explained():
        return drop_space(loader.load_sweep_config(master, list(overrides)))


class Composer:
    """Composes the jobs of a sweep; of those that differ in plain numbers alone, one: the others are copies of it.

    Args:
        loader: Hydra's.
        master: The config that the sweep was started with.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        remember_files(loader)
        self._loader = loader
        self._master = master
        self._kinds: dict[tuple[str, ...], bytes] = {}  # pickled: a third of the time that copying takes

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose one job's config; see :func:`compose`."""
        numbers = [word for word in overrides if NUMBER.fullmatch(word)]
        kind = tuple(split(word)[0] + "=" if word in numbers else word for word in overrides)
        if (like := self._kinds.get(kind)) is not None:
            return _with_numbers(pickle.loads(like), overrides, numbers)  # noqa: S301 - written below
        config = compose(self._loader, self._master, overrides)
        if numbers and _stand_alone(numbers, overrides, config.hydra.runtime.choices):
            self._kinds[kind] = pickle.dumps(config)
        return config


def _stand_alone(numbers: Sequence[str], overrides: Sequence[str], choices: Collection[str]) -> bool:
    """Whether each of the numbers has a key that chooses nothing, and into which no other override reaches."""
    ways = [f"{key}." for key, value in map(split, overrides) if key not in choices or value.startswith("{")]
    own = [f"{split(word)[0]}." for word in numbers]
    return all(
        key[:-1] not in choices and sum(way.startswith(key) or key.startswith(way) for way in ways) == 1 for key in own
    )


def _with_numbers(config: DictConfig, overrides: Sequence[str], numbers: Sequence[str]) -> DictConfig:
    """Put numbers, and what Hydra notes of its overrides, into a copy of a config that has others."""
    parsed = [_parsed(word) for word in overrides]
    with explained():
        ConfigLoaderImpl._apply_overrides_to_config([one for one in parsed if one.input_line in numbers], config)
    job, own = config.hydra.job, [one for one in parsed if not one.is_hydra_override()]
    config.hydra.overrides.task = [one.input_line for one in own]
    form = job.config.override_dirname
    job.override_dirname = get_overrides_dirname(
        own, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
    )
    return config


@functools.lru_cache(maxsize=1024)
def _parsed(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


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
