"""What can be said against a pair of a model's and a method's config before a sweep starts, without importing torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sousa_bench.errors import ConfigError
from sousa_bench.peft.options import WELL_KNOWN, Options, plain, read, target_of
from sousa_bench.peft.refusals import refusal


def precheck(model_cfg: Mapping[str, Any], peft_cfg: Mapping[str, Any]) -> str | None:
    """Why a run of this pair would fail as soon as its model is there, as far as the two configs tell.

    That is: the pair is refused by the model's ``refuses``; the method's node has an unknown key or impossible value; a
    group in ``peft.targets`` is none of the model's, or ``peft.layers`` asks for more blocks than it has. A regular
    expression of the user's own is held against the module names when the run starts.

    Args:
        model_cfg: The composed model node.
        peft_cfg: The composed method node.

    Returns:
        One sentence, or None.
    """
    model, node = plain(model_cfg), plain(peft_cfg)
    if reason := refusal(model, node):
        return reason
    try:
        options = read(node, declared_fields(target_of(node)))
    except ConfigError as error:
        return str(error)
    places = model.get("targets") or {}
    if reason := _against_weights(model):
        return reason
    return _against_layers(model, options) or ("targets" in node and _against_targets(model, places, options)) or None


def block_count(model: Mapping[str, Any]) -> int | None:
    """Blocks of the variant that a model's node asks for; None where the node doesn't tell."""
    depth = (model.get("targets") or {}).get("depth")
    if isinstance(depth, str):
        variants = model.get("variants") or {}
        depth = (variants.get(_variant(model)) or {}).get(depth)
    if isinstance(depth, Sequence):
        depth = sum(depth)
    return depth


def _variant(model: Mapping[str, Any]) -> str:
    return model.get("variant") or ("official" if model.get("weights") == "official" else "tiny")


def _against_weights(model: Mapping[str, Any]) -> str | None:
    variant = _variant(model)
    if model.get("weights") != "embedded" or variant == "tiny":
        return None
    return (
        f"weights=embedded are for model.variant=tiny alone: with model.variant={variant} give weights=official "
        "(the published checkpoint) or weights=random"
    )


def _against_layers(model: Mapping[str, Any], options: Options) -> str | None:
    if options.layers == "all":
        return None
    there = block_count(model)
    if there is None or int(options.layers.split("_")[1]) <= there:
        return None
    return f"peft.layers={options.layers}: model={model.get('name')} has {there} blocks"


def _against_targets(model: Mapping[str, Any], places: Mapping[str, Any], options: Options) -> str | None:
    if not places.get("groups"):
        return None
    known = list(dict.fromkeys([*places["groups"], "norm"]))
    used = False
    for entry in options.targets or places["groups"]:
        if entry in known:
            used = True
        elif entry not in WELL_KNOWN:
            used = True
            if reason := _against_pattern(entry, known):
                return f"peft.targets has '{entry}', {reason}; groups of model={model.get('name')}: {', '.join(known)}"
    if used:
        return None
    return (
        f"peft.targets={list(options.targets)}: model={model.get('name')} has no such module; "
        f"its groups are {', '.join(known)}"
    )


def _against_pattern(entry: str, known: Sequence[str]) -> str | None:
    try:
        re.compile(entry)
    except re.error as error:
        return f"which is neither a group nor a regular expression ({error})"
    # A word that resembles no group may be a module at the top of the backbone.
    near = get_close_matches(entry, {*known, *WELL_KNOWN}, 1, 0.7) if entry.isidentifier() else []
    return f"which is no group; did you mean {near[0]}?" if near else None


@cache
def declared_fields(target: str) -> frozenset[str] | None:
    """Fields of a config class of PEFT or of ours, and of its bases, read from the source, which is not imported.

    Args:
        target: Dotted name, such as ``peft.LoraConfig``.

    Returns:
        Their names, or None for a class of another package, which is looked at when the run starts.

    Raises:
        ConfigError: The package has no such class.
    """
    package, name = target.partition(".")[0], target.rpartition(".")[2]
    spec = find_spec(package) if package in ("peft", "sousa_bench") else None
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0])
    if _class(root, name) is None:
        raise ConfigError(f"peft._target_={target}: no such class")
    names: set[str] = set()
    wanted = [name]
    while wanted:
        found = _class(root, wanted.pop())
        if found is None:  # A mixin of another package, without fields
            continue
        names |= {s.target.id for s in found.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
        wanted += [base.id for base in found.bases if isinstance(base, ast.Name)]
    return frozenset(names)


def _class(root: Path, name: str) -> ast.ClassDef | None:
    header = re.compile(rf"^class {name}\b", re.MULTILINE)
    for file in _sources(root):
        text = file.read_text(encoding="utf-8")
        statements = ast.parse(text).body if header.search(text) else []
        for statement in statements:
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return statement
    return None


@cache
def _sources(root: Path) -> tuple[Path, ...]:
    """Python files of a package, those named for configs first."""
    return tuple(sorted(root.rglob("*.py"), key=lambda file: ("config" not in file.name, str(file))))
