"""``init_from``: the adapter of an earlier run that a run starts from. Looked at without importing torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

from sousa_bench.errors import ConfigError
from sousa_bench.models.weight_files import weights_file
from sousa_bench.peft.method_sizes import KEY as BUDGET
from sousa_bench.peft.method_sizes import chosen_keys, size_of
from sousa_bench.peft.options import DESCRIPTION_FILE, is_adalora, plain, takes_no_steps, trains_all
from sousa_bench.results.result import ADAPTER_FOLDER
from sousa_bench.system.files import file_hash, is_there
from sousa_bench.system.foreign import clean, read_facts

KEY = "init_from"
MOST_SHOWN = 200  # characters of a value that someone wrote
BASE_KEYS = ("weights", "checkpoint", "seed", "refuses")  # of a model's node: not its architecture


def adapter_folder(place: str | Path, key: str = KEY) -> Path:
    """The folder of trained weights at ``place``, the value of ``key``: that folder, or the run's that holds it.

    Raises:
        ConfigError: There is none.
    """
    for folder in (Path(place).expanduser(), Path(place).expanduser() / ADAPTER_FOLDER):
        if is_there(folder / DESCRIPTION_FILE) and (folder / DESCRIPTION_FILE).is_file():
            return folder
    raise ConfigError(f"{key}={place}: no trained weights here (no {DESCRIPTION_FILE}); give a completed run's folder")


def content(place: str | Path, key: str = KEY) -> str:
    """Hash of the trained weights at ``place``, the value of ``key``: their bytes, wherever they lie."""
    files = sorted(adapter_folder(place, key).glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{key}={place}: the weights are gone (no *.safetensors beside {DESCRIPTION_FILE})")
    return hashlib.sha256("".join(f"{file.name}:{file_hash(file)};" for file in files).encode()).hexdigest()


def check(config: Mapping[str, Any]) -> None:
    """Hold a composed config against the run that it starts from, as far as the two tell; the run checks each tensor.

    Raises:
        ConfigError: Another model or method, other base weights, AdaLoRA, or nothing to start from.
    """
    place = config.get(KEY)
    if place is None:
        return
    folder = adapter_folder(str(place))
    try:
        then = read_facts(folder / DESCRIPTION_FILE, dict.fromkeys(("model", "peft", "weights"), dict), linked=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{KEY}={place}: {DESCRIPTION_FILE} can't be read ({error})") from error
    now = {group: plain(config[group]) for group in ("model", "peft")}
    if problem := _difference(then, now):
        raise ConfigError(f"{KEY}={place}: {problem}")


def _difference(then: Mapping[str, dict[str, Any]], now: Mapping[str, dict[str, Any]]) -> str | None:
    """Why a run can't start from the weights of an earlier one, by their nodes, or None."""
    if is_adalora(then["peft"]) or is_adalora(now["peft"]):
        return (
            "AdaLoRA can't go on from trained weights: its ranks are pruned, and a new run prunes anew from full ones; "
            "start it without init_from (promote without --warm)"
        )
    if takes_no_steps(now["peft"]):
        return (
            f"peft={now['peft'].get('name')} takes no steps, so that it goes on from nothing; start it without "
            "init_from (promote without --warm)"
        )
    for group, free in (("model", BASE_KEYS), ("peft", ("learning_rate", *_chosen(then, now)))):
        for key in {**then[group], **now[group]}:
            if key not in free and not key.endswith("dropout") and then[group].get(key) != now[group].get(key):
                values = [_shown(node[group].get(key)) for node in (then, now)]
                return (
                    f"was trained with {group}.{_shown(key)}={values[0]}, this run has {values[1]}; "
                    "it can't start from those weights"
                )
    if problem := _other_scale(then["peft"], now["peft"]):
        return problem
    if trains_all(now["peft"]):
        return None
    kind, given = then["weights"].get("kind"), now["model"].get("weights")
    if kind != given:
        return f"was trained on weights={kind}, this run has weights={given}; its adapter fits the former alone"
    seed, new_seed = (node["model"].get("seed") for node in (then, now))
    if kind == "random" and seed != new_seed:
        return (
            f"was trained on random weights of seed={seed}, this run has seed={new_seed}: other base weights; "
            f"give seed={seed}, or use weights=official"
        )
    file = weights_file(now["model"])  # None: random, or at an address; a file that is gone is named by the run
    if file is not None and file.is_file() and file_hash(file) != then["weights"].get("sha256"):
        return (
            f"was trained on other base weights than those of {file} (their SHA-256 differ); give "
            "model.checkpoint=FILE, the one that it was trained on"
        )
    return None


def _chosen(then: Mapping[str, Any], now: Mapping[str, dict[str, Any]]) -> list[str]:
    """``peft.budget`` and the keys that it chooses, where both runs have the same."""
    facts = then.get("facts")
    budget = facts.get(BUDGET) if isinstance(facts, dict) else None
    if not isinstance(budget, dict) or not isinstance(chosen := budget.get("chosen"), dict):
        return []
    return [BUDGET, *chosen] if budget.get("asked") == str(now["peft"].get(BUDGET)) else []


def _other_scale(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why an update of a size that a budget chose would be scaled otherwise than it was, or None."""
    if not chosen_keys(now) or (alpha := (size := size_of(now)).alpha) is None or now.get("use_rslora"):
        return None
    try:
        before, after = then[alpha] / then[size.key], now[alpha] / now[size.key]
    except (KeyError, TypeError, ZeroDivisionError):
        return f"peft.{alpha} and peft.{size.key} of the run aren't known"
    if isclose(before, after):
        return None
    return (
        f"was trained with peft.{alpha}={before:g} times peft.{size.key}, this run has {after:g} times; "
        "it can't start from those weights"
    )


def _shown(value: Any) -> str:
    return "null" if value is None else clean(str(value))[:MOST_SHOWN]
