"""The last step of every model's ``build``: weights into the backbone, and the parts into an :class:`AudioModel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from sousa_bench.errors import ConfigError
from sousa_bench.models.base import AudioModel, Frontend, Targets, WeightsInfo
from sousa_bench.models.weights import initialise


def assemble(
    *,
    name: str,
    variant: str,
    frontend: Frontend,
    backbone: nn.Module,
    head: str,
    targets: Mapping[str, Any],
    weights: str,
    seed: int,
    official: Callable[[], tuple[dict[str, Tensor], WeightsInfo]],
    checkpoint: str | None = None,
    fresh: Sequence[str] = (),
) -> AudioModel:
    """Give a backbone its weights, and a model what its config says of the head and of PEFT's targets.

    Args:
        name: The model's name in configs and results.
        variant: The variant that was picked.
        frontend: Its front end.
        backbone: Its backbone, built under ``seeded(seed)``.
        head: ``model.head``.
        targets: ``model.targets``.
        weights: See :func:`sousa_bench.models.weights.initialise`, as for the rest.
        seed: The seed of the backbone.
        official: Returns the official tensors under the backbone's own keys.
        checkpoint: ``model.checkpoint``.
        fresh: Key prefixes that keep their random values.

    Raises:
        ConfigError: ``model.head`` is no module of the backbone, or ``model.targets`` has an unknown key.
        WeightsError: The weights can't be had or don't fit.
    """
    modules = {key for key, _ in backbone.named_modules() if key}
    if head not in modules:
        top = ", ".join(key for key, _ in backbone.named_children())
        raise ConfigError(f"model.head={head}: model={name} has no such module; its outermost ones are {top}.")
    try:
        places = Targets(**targets)
    except TypeError as error:
        known = ", ".join(field.name for field in fields(Targets))
        raise ConfigError(f"model.targets of model={name}: {error}; its keys are {known}.") from error
    info = initialise(
        backbone, name=name, weights=weights, seed=seed, official=official, checkpoint=checkpoint, fresh=fresh
    )
    return AudioModel(
        name=name,
        variant=variant,
        frontend=frontend,
        backbone=backbone,
        head_name=head,
        targets=places,
        weights=info,
        fresh=tuple(fresh),
    )
