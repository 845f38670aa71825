"""What a file of :mod:`sousa_bench.pretrain` says of itself: whose, which variant, what it began at. No torch.

So a sweep knows it before anything starts, as it knows what an official file is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sousa_bench.models.checkpoint_contents import broken, contents
from sousa_bench.models.published import HEADER
from sousa_bench.models.weight_files import (
    PACKED,
    default_variant,
    embedded_file,
    is_ours,
    not_packed,
    weights_file,
)

PUBLISHED = "published"
"""The fact that only files have that began at a published checkpoint: the :data:`OF_PUBLISHED` of that one."""
TASK = "task"
"""The fact that says what the head answers, as ``Task.as_dict``; files without it hold no last layer."""
QUANTUM, MAX_DURATION = "quantum", "max_duration"
"""The facts that say how clips were cut, as the keys of ``data`` do."""
OF_PUBLISHED = ("origin", "sha256", "license", "pretraining")


def facts_in(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of such a file say.

    Raises:
        ValueError: They are none of this package's.
    """
    facts = json.loads(str(metadata.get(HEADER)))
    if not isinstance(facts, dict):
        raise ValueError("no object")
    began = facts.get(PUBLISHED, dict.fromkeys(OF_PUBLISHED))
    if not (isinstance(began, dict) and set(OF_PUBLISHED) <= began.keys()):
        raise ValueError(f"{PUBLISHED} has not {', '.join(OF_PUBLISHED)}")
    return facts


def variant_of(facts: Mapping[str, Any]) -> str:
    """The variant whose weights a file holds; files from before they said so hold the tiny one's."""
    return str(facts.get("variant") or default_variant("embedded"))


def variant_told(model: Mapping[str, Any]) -> str | None:
    """The variant that a model's node leaves open and its packed file tells; None where there is no such thing.

    Args:
        model: The node, as in ``conf/model``.
    """
    asked = model.get("variant") is None and model.get("weights") in PACKED
    file = _file(model) if asked else None
    facts = None if file is None else _facts_of(file)
    return None if facts is None else variant_of(facts)


def objection_to(model: Mapping[str, Any]) -> str | None:
    """Why a model can't start from the packed file that its node names, with the way out; None where it may.

    Args:
        model: The node, as in ``conf/model``.
    """
    if (file := _file(model)) is None:
        return None
    if (facts := _facts_of(file)) is None:
        return _no_packed_file(model, file)
    what, name, found = model["checkpoint"], str(model.get("name")), variant_of(facts)
    if reason := objection(facts, name, str(model["weights"]), model.get("variant"), what):
        return reason
    if found not in (variants := model.get("variants") or {found: None}):
        return (
            f"model.checkpoint={what} holds weights of {name}'s variant {found}, and there are {', '.join(variants)}."
        )
    return None


def objection(facts: Mapping[str, Any], name: str, weights: str, variant: str | None, checkpoint: object) -> str | None:
    """Why weights with these facts aren't those that were asked for; None where they are.

    Args:
        facts: Of the file.
        name: The model's name.
        weights: What was asked for, ``embedded`` or ``further`` where it can be right.
        variant: The one that was asked for; None: the file's.
        checkpoint: Where the file was looked for, as messages name it.
    """
    what, found = f"model.checkpoint={checkpoint}", variant_of(facts)
    if (other := facts.get("model", name)) != name:
        return f"{what} holds weights of {other}, not of {name}."
    if (began := "further" if PUBLISHED in facts else "embedded") != weights:
        first = "a published checkpoint" if began == "further" else "random weights"
        return f"{what} holds weights that began at {first}: give weights={began} in place of weights={weights}."
    if variant not in (None, found):
        return f"{what} holds weights of {name}'s variant {found}: leave model.variant={variant} out."
    return None


def _facts_of(file: Path) -> dict[str, Any] | None:
    """Those of a file, if it is one of this package's."""
    found = contents(file)
    with suppress(ValueError):  # whoever loads it says what is wrong with it
        return None if found is None else facts_in(found.extra)
    return None


def _no_packed_file(model: Mapping[str, Any], file: Path) -> str | None:
    """Why a file without such facts is none of this package's where it has to be one."""
    if model["weights"] not in PACKED:
        return None
    if problem := broken(file):
        return f"model.checkpoint={model['checkpoint']}: {file} {problem}; copy it again."
    found = contents(file)
    ours = found is None or HEADER in found.extra
    return None if ours else not_packed(str(model["weights"]), str(model["checkpoint"]), file)


def _file(model: Mapping[str, Any]) -> Path | None:
    """The file that a model of this package's is asked to start from; None where there is none, or random weights."""
    if not model.get("checkpoint") or not is_ours(model) or (file := weights_file(model)) is None:
        return None
    if model["weights"] == "official" and not file.is_file():  # a folder of what pretrain wrote
        file = embedded_file(str(model.get("name")), str(model["checkpoint"]))
    return file if file.is_file() else None
