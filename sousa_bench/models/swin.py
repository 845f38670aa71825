"""The Swin transformer (Liu et al., 2021, arXiv:2103.14030) in the form that HTS-AT uses.

Written anew rather than taken from transformers' CLAP encoder, whose arithmetic is the same: that one has no SDPA,
builds its masks anew in every forward pass, and checkpoints whole stages, which hold up to six blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from sousa_bench.models.base import Sublayer


@dataclass(frozen=True)
class SwinShape:
    """The numbers of a Swin transformer.

    Attributes:
        image: Side of the square image.
        patch: Side of a patch; patches don't overlap.
        dim: Width of the first stage; it doubles with each.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of an attention window in tokens.
        mlp_ratio: Width of the MLP's hidden layer over the block's.
        drop_path: Largest stochastic depth, reached linearly in the last block; training only.
    """

    image: int
    patch: int
    dim: int
    depths: Sequence[int]
    heads: Sequence[int]
    window: int
    mlp_ratio: float
    drop_path: float

    @property
    def side(self) -> int:
        """Side of the last stage's map."""
        return self.image // self.patch // 2 ** (len(self.depths) - 1)

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self.dim * 2 ** (len(self.depths) - 1)


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens in a window: (window², window²) int64, query first."""
    row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row + window - 1
    right = column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Additive mask (windows, window², window²): -100 between tokens that the cyclic shift made neighbours, else 0."""
    place = torch.arange(side)
    region = (place >= side - window).long() + (place >= side - shift).long()
    tokens = split_windows((region[:, None] * 3 + region)[None, :, :, None], window).flatten(1)
    return torch.where(tokens[:, :, None] == tokens[:, None], 0.0, -100.0)


def split_windows(x: Tensor, window: int) -> Tensor:
    """(batch, height, width, channels) → (batch * windows, window², channels), windows row-major."""
    _, height, width, channels = x.shape
    x = x.unflatten(1, (height // window, window)).unflatten(3, (width // window, window))
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def join_windows(windows: Tensor, window: int, side: int) -> Tensor:
    """The inverse of :func:`split_windows` for a square map."""
    count = side // window
    x = windows.view(-1, count, count, window, window, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, side, side, windows.shape[-1])


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias per head and relative position."""

    index: Tensor
    mask: Tensor | None

    def __init__(self, dim: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)
        self.register_buffer("mask", shift_mask(side, window, shift) if shift else None, persistent=False)

    def bias(self) -> Tensor:
        """What is added to the scores: (1 or windows, heads, tokens, tokens)."""
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]
        return bias if self.mask is None else bias + self.mask[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """(batch * windows, tokens, channels) → the same shape."""
        bias = self.bias()
        windows = len(bias)  # Windows that have biases of their own become heads: one call for the whole batch.

        def split(projected: Tensor) -> Tensor:
            per_head = projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return per_head.reshape(-1, windows * self.heads, *per_head.shape[2:])

        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        mask = bias.flatten(0, 1)[None].to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self.o_proj(attended.reshape(x.shape[0], self.heads, *attended.shape[2:]).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) → (…, dim)."""
        return self.fc2(self.act(self.fc1(x)))


class SwinBlock(nn.Module):
    """Pre-norm window attention, then an MLP, each beside an identity path.

    Args:
        dim: Channels.
        heads: Attention heads.
        side: Side of the map in tokens.
        shape: Numbers of the whole transformer.
        shifted: Whether the windows are shifted by half; ignored where one window covers the map.
        drop_path: Chance that a clip skips a branch in training.
    """

    def __init__(self, dim: int, heads: int, side: int, shape: SwinShape, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.side = side
        self.window = min(shape.window, side)
        self.shift = self.window // 2 if shifted and side > self.window else 0
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, side, self.window, self.shift)
        self.attending = Sublayer("attention")  # On the map, before it falls into windows
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * shape.mlp_ratio))

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return x
        keep = 1.0 - self.drop_path
        return x * torch.empty(len(x), 1, 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep).div_(keep)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, side, side, channels) → the same shape."""
        x = x + self._drop(self.attending(self.norm1(x), self._attend))
        tokens = self.norm2(x).flatten(1, 2)  # PEFT's OFT takes four dimensions for an image
        return x + self._drop(self.mlp(tokens).view_as(x))

    def _attend(self, x: Tensor) -> Tensor:
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = join_windows(self.attention(split_windows(x, self.window)), self.window, self.side)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


class PatchMerging(nn.Module):
    """Halve the map: each 2x2 square of tokens becomes one of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, side, side, channels) → (batch, side / 2, side / 2, 2 * channels); rows before columns."""
        squares = (x[:, row::2, column::2] for column in (0, 1) for row in (0, 1))
        return self.reduction(self.norm(torch.cat(tuple(squares), dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution, every other one shifted, then patch merging (not in the last stage)."""

    def __init__(self, shape: SwinShape, index: int, drop_path: Sequence[float]) -> None:
        super().__init__()
        dim, side = shape.dim * 2**index, shape.image // shape.patch // 2**index
        self.blocks = nn.ModuleList(
            SwinBlock(dim, shape.heads[index], side, shape, place % 2 == 1, drop_path[place])
            for place in range(shape.depths[index])
        )
        last = index == len(shape.depths) - 1
        self.downsample: nn.Module = nn.Identity() if last else PatchMerging(dim)

    def forward(self, x: Tensor, checkpointing: bool = False, block: int = 0) -> Tensor:
        """(batch, side, side, channels), the input of one of the blocks → the next stage's input."""
        for each in self.blocks[block:]:
            x = recompute(each, x, use_reentrant=False) if checkpointing else each(x)
        return self.downsample(x)


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens, and a LayerNorm."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, image, image) → (batch, side, side, dim)."""
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Patch embedding, stages and a final LayerNorm; no absolute positions."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        rates = torch.linspace(0, shape.drop_path, sum(shape.depths)).split(list(shape.depths))
        self.patch_embed = PatchEmbed(shape.patch, shape.dim)
        self.layers = nn.ModuleList(SwinStage(shape, i, rate.tolist()) for i, rate in enumerate(rates))
        self.norm = nn.LayerNorm(shape.width)
        self.checkpointing = False

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, image, image) → normed tokens (batch, side, side, width)."""
        return self.onward(0, 0, self.patch_embed(image))

    def until(self, stage: int, block: int, image: Tensor) -> Tensor:
        """(batch, 1, image, image) → the input of a block."""
        x = self.patch_embed(image)
        for each in self.layers[:stage]:
            x = each(x)
        last = self.layers[stage]
        assert isinstance(last, SwinStage)
        for each in last.blocks[:block]:
            x = each(x)
        return x

    def onward(self, stage: int, block: int, x: Tensor) -> Tensor:
        """From the input of a block to normed tokens (batch, side, side, width)."""
        checkpointing = self.checkpointing and torch.is_grad_enabled()
        for number, each in enumerate(self.layers[stage:]):
            x = each(x, checkpointing, 0 if number else block)
        return self.norm(x)
