"""What speaks against a pair of a model's and a method's config, said before a sweep starts and without torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sousa_bench.errors import ConfigError
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.weight_files import (
    WEIGHTS,
    against_kind,
    default_variant,
    embedded_file,
    embedded_not_shipped,
    is_ours,
    official_without_address,
)
from sousa_bench.peft.added_options import METHODS, GridConfig, PromptConfig, added_method
from sousa_bench.peft.options import (
    WELL_KNOWN,
    LocalConfig,
    Options,
    plain,
    read,
    reads_blocks,
    takes_no_steps,
    target_of,
)

LINEAR_ONLY = frozenset(f"peft.{name}Config" for name in ("Vera", "Road", "Miss", "FourierFT", "RandLora"))
RANKS = {"peft.LoraConfig": "r", "peft.AdaLoraConfig": "init_r"}
WIDEST_SQUEEZE = 240  # channels between the layers of MobileNetV3-Large's last squeeze-and-excitation
CONVOLUTIONS = frozenset({"pointwise", "depthwise"})
"""The well-known groups of a network that consists of convolutions."""


def precheck(
    model_cfg: Mapping[str, Any],
    peft_cfg: Mapping[str, Any],
    augmentation_cfg: Mapping[str, Any] | None = None,
    trainer_cfg: Mapping[str, Any] | None = None,
) -> str | None:
    """Why a run of this pair would fail as soon as its model is there, as far as the configs tell.

    That is: the method can't adapt such a model, or can't take augmented clips; its node has an unknown key or
    impossible value; a group in ``peft.targets`` is none of the model's, or ``peft.layers`` asks for more blocks than
    it has. A regular expression of the user's own is held against the module names when the run starts.

    Args:
        model_cfg: The composed model node.
        peft_cfg: The composed method node.
        augmentation_cfg: The composed augmentation node.
        trainer_cfg: The composed trainer node.

    Returns:
        One sentence, or None.
    """
    model, node = plain(model_cfg), plain(peft_cfg)
    name, groups = str(model.get("name")), (model.get("targets") or {}).get("groups") or {}
    try:
        if reason := refusal(name, groups, node) or _against_augmentation(node, augmentation_cfg):
            return reason
        if reason := against_balance(node, trainer_cfg or {}) or _against_numbers(model, node):
            return reason
        options = read(node, declared_fields(target_of(node)))
    except ConfigError as error:
        return str(error)
    if reason := _against_weights(model) or _against_layers(model, options) or _against_reading(model, node):
        return reason
    return _against_targets(model, groups, options) if groups and "targets" in node else None


def oversized_rank(model_cfg: Mapping[str, Any], peft_cfg: Mapping[str, Any]) -> str | None:
    """What a reader of the result must know of a rank that no layer can have; None where there is nothing to say."""
    model, node = plain(model_cfg), plain(peft_cfg)
    key, widest = RANKS.get(str(node.get("_target_"))), widest_layer(model)
    rank = node.get(key) if key else None
    if widest is None or not isinstance(rank, int) or rank <= widest:
        return None
    return (
        f"peft.{key}={rank}: the layers of model={model.get('name')}, model.variant={_variant(model)} have a rank of "
        f"{widest} at most; what is above adds parameters and no freedom"
    )


def widest_layer(model: Mapping[str, Any]) -> int | None:
    """The smaller side of the largest layer of a model of ours that is adapted, by its variant's numbers; else None."""
    match model.get("name"), _numbers(model):
        case "ast" | "ced" | "dasheng" | "eat" | "passt" | "hubert" | "wavlm" | "whisper", {"dim": int(dim)}:
            return dim
        case "beats" | "openbeats", {"encoder_embed_dim": int(dim)}:
            return dim
        case "htsat", {"dim": int(dim), "depths": [*depths]}:
            return dim * 2 ** (len(depths) - 1)
        case "efficientat", {"width": float(width)}:
            return int(WIDEST_SQUEEZE * width + 4) // 8 * 8  # channels come in eights
    return None


def refusal(model: str, groups: Iterable[str], node: Mapping[str, Any]) -> str | None:
    """Why a method can't adapt a model, with a way out; None when it can.

    Args:
        model: The model's name.
        groups: The names of its groups of modules (``model.targets.groups``).
        node: The method's node.
    """
    groups, added = set(groups), added_method(str(node.get("_target_")))
    if added is not None:
        values = {key: node[key] for key in declared_fields(target_of(node)) or () if key in node}
        reason = added(**values).refusal(groups, node)
        return reason and f"peft={node.get('name')} doesn't fit model={model}: {reason}"
    if node.get("_target_") in LINEAR_ONLY and CONVOLUTIONS & groups:
        return (
            f"peft={node.get('name')} doesn't fit model={model}: PEFT has this method for Linear layers only, and this "
            "network consists of convolutions; use lora, dora, loha, lokr, oft, hra or hira"
        )
    return None


def _against_augmentation(node: Mapping[str, Any], augmentation: Mapping[str, Any] | None) -> str | None:
    if not takes_no_steps(node) or augmentation is None or augmentation.get("name") == "off":
        return None
    return (
        f"peft={node.get('name')} doesn't fit augmentation={augmentation.get('name')}: it takes each clip once, as it "
        "is; give augmentation=off, or peft=head for a linear probe that trains on augmented clips"
    )


def against_balance(node: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    """Why a method can't train with a key of the trainer that balances classes; None where it can."""
    given = [f"trainer.{key}={trainer[key]}" for key in ("sampling", "class_weights") if trainer.get(key)]
    if not takes_no_steps(node) or not given:
        return None
    return (
        f"peft={node.get('name')} doesn't fit {given[0]}: in it every clip counts alike; leave the key out, or give "
        "peft=head for a linear probe that trains with it"
    )


def _against_numbers(model: Mapping[str, Any], node: Mapping[str, Any]) -> str | None:
    """Why a method can't adapt a network of such numbers."""
    method, key = added_method(str(node.get("_target_"))), "patchout_frequency"
    asked = model.get(key) if model.get(key) is not None else _numbers(model).get(key)
    if asked and method is not None and issubclass(method, GridConfig):
        return (
            f"peft={node.get('name')} doesn't fit model.{key}={asked}: its convolution goes over rows of frequency "
            f"that a training step then leaves out; give model.{key}=0"
        )
    if "window" in _numbers(model) and method is PromptConfig:
        return (
            f"peft={node.get('name')} doesn't fit model={model.get('name')}: its blocks attend within the windows of "
            "a map, which has no place for further tokens; use prefix"
        )
    return None


def block_count(model: Mapping[str, Any]) -> int | None:
    """Blocks of the variant that a model's node asks for; None where the node doesn't tell."""
    depth = (model.get("targets") or {}).get("depth")
    if isinstance(depth, str):
        depth = _numbers(model).get(depth)
    return sum(depth) if isinstance(depth, Sequence) else depth


def official_address(model: Mapping[str, Any]) -> str | None:
    """Where the published weights of one of this package's models come from; None where that is by hand.

    Args:
        model: The node, with ``weights=official``.
    """
    published, own = PUBLISHED[str(model.get("name"))], _numbers(model)
    if checkpoint := model.get("checkpoint"):
        return str(checkpoint)
    if model.get("variant"):
        return published.address(_variant(model), own)
    return own.get("checkpoint", published.source.address) or None


def _variant(model: Mapping[str, Any]) -> str:
    return model.get("variant") or default_variant(str(model.get("weights")))


def _numbers(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of the variant that a model's node asks for; none where it doesn't tell."""
    return (model.get("variants") or {}).get(_variant(model)) or {}


def _against_weights(model: Mapping[str, Any]) -> str | None:
    if reason := against_kind(str(model.get("name")), str(model.get("weights")), model.get("kinds") or WEIGHTS):
        return reason
    variant, name = _variant(model), str(model.get("name"))
    ours = is_ours(model) and not model.get("checkpoint")
    if ours and model.get("weights") == "official" and name in PUBLISHED:
        return None if official_address(model) else official_without_address(name, variant)
    if model.get("weights") != "embedded":
        return None
    if ours and not embedded_file(name).is_file():
        return embedded_not_shipped(name)
    if variant == "tiny":
        return None
    return (
        f"weights=embedded are for model.variant=tiny alone: with model.variant={variant} give weights=official "
        "(the published checkpoint) or weights=random"
    )


def _against_layers(model: Mapping[str, Any], options: Options) -> str | None:
    there = block_count(model)
    if options.layers == "all" or there is None or int(options.layers.split("_")[1]) <= there:
        return None
    return f"peft.layers={options.layers}: model={model.get('name')} has {there} blocks"


def _against_reading(model: Mapping[str, Any], node: Mapping[str, Any]) -> str | None:
    if not reads_blocks(node) or (model.get("targets") or {}).get("blocks"):
        return None
    return f"peft.reads=blocks: model={model.get('name')} names no blocks (model.targets.blocks); give peft.reads=last"


def _against_targets(model: Mapping[str, Any], groups: Mapping[str, Any], options: Options) -> str | None:
    name = model.get("name")
    known = known_groups(groups)
    for entry in options.targets:
        if entry not in known and entry not in WELL_KNOWN and (reason := _against_pattern(entry, known)):
            return f"peft.targets has '{entry}', {reason}; groups of model={name}: {', '.join(known)}"
    if not options.targets or any(entry in known or entry not in WELL_KNOWN for entry in options.targets):
        return None
    if list(model.get("kinds") or ()) == ["random"]:
        return f"model={name} begins at random weights, in which such a method adapts nothing: give peft=full"
    return f"peft.targets={list(options.targets)}: model={name} has no such module; its groups are {', '.join(known)}"


def _against_pattern(entry: str, known: Sequence[str]) -> str | None:
    try:
        re.compile(entry)
    except re.error as error:
        return f"which is neither a group nor a regular expression ({error})"
    # A word that resembles no group may be a module at the top of the backbone.
    near = get_close_matches(entry, {*known, *WELL_KNOWN}, 1, 0.7) if entry.isidentifier() else []
    return f"which is no group; did you mean {near[0]}?" if near else None


def known_groups(groups: Iterable[str]) -> list[str]:
    """A model's own groups, and ``norm``, which every model has."""
    return list(dict.fromkeys([*groups, "norm"]))


@cache
def declared_fields(target: str) -> frozenset[str] | None:
    """Fields of a config class, with those of its bases.

    PEFT's are read from its source: to import it takes seconds, and torch.

    Args:
        target: Dotted name, such as ``peft.LoraConfig``.

    Returns:
        Their names, or None for a class of another package, which is looked at when the run starts.

    Raises:
        ConfigError: PEFT, or this package, has no such class.
    """
    package = target.partition(".")[0]
    if package == "sousa_bench":
        local = target.rpartition(".")[2] == LocalConfig.__name__
        if (found := LocalConfig if local else added_method(target)) is None:
            ours = [f"sousa_bench.peft.{name}" for name in (LocalConfig.__name__, *METHODS)]
            near = get_close_matches(target, ours, 1) or ours
            raise ConfigError(f"peft._target_={target}: no such class; near it: {', '.join(near)}")
        return frozenset(field.name for field in fields(found))
    if package != "peft":
        return None
    if (theirs := _class_fields(target.rpartition(".")[2])) is None:
        every = (match for text in _sources() for match in re.findall(r"^class (\w+Config)\b", text, re.MULTILINE))
        near = get_close_matches(target, sorted(f"peft.{match}" for match in every), 4, 0.5)
        raise ConfigError(f"peft._target_={target}: no such class; near it: {', '.join(near) or 'none'}")
    return frozenset(theirs)


def _class_fields(name: str) -> set[str] | None:
    for text in _sources():
        if re.search(rf"^class {re.escape(name)}\b", text, re.MULTILINE):
            [found] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
            own = {s.target.id for s in found.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
            return own.union(*(_class_fields(base.id) or () for base in found.bases if isinstance(base, ast.Name)))
    return None


@cache
def _sources() -> list[str]:
    """The files of PEFT's config classes and of their bases."""
    root = Path(str(getattr(find_spec("peft"), "origin", ""))).parent
    files = [*sorted(root.rglob("config.py")), *sorted(root.rglob("*_utils.py"))]
    return [file.read_text(encoding="utf-8") for file in files]
