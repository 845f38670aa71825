"""A model that needs more memory than there is, once a batch is too large."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import get_method
from torch import nn


def build(*, inner: str, most_clips: int, **options: Any) -> nn.Module:
    """Build ``inner``; its training forward runs out of memory on more than ``most_clips`` clips."""
    model = get_method(inner)(**options)

    def check(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training and len(inputs[0]) > most_clips:
            raise torch.OutOfMemoryError(f"tried to allocate {len(inputs[0])} clips")

    model.backbone.register_forward_pre_hook(check)
    return model
