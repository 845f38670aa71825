"""What an ``experiment`` sets, spelled out as overrides, so that they may go on without it. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sousa_bench.analysis.flatten import leaves
from sousa_bench.errors import UserError
from sousa_bench.paths import conf_folder
from sousa_bench.search.space import _text
from sousa_bench.sweep.config_errors import explain, is_config_error
from sousa_bench.sweep.plan import split


def spelled_out(overrides: Sequence[str], resolved: Mapping[str, Any], config_folder: Path | None) -> list[str]:
    """The overrides of a run without ``experiment``, what that chose and set spelled out before them.

    Args:
        overrides: The run's.
        resolved: Its resolved config as dotted leaves, whose values count.
        config_folder: Another folder with choices, as the training's ``--config-dir``.

    Raises:
        UserError: The experiment can't be composed here.
    """
    rest = [word for word in overrides if split(word)[0] != "experiment"]
    if len(rest) == len(overrides):
        return list(overrides)
    (theirs, whole), (ours, _) = _composed(overrides, config_folder), _composed(rest, config_folder)
    groups = [
        f"{group}={_text(choice)}"
        for group, choice in theirs.items()
        if ours.get(group) != choice and group != "experiment" and not group.startswith("hydra/")
    ]
    there = _composed([*groups, *rest], config_folder)[1]
    values = [
        f"{'' if key in there else '++'}{key}={_text(resolved.get(key, value))}"
        for key, value in whole.items()
        if key not in there or there[key] != value
    ]
    return [*groups, *values, *rest]


def _composed(overrides: Sequence[str], config_folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The choice of each group, and the config's leaves with interpolations as they are written."""
    search = [] if config_folder is None else [f"hydra.searchpath=[file://{config_folder.absolute()}]"]
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            cfg = compose("config", overrides=[*overrides, *search], return_hydra_config=True)
    except Exception as error:
        if not is_config_error(error):
            raise
        raise UserError(f"what the runs' experiment set can't be told: {explain(error)}") from error
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    assert isinstance(choices, dict)
    return {str(group): choice for group, choice in choices.items()}, _leaves(cfg)


def _leaves(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return leaves({str(key): value for key, value in plain.items() if key != "hydra"})
