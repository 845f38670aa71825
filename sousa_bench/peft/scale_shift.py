"""SSF (Lian et al. 2022, arXiv:2210.08823): a factor and an offset for each channel that an operation puts out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def output_channels(module: nn.Module) -> tuple[int, int] | None:
    """Number and axis of the channels that an operation puts out; None where it is of no kind that SSF can follow."""
    match module:
        case nn.Linear():
            return module.out_features, -1
        case nn.LayerNorm() if len(module.normalized_shape) == 1:
            return module.normalized_shape[0], -1
        case _ConvTransposeNd():  # its weights have the outputs on another axis
            return None
        case _ConvNd():
            return module.out_channels, 1
        case _BatchNorm():
            return module.num_features, 1
        case nn.GroupNorm():
            return module.num_channels, 1
    return None


class ScaleShift(nn.Module):
    """``scale ⊙ x + shift``, which starts as the identity.

    Args:
        channels: How many.
        axis: Which axis of the output they are, 1 or -1.
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, base: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """What the operation puts out, changed; see :class:`sousa_bench.peft.added_tuner.Added`."""
        out: Tensor = base(*args, **kwargs)
        shape = (-1, *[1] * (out.ndim - 2)) if self.axis == 1 else (-1,)
        return out * self.scale.view(shape).to(out.dtype) + self.shift.view(shape).to(out.dtype)

    @torch.no_grad()
    def merged(self, base: Any) -> nn.Module:
        """The operation with other weights.

        Raises:
            NotImplementedError: It has no bias, so that another network would come out.
        """
        if base.weight is None or base.bias is None:
            raise NotImplementedError
        own = copy.deepcopy(base)
        own.weight.mul_(self.scale.view(-1, *[1] * (own.weight.ndim - 1)))
        own.bias.mul_(self.scale).add_(self.shift)
        return own
