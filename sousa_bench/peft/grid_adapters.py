"""Bottlenecks that look at a token's neighbours in time and frequency: the Conformer's convolution, and Convpass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sousa_bench.models.base import TokenGrid
from sousa_bench.models.grouped_convolution import convolved_in_groups
from sousa_bench.peft.added_options import ConformerConfig, ConvpassConfig
from sousa_bench.peft.bottleneck import scale_of, zeroed


class ConformerAdapter(nn.Module):
    """The Conformer's convolution module at a bottleneck's width, as Cappellazzo et al. (arXiv:2312.03694) take it.

    Down to twice the width, a gate (GLU), a depthwise convolution over time, a norm, Swish, up. The norm is LayerNorm:
    BatchNorm's statistics would make a clip's answer depend on other clips. The way up starts at zero.

    Args:
        options: Of the method.
        channels: Of the tokens.
        grid: How they lie.
    """

    def __init__(self, options: ConformerConfig, channels: int, grid: TokenGrid) -> None:
        super().__init__()
        width, kernel = options.width, options.kernel
        self.grid = grid
        self.down = nn.Linear(channels, 2 * width)
        self.convolution = nn.Conv2d(width, width, (1, kernel), groups=width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(options.dropout)
        self.up = zeroed(nn.Linear(width, channels))
        self.scale = scale_of(options.scale)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels), or a map (batch, height, width, channels) → the same shape."""
        gated = nn.functional.glu(self.down(x), dim=-1)
        mixed = nn.functional.silu(self.norm(over_grid(self.convolution, gated, self.grid)))
        return self.up(self.dropout(mixed)) * self.scale


class Convpass(nn.Module):
    """Convolutional bypass (Jie and Deng 2022, arXiv:2207.07039): down, 3×3 over frequency and time, up.

    The convolution starts as the identity and the way up at zero. The activation on both sides of the convolution is
    x·σ(1.702 x), as the authors have it.

    Args:
        options: Of the method.
        channels: Of the tokens.
        grid: How they lie.
    """

    def __init__(self, options: ConvpassConfig, channels: int, grid: TokenGrid) -> None:
        super().__init__()
        self.grid = grid
        self.down = nn.Linear(channels, options.width)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        self.convolution = nn.Conv2d(options.width, options.width, 3)
        nn.init.dirac_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(options.dropout)
        self.up = zeroed(nn.Linear(options.width, channels))
        self.scale = scale_of(options.scale)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels), or a map (batch, height, width, channels) → the same shape."""
        mixed = _quick_gelu(over_grid(self.convolution, _quick_gelu(self.down(x)), self.grid))
        return self.up(self.dropout(mixed)) * self.scale


def over_grid(convolution: nn.Conv2d, x: Tensor, grid: TokenGrid) -> Tensor:
    """Convolve tokens as the map (batch, channels, frequency, time) that they are; special ones are maps of one token.

    Args:
        convolution: Of an odd kernel, without padding.
        x: (batch, tokens, channels), or the same with tokens in two dimensions.
        grid: How they lie.
    """
    tokens = x.flatten(1, -2)
    special, patches = tokens[:, : grid.special], tokens[:, grid.special :]
    sizes = (-1, 1, grid.rows) if grid.time_major else (grid.pieces, grid.rows, -1)
    order = (0, 4, 3, 1, 2) if grid.time_major else (0, 4, 2, 1, 3)  # batch, channels, frequency, two parts of time
    parts = patches.unflatten(1, sizes).permute(order)
    lying = parts.flatten(3)
    torch._check(lying.shape[3] >= 1)  # The export to ONNX can't prove it where the length is free.
    mixed = _same(convolution, lying).reshape(parts.shape)
    back = [order.index(axis) for axis in range(5)]
    made = mixed.permute(back).flatten(1, 3)
    if grid.special:
        alone = _same(convolution, special.flatten(0, 1)[..., None, None]).view_as(special)
        made = torch.cat((alone, made), dim=1)
    return made.view(x.shape)


def _same(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A map of the same size. It is padded here: the export to ONNX can't prove that a free length exceeds 1."""
    high, wide = (size // 2 for size in convolution.kernel_size)
    padded = nn.functional.pad(x, (wide, wide, high, high))
    return convolved_in_groups(convolution, padded) if convolution.groups > 1 else convolution(padded)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
