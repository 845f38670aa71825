"""Which (model, method) pairs can't train, known before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from sousa_bench.config import conf_folder


def refusal(model: str | Mapping[str, Any], peft_cfg: Mapping[str, Any]) -> str | None:
    """Say why a model can't be trained by a method.

    The reasons stand in the model's config under ``refuses``: the method's name (``vera``) or its class
    (``peft.VeraConfig``, which also catches a user's own choice made of that class) → reason.

    Args:
        model: The model's config node, or the name of a choice of ``conf/model``.
        peft_cfg: The method's config node, with ``name`` and ``_target_``.

    Returns:
        One sentence with the reason and a way out, or None when the pair trains.
    """
    table = _refuses(model) if isinstance(model, str) else model.get("refuses")
    name = model if isinstance(model, str) else model.get("name")
    for key in (str(peft_cfg.get("name")), str(peft_cfg.get("_target_"))):
        if table and key in table:
            return f"peft={peft_cfg.get('name')} doesn't fit model={name}: {table[key]}"
    return None


@cache
def _refuses(model: str) -> dict[str, str]:
    file = conf_folder() / "model" / f"{model}.yaml"
    if not file.is_file():
        return {}
    node = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    table = (node.get("refuses") if isinstance(node, dict) else None) or {}
    return {str(key): str(reason) for key, reason in table.items()}
