"""What a result says of the network that it was trained on."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.errors import first_line
from sousa_bench.models.base import AudioModel
from sousa_bench.models.multiply_adds import CLIP_SECONDS, multiply_adds
from sousa_bench.models.published import sizes

CHOSEN = ("weights", "checkpoint", "seed", "variant", "variants")
"""Keys of a model's node that change no variant's numbers."""

log = logging.getLogger("sousa_bench.training")


def network_facts(model: AudioModel, node: DictConfig) -> dict[str, Any]:
    """What a result says of a network before any adapter: ``variant``, ``parameters``, ``multiply_adds``, ``seconds``.

    The multiply-adds are of a clip of 5 s, so that a network has one number whatever it is trained on: the recorded
    ones of a variant that is as it comes, else counted; None where a network can't be counted.

    Args:
        model: On the CPU.
        node: The config that it was built from.
    """
    return {
        "variant": model.variant,
        "parameters": sum(parameter.numel() for parameter in model.backbone.parameters()),
        "multiply_adds": _recorded(model, node) or _counted(model),
        "seconds": float(CLIP_SECONDS),
    }


def _recorded(model: AudioModel, node: DictConfig) -> int | None:
    size = sizes().get((model.name, str(model.variant)))
    file = conf_folder() / "model" / f"{model.name}.yaml"
    if size is None or not file.exists():
        return None
    shipped = OmegaConf.load(file)
    assert isinstance(shipped, DictConfig)
    said_apart = [key for key in shipped if key not in CHOSEN and node.get(key) != shipped[key]]
    as_it_comes = node.variants[model.variant] == shipped.variants[model.variant] and not said_apart
    return size.multiply_adds if as_it_comes else None


def _counted(model: AudioModel) -> int | None:
    try:
        return multiply_adds(model.frontend, model.backbone)
    except Exception as error:
        log.warning("the multiply-adds of model=%s can't be counted: %s", model.name, first_line(error))
        return None
