"""Convolutions in groups on a CPU: in float32, whatever the autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def convolved_in_groups(convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a convolution of narrow groups makes of ``x``; in float32 under a CPU's autocast.

    oneDNN's bfloat16 kernels (torch 2.11) get such groups wrong on AMX, by as much as the result, and on AVX-512 a long
    kernel over channels that lie last never returns.

    Args:
        convolution: A module, or several of which the first is the convolution.
        x: As it takes it.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return convolution(x)
    with torch.autocast("cpu", enabled=False):
        return convolution(x.float())
