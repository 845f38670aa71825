"""How untrained weights are drawn, for trunks that PEFT will leave frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def encoder_(module: nn.Module) -> None:
    """Glorot-uniform linear layers and convolutions, zero biases.

    The usual 0.02 suits a width of 768 that is trained in full. At a tiny variant's width it makes every residual
    branch next to nothing, and a trunk that stays frozen would pass its input on unread.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.flatten(1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def classifier_(module: nn.Module) -> None:
    """A new head: truncated normal of deviation 0.02, zero biases, so that the first logits are close to equal."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def sinusoid_grid(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of row and column (rows, columns, dim), half of the channels for each (He et al., 2022)."""

    def axis(length: int, channels: int) -> Tensor:
        rates = 10000.0 ** (-torch.arange(0, channels, 2) / channels)
        angle = torch.arange(length)[:, None] * rates
        return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :channels]

    half = dim // 2
    row = axis(rows, half)[:, None].expand(-1, columns, -1)
    column = axis(columns, dim - half)[None].expand(rows, -1, -1)
    return torch.cat((row, column), dim=-1)
