"""A run's identity: a hash over what decides its outcome, and the name of its folder."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import distillation, init_from
from sousa_bench.config.file_variant import followed
from sousa_bench.config.identity import IRRELEVANT, lasting_target
from sousa_bench.config.run_config import value_at, values_of
from sousa_bench.errors import ConfigError
from sousa_bench.models.weight_files import weights_file
from sousa_bench.system.files import file_hash

LATER_KEYS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("trainer", "compile", (False,)),
    ("trainer", "sampling", (None,)),
    ("trainer", "class_weights", (None,)),
    ("trainer", "new_head", (None, False)),
    ("data", "layout", (None,)),
    ("data", "per_class", (None, "all")),
    ("data", "windows", (None,)),
    ("data", "refit", (None,)),
    ("peft", "budget", (None,)),
    ("peft", "reads", ("last",)),
)
"""Keys that came later, with the values at which they change nothing: the runs of before keep their identity."""


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of everything in ``config``, composed or its values, that decides the run's outcome.

    Data count by content (:func:`sousa_bench.data.fingerprint`) and a checkpoint file by its bytes, neither by its
    path. The code's version is not part of it: results say their commit, and ``force=true`` runs anew.

    Returns:
        64 hex digits (SHA-256).

    Raises:
        ConfigError: A mandatory value is missing or an interpolation leads nowhere.
        DataError: The data can't be identified.
    """
    return digest(outcome_config(config))


def digest(outcome: Mapping[str, Any]) -> str:
    """The :func:`fingerprint` of what :func:`outcome_config` gives."""
    text = json.dumps(_canonical(outcome), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def outcome_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved part of ``config`` that decides the outcome, with contents in place of paths."""
    values = values_of(config) if isinstance(config, DictConfig) else config
    plain: dict[str, Any] = {
        key: dict(node) if isinstance(node, dict) else node for key, node in values.items() if key not in IRRELEVANT
    }
    if (key := _missing(plain)) is not None:
        raise ConfigError(f"the config can't be resolved: Missing mandatory value: {key}")
    for dotted in IRRELEVANT:
        group, _, key = dotted.partition(".")
        if key and isinstance(plain.get(group), dict):
            plain[group].pop(key, None)
    if not plain.get("metrics"):  # as LATER_KEYS
        plain.pop("metrics", None)
    for group, key, unset in LATER_KEYS:
        if isinstance(node := plain.get(group), dict) and node.get(key) in unset:
            node.pop(key, None)
    if isinstance(data := values.get("data"), dict) and "_target_" in data:
        plain["data_content"] = _known_data(json.dumps(data, sort_keys=True, default=str))
    model = plain.get("model")
    if isinstance(model, dict) and (file := weights_file(model)) is not None:
        if (variant := followed(model)) is not None:
            model["variant"] = variant
        if file.is_file():
            model["checkpoint"] = file_hash(file)
    if (start := plain.pop(init_from.KEY, None)) is not None:
        plain[init_from.KEY] = init_from.content(start)
    teacher = plain.pop(distillation.KEY, None)
    if (place := distillation.teacher_run(config)) is not None:
        plain[distillation.KEY] = {**teacher, "run": init_from.content(place, distillation.RUN)}
    return plain


def _missing(node: Any) -> str | None:
    """The first key in plain containers that lacks its value."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        if item == "???":
            return str(key)
        if isinstance(item, (dict, list)) and (below := _missing(item)) is not None:
            return f"{key}.{below}"
    return None


def run_name(config: Mapping[str, Any], digest: str) -> str:
    """``<model>_<peft>_<aug|noaug>_<data>_s<seed>_<fingerprint>``, the name of a run's folder."""
    names = [value_at(config, f"{group}.name") or "none" for group in ("model", "peft", "data")]
    augmented = "aug" if value_at(config, "augmentation.name") in ("on", True) else "noaug"
    return f"{names[0]}_{names[1]}_{augmented}_{names[2]}_s{config.get('seed')}_{digest[:8]}"


@functools.cache
def _known_data(text: str) -> str:
    # Imported here: a sweep whose config is wrong should say so before it loads the data code.
    from sousa_bench import data

    identify: Callable[[DictConfig], str] = data.fingerprint
    return identify(OmegaConf.create(json.loads(text)))


def _canonical(value: Any) -> Any:
    """Spell equal values alike: ``r=8`` and ``r=8.0`` are one run, and so is a class before and after it moved."""
    if isinstance(value, dict):
        return {
            str(key): lasting_target(item) if key == "_target_" and isinstance(item, str) else _canonical(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
