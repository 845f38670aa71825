"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sousa_bench.peft.added_options import LEARNT, BottleneckConfig

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class Bottleneck(nn.Module):
    """Down, activation, dropout, up, times a scale.

    The way up starts at zero, so that the network starts as it was; the way down starts as PyTorch's linear layers do.

    Args:
        options: Of the method.
        channels: Of the tokens.
    """

    def __init__(self, options: BottleneckConfig, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, options.width)
        self.activation = ACTIVATIONS[options.activation]()
        self.dropout = nn.Dropout(options.dropout)
        self.up = zeroed(nn.Linear(options.width, channels))
        self.scale = scale_of(options.scale)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → the same shape."""
        return self.up(self.dropout(self.activation(self.down(x)))) * self.scale


def zeroed(layer: nn.Linear) -> nn.Linear:
    """A layer that puts out zeros until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def scale_of(asked: float | str) -> float | nn.Parameter:
    """A fixed scale, or one that is learnt and starts at 1."""
    return nn.Parameter(torch.ones(())) if asked == LEARNT else float(asked)
