"""Search spaces that stand beside their methods: the key ``search`` in ``peft/NAME.yaml`` makes ``search=NAME``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, open_dict

KEY = "search"


def register_spaces(folders: Sequence[Path]) -> None:
    """Let Hydra know the space of each method as a choice of the config group ``search``.

    Such a choice takes the method with it, and asks for a sweep. A file ``search/NAME.yaml`` is taken instead.

    Args:
        folders: Those that hold config groups.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in (file for folder in folders for file in sorted((folder / "peft").glob("*.yaml"))):
        if any((folder / KEY / file.name).exists() for folder in folders):
            continue
        with suppress(OSError, ValueError, yaml.YAMLError):  # Hydra says what is wrong with the file that is chosen
            method = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader, see above
            if isinstance(method, dict) and (space := method.get(KEY)):
                hydra = {"mode": "MULTIRUN", "sweeper": {"params": space}}
                node = {"defaults": [{"override /peft": file.stem}], "hydra": hydra}
                ConfigStore.instance().store(group=KEY, name=file.stem, node=node, package="_global_")
    # Hydra copies its sources, with all that the store holds, for each config and each group that help lists, though
    # the store copies what it hands out.
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]


def drop_space(config: DictConfig) -> DictConfig:
    """Take the space out of a composed config, which is changed: it is no part of a run."""
    method = config.get("peft")
    if isinstance(method, DictConfig) and KEY in method:
        with open_dict(method):
            method.pop(KEY)
    return config
