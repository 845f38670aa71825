"""A ``conf/peft`` node: our own options beside the fields of the class that ``_target_`` names. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sousa_bench.errors import ConfigError
from sousa_bench.peft.added_options import added_method
from sousa_bench.peft.method_sizes import Budget, size_of

DESCRIPTION_FILE = "sousa.json"  # beside the saved weights: what rebuilds the model
# A well-known group that a model lacks is passed over, so that one choice serves transformers and CNNs.
WELL_KNOWN = ("attention", "mlp", "pointwise", "squeeze_excitation", "depthwise", "norm")
SOLVED, NOTHING = "last_layer", "nothing"
"""What ``peft=probe`` and ``peft=knn`` train."""
WITHOUT_STEPS = {SOLVED: ("l2",), NOTHING: ("k", "temperature")}
"""What a method trains that takes no optimizer steps: the keys that it has instead."""
BLOCKS = "blocks"
READS = ("last", BLOCKS)
"""What of a frozen network such a method reads."""
_SET_HERE = ("target_modules", "exclude_modules", "modules_to_save", "task_type", "peft_type", "inference_mode")


@dataclass(frozen=True)
class Options:
    """What a ``conf/peft`` choice holds beside the method's own fields.

    Attributes:
        name: The choice's name, the ``strategy`` of the result.
        learning_rate: Peak learning rate of the optimizer; None where the method has no steps.
        targets: Groups of the model's modules (``attention``, ``mlp``, …) or regular expressions of module names.
            Of the well-known groups, those that the model has are used.
        layers: ``all``, ``last_K`` or ``first_K`` blocks.
        batch_norm: ``frozen`` (statistics and, unless the method trains them, affine parameters) or ``train``.
        budget: The share of the backbone's parameters, or their number, that the method's size is chosen for; see
            :class:`sousa_bench.peft.method_sizes.Budget`.
    """

    name: str
    learning_rate: float | None = None
    targets: tuple[str, ...] = ()
    layers: str = "all"
    batch_norm: str = "frozen"
    budget: str | int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"all|(?:first|last)_[1-9]\d*", self.layers):
            raise ConfigError(f"peft.layers={self.layers}: must be all, last_K or first_K, such as last_2")
        if self.batch_norm not in ("frozen", "train"):
            raise ConfigError(f"peft.batch_norm={self.batch_norm}: must be frozen or train")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"peft.learning_rate={self.learning_rate}: must be above 0")


@dataclass
class LocalConfig:
    """Train parameters that the model already has: methods that add none, so that PEFT has no class for them.

    Attributes:
        trains: ``all`` (full fine-tuning), ``head`` (linear probe) or ``bias`` (BitFit, arXiv:2106.10199: every bias).
            The head trains in all three. ``last_layer``: the head's last layer alone, solved for without steps.
            ``nothing``: the training clips vote in the head's place.
        l2: Of ``last_layer``: the strengths of the penalty to choose from.
        k: Of ``nothing``: the numbers of neighbours to choose from.
        temperature: Of ``nothing``: a vote weighs exp(cosine similarity / temperature).
        reads: Of these two: ``last``, what the head's last layer takes, or ``blocks``, the mean of each block's output.
    """

    trains: str = "all"
    l2: tuple[float, ...] = ()
    k: tuple[int, ...] = ()
    temperature: float = 0.0
    reads: str = "last"

    def __post_init__(self) -> None:
        if self.trains not in ("all", "head", "bias", *WITHOUT_STEPS):
            raise ConfigError(f"peft.trains={self.trains}: must be one of all, head, bias, {', '.join(WITHOUT_STEPS)}")


OWN_KEYS = frozenset(field.name for field in fields(Options))


def read(node: Mapping[str, Any], theirs: Collection[str] | None) -> Options:
    """Our options in a plain node.

    Args:
        node: The resolved node.
        theirs: Fields of the method's class, or None where they aren't known: then any key might be one of them.

    Raises:
        ConfigError: A key that neither we nor the method's class knows, or an impossible value.
    """
    name = node.get("name", "?")
    if (budget := node.get("budget")) is not None:
        size_of(node)
        Budget.of(budget)
    stepless = WITHOUT_STEPS.get(str(node.get("trains")), ())
    known = (
        {"name", "trains", "budget", "reads", *stepless} if stepless else OWN_KEYS | set(theirs or ()) - set(_SET_HERE)
    )
    added = added_method(str(node.get("_target_")))
    if added is not None and not added.takes_targets:
        known = known - {"targets"}
    for key in node:
        if key in _SET_HERE:
            raise ConfigError(f"peft.{key} is set by sousa_bench; say peft.targets=[…] and peft.layers=… instead")
        if theirs is not None and key != "_target_" and key not in known:
            near = get_close_matches(key, known, 4, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(sorted(known))}"
            raise ConfigError(f"peft={name} ({target_of(node)}) has no key {key!r}{hint}")
    if missing := {"name", *(stepless or ("learning_rate",))} - node.keys():
        raise ConfigError(f"peft={name} lacks {', '.join(sorted(missing))}")
    _check_values(node)
    if added is not None:
        added(**{key: node[key] for key in set(theirs or ()) & node.keys()})
    options = {key: node[key] for key in OWN_KEYS & node.keys()}
    targets = options.get("targets") or ()
    options["targets"] = (targets,) if isinstance(targets, str) else tuple(str(entry) for entry in targets)
    options["layers"] = str(options.get("layers", "all"))
    if not stepless:
        try:
            options["learning_rate"] = float(options["learning_rate"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"peft.learning_rate={options['learning_rate']!r}: must be a number") from error
    return Options(**options)


def _check_values(node: Mapping[str, Any]) -> None:
    """Refuse values of common fields that no class of PEFT can work with, some of which it would take."""
    for key in ("r", "init_r", "target_r"):
        value = node.get(key)
        # OFT has either blocks of a size or a number of blocks, and the other is 0.
        least = 0 if key == "r" and node.get("oft_block_size") else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"peft.{key}={value}: must be a whole number from {least} on")
    for key, value in node.items():
        if key.endswith("dropout") and not (isinstance(value, int | float) and 0 <= value < 1):
            raise ConfigError(f"peft.{key}={value}: must be from 0 on and below 1")
    for owners, key, is_valid, must in _OF_METHODS_WITHOUT_STEPS:
        local = target_of(node).endswith(LocalConfig.__name__)
        if local and key in node and not (node.get("trains") in owners and is_valid(node[key])):
            raise ConfigError(f"peft.{key}={node[key]}: must be {must}")
    if "target_r" in node and "init_r" in node and not node["target_r"] < node["init_r"]:
        raise ConfigError(f"peft.target_r={node['target_r']}: must be above 0 and below peft.init_r={node['init_r']}")


def _above_zero(value: object, *kinds: type) -> bool:
    return type(value) in kinds and value > 0  # type: ignore[operator]


def _each_above_zero(values: object, *kinds: type) -> bool:
    return isinstance(values, list | tuple) and bool(values) and all(_above_zero(value, *kinds) for value in values)


_OF_METHODS_WITHOUT_STEPS: tuple[tuple[Collection[str], str, Callable[[object], bool], str], ...] = (
    (
        (SOLVED,),
        "l2",
        lambda values: _each_above_zero(values, int, float),
        "a list of numbers above 0, such as [0.1,0.01], of peft=probe",
    ),
    (
        (NOTHING,),
        "k",
        lambda values: _each_above_zero(values, int),
        "a list of whole numbers above 0, such as [1,5,20], of peft=knn",
    ),
    ((NOTHING,), "temperature", lambda value: _above_zero(value, int, float), "a number above 0, of peft=knn"),
    (WITHOUT_STEPS, "reads", lambda value: value in READS, f"{' or '.join(READS)}, of peft=probe and peft=knn"),
)
"""What is trained, a key that only a method has which trains that, whether a value can be, and what it must be."""


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


def trains_all(node: Mapping[str, Any]) -> bool:
    """Whether a method trains all of a network, statistics too, so that the base weights don't matter."""
    everything = node.get("trains") == "all" and node.get("layers", "all") == "all"
    return everything and node.get("batch_norm") == "train"


def is_adalora(node: Mapping[str, Any]) -> bool:
    """Whether a method is AdaLoRA."""
    return str(node.get("_target_", "")).endswith("AdaLoraConfig")


def keeps_features(config: object) -> bool:
    """Whether nothing but the head trains, if that."""
    return isinstance(config, LocalConfig) and config.trains in ("head", *WITHOUT_STEPS)


def takes_no_steps(node: Mapping[str, Any]) -> bool:
    """Whether a method is fitted to pooled features without epochs and steps, as ``peft=probe`` and ``knn`` are."""
    return node.get("trains") in WITHOUT_STEPS


def reads_blocks(node: Mapping[str, Any]) -> bool:
    """Whether a method without steps reads all blocks; runs of before there was a choice don't."""
    return takes_no_steps(node) and node.get("reads") == BLOCKS


def trains_nothing(node: Mapping[str, Any]) -> bool:
    """Whether a method has nearest neighbours vote in place of the head."""
    return node.get("trains") == NOTHING
