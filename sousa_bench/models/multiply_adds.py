"""What one clip costs a network: multiply-adds of its matrix products, convolutions and attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sousa_bench.models.base import Frontend

CLIP_SECONDS = 5


@torch.no_grad()
def multiply_adds(frontend: Frontend, backbone: nn.Module) -> int:
    """Multiply-adds of a backbone for 5 s of silence, in evaluation mode. The front end's don't count.

    Args:
        frontend: On the CPU.
        backbone: The same, or without values (FakeTensorMode); its mode is left as it was.
    """
    samples = CLIP_SECONDS * frontend.sample_rate
    inputs = frontend(torch.zeros(1, samples), torch.tensor([samples]))
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    # Attention as plain products: the fused one of the CPU is unknown to the counter.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone(*inputs)
    for module, training in modes.items():
        module.training = training
    return counter.get_total_flops() // 2
