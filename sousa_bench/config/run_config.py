"""A run's config, as its resolved values and as Hydra's own object. Imports no Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.config_errors import resolved
from sousa_bench.config.identity import IRRELEVANT


class RunConfig:
    """The config of one run.

    Args:
        config: The composed one, which the caller changes no more.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config

    def whole(self) -> DictConfig:
        """Hydra's object, with its node ``hydra``."""
        return self._config

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """See :func:`values_of`; not to be changed."""
        return values_of(self._config)

    def having(self, key: str, value: Any) -> RunConfig:
        """The same with another value of a key that is there."""
        config = self._config.copy()
        OmegaConf.update(config, key, value)
        return RunConfig(config)


def values_of(config: DictConfig) -> dict[str, Any]:
    """A config as plain containers, interpolations resolved; ``???`` for what is missing.

    Of the node ``hydra`` it holds two switches of the launcher. In another group that doesn't count for a run's
    identity, such as ``logger``, only ``_target_`` and ``mode`` are resolved: the rest may lead to what only the run
    itself knows, as ``${hydra:runtime.output_dir}`` does.

    Raises:
        ConfigError: An interpolation leads nowhere.
    """
    with resolved():
        return {str(key): _value(config, key) for key in config}


def _value(config: DictConfig, key: Any) -> Any:
    if OmegaConf.is_missing(config, key):
        return "???"
    node = config[key]
    if key == "hydra":
        launcher = OmegaConf.select(node, "launcher") or {}
        return {"launcher": {name: launcher.get(name) for name in ("grace", "runs_per_gpu") if name in launcher}}
    if not OmegaConf.is_config(node):
        return node
    if key not in IRRELEVANT:
        return OmegaConf.to_container(node, resolve=True)
    plain = OmegaConf.to_container(node)
    if isinstance(plain, dict):
        plain |= {name: node.get(name) for name in ("_target_", "mode") if name in plain}
    return plain


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots in a config or in plain values; None where there is none."""
    value: Any = config
    for part in key.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
