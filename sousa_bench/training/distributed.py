"""One training over several processes, one a device: the supervisor starts them with torchrun's variables.

What a step computes is the same as in one process: each rank takes every n-th clip of the global batch, and the
gradients are summed after the last micro-batch. A rank whose part of a batch is empty adds nothing. In a run of one
process the functions here leave everything as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from sousa_bench.errors import ConfigError


def rank() -> int:
    """Number of this process among those of its run."""
    return int(os.environ.get("RANK", "0")) if TorchElasticEnvironment.detect() else 0


def world_size() -> int:
    """Processes that train together."""
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if connected else 1


def cluster_environment() -> ClusterEnvironment:
    """How this process finds its peers: by torchrun's variables when the supervisor set them, else it has none.

    Lightning's own guess would take a Slurm job for its own and look for ``srun``.
    """
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def strategy(devices: int, accelerator: str) -> str | DDPStrategy:
    """Lightning's strategy for ``devices`` processes.

    Raises:
        ConfigError: The processes were not started; Lightning would start this command again in each.
    """
    if devices == 1:
        return "auto"
    if not TorchElasticEnvironment.detect():
        raise ConfigError(
            f"trainer.devices={devices} needs a process each: run it with python -m sousa_bench.train (or torchrun)"
        )
    return Ranks(process_group_backend="gloo" if accelerator == "cpu" else None)


class Ranks(DDPStrategy):
    """Lightning's DDP without the wrapper that reduces gradients in every backward pass.

    The classifier sums them itself, once an optimizer step: with as many micro-batches on each rank as its part of the
    batch needs, the wrapper's reductions would not pair up.
    """

    def configure_ddp(self) -> None:
        """Start all ranks from the weights of the first."""
        assert isinstance(self.model, pl.LightningModule)
        copy_from_first_rank([*self.model.parameters(), *self.model.buffers()])


def copy_from_first_rank(tensors: Iterable[Tensor]) -> None:
    """Give every rank the first one's values."""
    if world_size() == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            torch.distributed.broadcast(tensor.detach(), 0)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all ranks; a parameter without one on every rank keeps none."""
    if world_size() == 1:
        return
    device = parameters[0].device
    parts = [torch.zeros(p.numel(), device=device) if p.grad is None else p.grad.flatten().float() for p in parameters]
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    flat = torch.cat([*parts, present])
    torch.distributed.all_reduce(flat)
    has_gradient = flat[-len(parameters) :].tolist()
    totals = flat[: -len(parameters)].split([p.numel() for p in parameters])
    for parameter, total, has in zip(parameters, totals, has_gradient, strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if has else None


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Each flag, true on every rank where it is true on one."""
    values = torch.tensor([float(flag) for flag in flags], device=device)
    torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]


def gathered(value: Any) -> list[Any]:
    """The value of every rank, in their order."""
    parts: list[Any] = [value] * world_size()
    if len(parts) > 1:
        torch.distributed.all_gather_object(parts, value)
    return parts
