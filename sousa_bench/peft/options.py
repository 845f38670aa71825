"""A ``conf/peft`` node: our own options beside the fields of the class that ``_target_`` names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sousa_bench.errors import ConfigError

DESCRIPTION_FILE = "sousa.json"  # beside the saved weights: what rebuilds the model
OWN_FIELDS = ("target_modules", "exclude_modules", "modules_to_save", "task_type", "peft_type", "inference_mode")
# A well-known group that a model lacks is passed over, so that one choice serves transformers and CNNs.
WELL_KNOWN = ("attention", "mlp", "pointwise", "squeeze_excitation", "depthwise", "norm")
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
    """Split a ``conf/peft`` node, with the help of the method's class.

    Raises:
        ConfigError: See :func:`read`.
    """
    node = plain(peft_cfg)
    config_class = _config_class(target_of(node))
    theirs = {field.name for field in fields(config_class)}
    options = read(node, theirs)
    own = {field.name for field in fields(Options)}
    arguments = {key: node[key] for key in node if key in theirs and key not in own}
    return Choice(options, target_of(node), config_class, arguments, node)


def read(node: Mapping[str, Any], theirs: Collection[str] | None) -> Options:
    """Our options in a plain node; this imports nothing.

    Args:
        node: The resolved node.
        theirs: Fields of the method's class, or None where they aren't known: then any key might be one of them.

    Raises:
        ConfigError: A key that neither we nor the method's class knows, or an impossible value.
    """
    own = {field.name for field in fields(Options)}
    target, name = target_of(node), node.get("name", "?")
    known = own | set(theirs or ()) - set(OWN_FIELDS)
    for key in node:
        if key in OWN_FIELDS:
            raise ConfigError(f"peft.{key} is set by sousa_bench; say peft.targets=[…] and peft.layers=… instead")
        if theirs is not None and key != "_target_" and key not in known:
            near = get_close_matches(key, known, 4, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(sorted(known))}"
            raise ConfigError(f"peft={name} ({target}) has no key {key!r}{hint}")
    missing = {"name", "learning_rate"} - node.keys()
    if missing:
        raise ConfigError(f"peft={name} lacks {', '.join(sorted(missing))}")
    check_values(node)
    options = {key: node[key] for key in own & node.keys()}
    targets = options.get("targets") or ()
    options["targets"] = (targets,) if isinstance(targets, str) else tuple(str(entry) for entry in targets)
    options["layers"] = str(options.get("layers", "all"))
    try:
        options["learning_rate"] = float(options["learning_rate"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft.learning_rate={options['learning_rate']!r}: must be a number") from error
    return Options(**options)


def check_values(node: Mapping[str, Any]) -> None:
    """Refuse values of common fields that no class of PEFT can work with, some of which it would take.

    Raises:
        ConfigError: A rank that is no positive number, a dropout outside 0 to 1, or AdaLoRA's budget too high.
    """
    for key in ("r", "init_r", "target_r"):
        value = node.get(key)
        # OFT has either blocks of a size or a number of blocks, and the other is 0.
        least = 0 if key == "r" and node.get("oft_block_size") else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"peft.{key}={value}: must be a whole number from {least} on")
    for key, value in node.items():
        if key.endswith("dropout") and not (isinstance(value, int | float) and 0 <= value < 1):
            raise ConfigError(f"peft.{key}={value}: must be from 0 on and below 1")
    if "target_r" in node and "init_r" in node and not node["target_r"] < node["init_r"]:
        raise ConfigError(f"peft.target_r={node['target_r']}: must be above 0 and below peft.init_r={node['init_r']}")


def plain(node: Mapping[str, Any]) -> dict[str, Any]:
    """A config node as plain containers, interpolations resolved where the whole config is there to do so.

    The space of a search (``search``) that stands beside a method is left out.
    """
    container: Any = node
    if isinstance(node, DictConfig):
        try:
            container = OmegaConf.to_container(node, resolve=True)
        except OmegaConfBaseException:
            container = OmegaConf.to_container(node, resolve=False)
    return {str(key): value for key, value in container.items() if key != "search"}


def target_of(node: Mapping[str, Any]) -> str:
    """Name of the method's class.

    Raises:
        ConfigError: There is none.
    """
    if not node.get("_target_"):
        raise ConfigError("peft needs a _target_, such as peft.LoraConfig")
    return str(node["_target_"])


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


def trains_all(peft: Mapping[str, Any]) -> bool:
    """Whether a method's node trains all of a network, statistics too, so that the base weights don't matter."""
    everything = peft.get("trains") == "all" and peft.get("layers", "all") == "all"
    return everything and peft.get("batch_norm") == "train"


def is_adalora(peft: Mapping[str, Any]) -> bool:
    """Whether a method's node is AdaLoRA's."""
    return str(peft.get("_target_", "")).endswith("AdaLoraConfig")
