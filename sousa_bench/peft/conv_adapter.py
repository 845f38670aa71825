"""Conv-Adapter (Chen et al. 2022, arXiv:2208.07463): a bottleneck of convolutions beside a block of a CNN."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sousa_bench.models.grouped_convolution import convolved_in_groups
from sousa_bench.peft.added_options import ConvAdapterConfig


@dataclass(frozen=True)
class MapSizes:
    """What a block makes of a map (batch, channels, height, width).

    Attributes:
        inputs: Channels of its input.
        outputs: Channels of its output.
        stride: How many times smaller the output is, in height and in width.
    """

    inputs: int
    outputs: int
    stride: tuple[int, int]


def map_sizes(block: nn.Module) -> MapSizes | None:
    """The sizes of a block of 2-D convolutions one after the other; None where none of them looks at neighbours."""
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    if not any(max(convolution.kernel_size) > 1 for convolution in convolutions):
        return None
    high, wide = (math.prod(convolution.stride[axis] for convolution in convolutions) for axis in (0, 1))
    return MapSizes(convolutions[0].in_channels, convolutions[-1].out_channels, (high, wide))


class ConvAdapter(nn.Module):
    """A convolution in groups down to fewer channels, ReLU, a 1×1 convolution up, times a learnt scale a channel.

    The way up starts at zero and the scales at 1.

    Args:
        options: Of the method.
        sizes: Of the block beside which it stands.
    """

    def __init__(self, options: ConvAdapterConfig, sizes: MapSizes) -> None:
        super().__init__()
        width = max(sizes.inputs // options.reduction, 1)
        self.down = nn.Conv2d(
            sizes.inputs,
            width,
            options.kernel,
            sizes.stride,
            padding=options.kernel // 2,
            groups=math.gcd(sizes.inputs, width),
        )
        self.up = nn.Conv2d(width, sizes.outputs, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]
        self.scale = nn.Parameter(torch.ones(sizes.outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, height / stride, width / stride)."""
        added: Tensor = self.up(torch.relu(convolved_in_groups(self.down, x)))
        return added * self.scale[:, None, None].to(added.dtype)
