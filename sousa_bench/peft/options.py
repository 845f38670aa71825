"""A ``conf/peft`` node: our own options beside the fields of the class that ``_target_`` names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from sousa_bench.errors import ConfigError

OWN_FIELDS = ("target_modules", "exclude_modules", "modules_to_save", "task_type", "peft_type", "inference_mode")
_LAYERS = re.compile(r"all|(?:first|last)_[1-9]\d*")


@dataclass(frozen=True)
class Options:
    """What a ``conf/peft`` choice holds beside the method's own fields.

    Attributes:
        name: The choice's name, the ``strategy`` of the result.
        learning_rate: Peak learning rate of the optimizer.
        targets: Groups of the model's modules (``attention``, ``mlp``, …) or regular expressions of module names.
            Of the well-known groups, those that the model has are used.
        layers: ``all``, ``last_K`` or ``first_K`` blocks.
        batch_norm: ``frozen`` (statistics and, unless the method trains them, affine parameters) or ``train``.
    """

    name: str
    learning_rate: float
    targets: tuple[str, ...] = ()
    layers: str = "all"
    batch_norm: str = "frozen"

    def __post_init__(self) -> None:
        if not _LAYERS.fullmatch(self.layers):
            raise ConfigError(f"peft.layers={self.layers}: must be all, last_K or first_K, such as last_2")
        if self.batch_norm not in ("frozen", "train"):
            raise ConfigError(f"peft.batch_norm={self.batch_norm}: must be frozen or train")
        if not self.learning_rate > 0:
            raise ConfigError(f"peft.learning_rate={self.learning_rate}: must be above 0")


@dataclass(frozen=True)
class Choice:
    """A parsed node: our options, the method's class and what its constructor gets."""

    options: Options
    target: str
    config_class: type
    fields: dict[str, Any]
    node: dict[str, Any]


def parse(peft_cfg: Mapping[str, Any]) -> Choice:
    """Split a ``conf/peft`` node.

    Raises:
        ConfigError: A key that neither we nor the method's class knows, or an impossible value.
    """
    container = OmegaConf.to_container(peft_cfg, resolve=True) if isinstance(peft_cfg, DictConfig) else dict(peft_cfg)
    node: dict[str, Any] = {str(key): value for key, value in dict(container).items()}  # type: ignore[arg-type]
    target = node.get("_target_")
    if not target:
        raise ConfigError("peft needs a _target_, such as peft.LoraConfig")
    config_class = _config_class(str(target))
    own = {field.name for field in fields(Options)}
    theirs = {field.name for field in fields(config_class)} - set(OWN_FIELDS)
    name = node.get("name", "?")
    for key in node:
        if key in OWN_FIELDS:
            raise ConfigError(f"peft.{key} is set by sousa_bench; say peft.targets=[…] and peft.layers=… instead")
        if key != "_target_" and key not in own | theirs:
            near = get_close_matches(key, own | theirs, 4, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(sorted(own | theirs))}"
            raise ConfigError(f"peft={name} ({target}) has no key {key!r}{hint}")
    missing = {"name", "learning_rate"} - node.keys()
    if missing:
        raise ConfigError(f"peft={name} lacks {', '.join(sorted(missing))}")
    options = {key: node[key] for key in own & node.keys()}
    targets = options.get("targets") or ()
    options["targets"] = (targets,) if isinstance(targets, str) else tuple(str(entry) for entry in targets)
    options["layers"] = str(options.get("layers", "all"))
    try:
        options["learning_rate"] = float(options["learning_rate"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft.learning_rate={options['learning_rate']!r}: must be a number") from error
    arguments = {key: node[key] for key in node if key in theirs and key not in own}
    return Choice(Options(**options), str(target), config_class, arguments, node)


def check_config(peft_cfg: Mapping[str, Any]) -> Options:
    """Check a ``conf/peft`` node (this imports the method's class) and return our options in it.

    Raises:
        ConfigError: See :func:`parse`.
    """
    return parse(peft_cfg).options


def _config_class(target: str) -> type:
    try:
        return get_class(target)
    except Exception as error:
        import peft

        known = sorted(f"peft.{name}" for name in dir(peft) if name.endswith("Config"))
        near = get_close_matches(target, known, 4, 0.5)
        raise ConfigError(f"peft._target_={target}: no such class; near it: {', '.join(near) or 'none'}") from error
