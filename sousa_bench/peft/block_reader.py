"""A head on all blocks of a frozen network: what ``peft=probe`` and ``knn`` read with ``peft.reads=blocks``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sousa_bench.errors import PeftError
from sousa_bench.models.base import AudioModel, Divisible, State
from sousa_bench.peft.nearest_neighbours import HandOn
from sousa_bench.peft.targets import block_names, last_layer

ELSE = "give peft.reads=last"


class BlockReader(Divisible):
    """A backbone whose only head is a linear layer on the mean of each block's output.

    The mean is over tokens, or over frequency and time, the padding of a clip to the length grid among them.

    Args:
        network: Takes features and padding mask; what it gives is of no use.
        blocks: Names of its blocks.
        columns: Of what the head takes: the channels of all blocks.
        classes: Number of classes.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[str], columns: int, classes: int) -> None:
        super().__init__()
        self.network = network
        self.blocks = tuple(blocks)
        self.head = nn.Linear(columns, classes)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (batch, frames, bins) → logits (batch, classes)."""
        return self.onward(None, self.until(None, features, padding_mask))

    def divisible(self, frames: int) -> bool:
        """See :class:`sousa_bench.models.base.Divisible`."""
        return not isinstance(self.network, Divisible) or self.network.divisible(frames)

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`; before the head alone, since all below it is frozen."""
        assert place is None
        return (rows_of(self.network, self.blocks, features, padding_mask),)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`; no autocast rounds what may be large beside its variation."""
        (rows,) = state
        assert rows is not None
        with torch.autocast(rows.device.type, enabled=False):
            logits: Tensor = self.head(rows)
        return logits


def rows_of(network: nn.Module, blocks: Sequence[str], features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """The means of the outputs of a network's blocks: (batch, columns) float32.

    Where a long clip goes through in several pieces, their mean is taken.

    Raises:
        PeftError: A block gives what has no channels.
    """
    means: dict[str, list[Tensor]] = {name: [] for name in blocks}
    tokens = hasattr(network, "token_grid")

    def listen(name: str) -> Any:
        return lambda module, inputs, output: means[name].append(_mean(name, output, tokens))

    hooks = [network.get_submodule(name).register_forward_hook(listen(name)) for name in blocks]
    try:
        network(features, padding_mask)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([torch.stack(found).mean(0) for found in means.values()], dim=1)


def _mean(name: str, output: Any, tokens: bool) -> Tensor:
    """(batch, tokens, channels), (batch, rows, columns, channels) of tokens or else (batch, channels, …) → channels."""
    x = output[0] if isinstance(output, tuple) else output
    if not isinstance(x, Tensor) or x.ndim not in (3, 4):
        raise PeftError(f"the block {name} gives neither tokens nor maps, so that no head can read it: {ELSE}")
    channels = 1 if x.ndim == 4 and not tokens else x.ndim - 1
    return x.float().mean([axis for axis in range(1, x.ndim) if axis != channels])


@torch.no_grad()
def read_blocks(model: AudioModel) -> None:
    """Put a head that reads all blocks in the place of a model's own.

    Args:
        model: Its backbone is replaced, without its head's last layer, and in evaluation mode.

    Raises:
        PeftError: It names no blocks, or they can't be read, or the columns grow with a clip.
    """
    place, blocks, network = last_layer(model), block_names(model), model.backbone.eval()
    if not blocks:
        raise PeftError(f"model={model.name} names no blocks (model.targets.blocks): {ELSE}")
    layer = network.get_submodule(place)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    network.set_submodule(place, HandOn(layer))

    def columns_of(seconds: int) -> int:
        samples = seconds * model.sample_rate
        silence = torch.zeros(1, samples, device=layer.weight.device)
        return rows_of(network, blocks, *model.features(silence, torch.tensor([samples]))).shape[1]

    columns = columns_of(1)
    if not hasattr(network, "token_grid") and (longer := columns_of(2)) != columns:  # else it says what its blocks give
        raise PeftError(
            f"model={model.name}: its blocks give {columns} columns of a clip of 1 s and {longer} of 2 s, so that they "
            f"aren't (batch, tokens, channels) or (batch, channels, rows, columns): {ELSE}"
        )
    model.backbone = BlockReader(network, blocks, columns, len(layer.weight)).to(layer.weight.device)
    model.head_name, model.fresh = "head", ("head",)
