"""What an ``experiment`` sets, spelled out as overrides, so that they may go on without it. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sousa_bench.config.composing import composed
from sousa_bench.config.overrides import literal, split
from sousa_bench.errors import ConfigError, UserError


def spelled_out(overrides: Sequence[str], resolved: Mapping[str, Any], config_folder: Path | None) -> list[str]:
    """The overrides of a run without ``experiment``, what that chose and set spelled out before them.

    Args:
        overrides: The run's, an experiment among them.
        resolved: Its resolved config, whose values count.
        config_folder: Another folder with choices, as the training's ``--config-dir``.

    Raises:
        UserError: The experiment can't be composed here.
    """
    rest = [word for word in overrides if split(word)[0] != "experiment"]
    (theirs, whole), (ours, _) = _composed(overrides, config_folder), _composed(rest, config_folder)
    groups = [
        f"{group}={literal(choice)}"
        for group, choice in theirs.items()
        if ours.get(group) != choice and group != "experiment" and not group.startswith("hydra/")
    ]
    there, had = _composed([*groups, *rest], config_folder)[1], dict(_leaves(resolved))
    values = [
        f"{'' if key in there else '++'}{key}={literal(had.get(key, value))}"
        for key, value in whole.items()
        if key not in there or there[key] != value
    ]
    return [*groups, *values, *rest]


def _composed(overrides: Sequence[str], config_folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The choice of each group, and the config's leaves with interpolations as they are written."""
    try:
        cfg = composed(overrides, config_folder, with_hydra=True)
    except ConfigError as error:
        raise UserError(f"what the runs' experiment set can't be told: {error}") from error
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    choices: dict[str, Any] = plain.pop("hydra")["runtime"]["choices"]
    return choices, dict(_leaves(plain))


def _leaves(node: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, lists as they are."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
