"""Our own rudiments: written once into the cache in the generator's layout, then read like any other data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sousa_bench.data.cache_folder import ELSEWHERE, filled_by_one
from sousa_bench.data.sources.generator_folder import GeneratorFolder
from sousa_bench.data.sources.source import digest
from sousa_bench.data.synthetic import describe
from sousa_bench.data.values import check_keys
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.system.number_checks import is_whole

log = logging.getLogger("sousa_bench.data")

_KEYS = ("clips", "seed", "domain", "split_players")


def recipe(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the dataset's content; equal recipes mean bit-identical datasets.

    Args:
        parameters: `data.synthetic` of the config.

    Raises:
        ConfigError: A key that is unknown or missing, or an impossible value.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(
            f"data.synthetic={str(parameters)[:60]} can't be: it is {', '.join(_KEYS)} with their values."
        )
    check_keys("data.synthetic", parameters, _KEYS)
    for key, least in (("clips", 40), ("seed", 0)):
        value = parameters.get(key)
        if not is_whole(value, least):
            raise ConfigError(f"data.synthetic.{key}={value} can't be: it must be a whole number of at least {least}.")
    players = parameters.get("split_players")
    if players is not None:
        three = isinstance(players, list | tuple) and len(players) == 3
        if not three or not all(is_whole(count, 1) for count in players):
            raise ConfigError(
                f"data.synthetic.split_players={players} can't be: it must be the numbers of train, val and test "
                "players, each at least 1, such as [70,13,20]."
            )
    given = {key: value for key, value in parameters.items() if value is not None}
    if players is not None:
        given["split_players"] = tuple(players)
    return describe(**given)


class SyntheticFolder(GeneratorFolder):
    """A dataset of our own generator.

    Args:
        root: Where it lies in the cache.
        content: Its `recipe`.
    """

    layout = "synthetic"

    def __init__(self, root: Path, content: Mapping[str, Any]) -> None:
        super().__init__(root)
        self.place = f"synthetic data ({content['clips']} clips, seed {content['seed']}, in {root})"

    def missing(self, name: str) -> str:
        """What was lost can be made again."""
        return f"{name} is missing (delete {self.root}, and the dataset is written again)"


def synthetic_folder(parameters: Mapping[str, Any], cache: Path) -> Path:
    """Where the dataset of a recipe lies in the folder of all caches, written or not.

    Raises:
        ConfigError: See `recipe`.
    """
    content = recipe(parameters)
    name = digest(*(f"{key}={content[key]}" for key in sorted(content))).hex()[:16]
    return cache / "synthetic" / f"{content['domain']}-{content['clips']}-s{content['seed']}-{name}"


def synthetic_source(
    parameters: Mapping[str, Any],
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> SyntheticFolder:
    """The dataset of a recipe, written first if need be; of several processes that want it, one writes.

    Args:
        parameters: `data.synthetic` of the config.
        cache: Folder of all caches.
        progress: Called now and then with (clips written, clips to write).
        workers: Processes that write; None: one for each usable core.

    Raises:
        ConfigError: See `recipe`.
        DataError: It can't be written.
    """
    content, folder = recipe(parameters), synthetic_folder(parameters, cache)
    if not SyntheticFolder.fits(folder):
        from sousa_bench.data.synthetic.writer import write_dataset

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filled_by_one(folder.with_suffix(".lock"), "writing the synthetic clips"):
                if not SyntheticFolder.fits(folder):
                    log.info("Writing %s synthetic clips, once, to %s", f"{content['clips']:,}", folder)
                    parts = {key: content[key] for key in _KEYS}
                    write_dataset(folder, **parts, progress=progress, workers=workers)
        except OSError as error:
            raise DataError(
                f"The synthetic data can't be written to {folder} ({error.strerror or error}): free some space, or "
                f"choose another folder with {ELSEWHERE}."
            ) from error
    return SyntheticFolder(folder, content)
