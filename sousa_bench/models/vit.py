"""A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) on the patches of a spectrogram.

CED, Dasheng, EAT and PaSST are this network with other patches, positions, norms and ways to pool. A block computes
what timm's does (within 1e-6). It is written here because timm fuses query, key and value, which PEFT then can't
reach one by one, has no block with its norms after the sums, and takes seconds to import.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from sousa_bench.models.base import Divisible, PerToken, State, place_number
from sousa_bench.models.family import Family, initialise_encoder, initialise_head, renamed
from sousa_bench.models.swin import Mlp

EPS = 1e-6
"""Of the LayerNorms in and after the blocks; a head's is PyTorch's 1e-5."""


@dataclass(frozen=True)
class Size:
    """The numbers of a variant that every such network has.

    Attributes:
        dim: Width of the tokens; the MLP's hidden layer has four times as many.
        layers: Transformer blocks.
        heads: Attention heads.
    """

    dim: int
    layers: int
    heads: int


class Attention(nn.Module):
    """Multi-head self-attention with a linear layer each for queries, keys, values and the output."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Tokens (batch, tokens, dim) → the same; the mask (batch, tokens) bool is True on keys to leave out."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = None
        if (
            token_mask is not None
        ):  # The lowest number, not minus infinity: of a row that is all padding there is a mean.
            lowest = torch.finfo(query.dtype).min
            bias = query.new_zeros(token_mask.shape).masked_fill(token_mask, lowest)[:, None, None, :]
        out = F.scaled_dot_product_attention(query, key, value, bias, scale=self.scale)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each with a residual, and a LayerNorm before it or, with ``post_norm``, after the sum."""

    def __init__(self, size: Size, post_norm: bool) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm1 = nn.LayerNorm(size.dim, eps=EPS)
        self.attention = Attention(size.dim, size.heads)
        self.norm2 = nn.LayerNorm(size.dim, eps=EPS)
        self.mlp = Mlp(size.dim, 4 * size.dim)

    def forward(self, x: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """As :meth:`Attention.forward`."""
        if self.post_norm:
            x = self.norm1(x + self.attention(x, token_mask))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x), token_mask)
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """Features (batch, frames, bins) → a grid of patch vectors.

    Args:
        dim: Width of a vector.
        patch: Mel bins and frames of a patch.
        stride: Mel bins and frames between patches; None: no overlap.
    """

    def __init__(self, dim: int, patch: tuple[int, int], stride: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.projection = nn.Conv2d(1, dim, patch, stride or patch)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, dim, rows of frequency, columns of time); what is left over at an end is dropped."""
        return self.projection(features.transpose(1, 2).unsqueeze(1))


class FactorisedPositions(nn.Module):
    """A learnt vector for each row of frequency and one for each column of time, both added.

    They start as the two halves of sines and cosines over a grid, as :class:`sousa_bench.models.ast.AstBackbone`'s do.
    """

    def __init__(self, dim: int, rows: int, columns: int) -> None:
        super().__init__()
        half = dim // 2
        row, column = sinusoids(rows, half), sinusoids(columns, dim - half)
        self.frequency = nn.Parameter(F.pad(row, (0, dim - half)).t()[None, :, :, None].contiguous())
        self.time = nn.Parameter(F.pad(column, (half, 0)).t()[None, :, None, :].contiguous())

    @property
    def columns(self) -> int:
        """Columns of time that there are positions for."""
        return self.time.shape[-1]

    def forward(self, grid: Tensor) -> Tensor:
        """Grid (batch, dim, rows, columns) → the same; of fewer columns the first positions are taken."""
        return grid + self.time[..., : grid.shape[-1]] + self.frequency


class FixedPositions(nn.Module):
    """Sines and cosines of a patch's row of frequency, then of its column of time, behind a learnt class token.

    Args:
        dim: Width of a token.
        rows: Rows of frequency.
        columns: Most columns of time.
    """

    frequency: Tensor
    time: Tensor

    def __init__(self, dim: int, rows: int, columns: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        self.register_buffer("frequency", sinusoids(rows, dim // 2), persistent=False)
        self.register_buffer("time", sinusoids(columns, dim // 2), persistent=False)

    def table(self, columns: int) -> Tensor:
        """Positions (columns, rows, dim) of so many columns of time."""
        frequency = self.frequency.expand(columns, -1, -1)
        return torch.cat((frequency, self.time[:columns, None].expand_as(frequency)), dim=-1)

    def forward(self, grid: Tensor) -> Tensor:
        """Grid (batch, dim, rows, columns) → tokens (batch, 1 + columns * rows, dim), time-major."""
        grid = first_columns(grid, len(self.time)).permute(0, 3, 2, 1)
        tokens = (grid + self.table(grid.shape[1])).flatten(1, 2)
        return torch.cat((self.class_token.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens), dim=1)


class VisionTransformer(Divisible):
    """Tokens, blocks, a final norm, one vector of the tokens, LayerNorm and a linear head.

    A model gives :meth:`embed` and :meth:`pooled`, and :meth:`token_mask` where it has a use for padding.

    Args:
        size: Numbers of the variant.
        num_classes: Outputs of the head.
        post_norm: Whether a block's norms stand after its sums; then there is no final one.
    """

    beside_tokens: ClassVar[Mapping[str, PerToken]] = {"token_mask": PerToken(False)}

    def __init__(self, size: Size, num_classes: int, post_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(size, post_norm) for _ in range(size.layers))
        self.norm = nn.Identity() if post_norm else nn.LayerNorm(size.dim, eps=EPS)
        self.classifier = nn.Sequential(
            OrderedDict(layernorm=nn.LayerNorm(size.dim), dense=nn.Linear(size.dim, num_classes))
        )
        self.checkpointing = False

    def initialise(self) -> None:
        """Draw the random start, once all of the model's own layers are there."""
        initialise_encoder(self)
        initialise_head(self.classifier)

    def enable_gradient_checkpointing(self) -> None:
        """Compute each block's activations again in the backward pass instead of keeping them."""
        self.checkpointing = True

    def embed(self, features: Tensor) -> Tensor:
        """Tokens (batch, tokens, dim) with their positions, from features (batch, frames, bins)."""
        raise NotImplementedError

    def pooled(self, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        """The vector (batch, dim) that the head takes, from what the final norm gives."""
        raise NotImplementedError

    def token_mask(self, padding_mask: Tensor | None) -> Tensor | None:
        """Mask of the frames (batch, frames) → of the tokens (batch, tokens), True on padding; None: all count."""
        return None

    def encode(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Tokens (batch, tokens, dim) after all blocks and the final norm."""
        return self.norm(through(self.layers, tokens, token_mask, self.checkpointing))

    def embedding(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """The vector (batch, dim) that the head takes."""
        token_mask = self.token_mask(padding_mask)
        return self.pooled(self.encode(self.embed(features), token_mask), token_mask)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (batch, frames, bins) → logits (batch, classes)."""
        return self.classifier(self.embedding(features, padding_mask))

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        if place is None:
            return (self.embedding(features, padding_mask),)
        token_mask = self.token_mask(padding_mask)
        below = self.layers[: place_number(place)]
        return through(below, self.embed(features), token_mask, self.checkpointing), token_mask

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        x, *rest = state
        assert x is not None
        if place is not None:
            [token_mask] = rest
            x = through(self.layers[place_number(place) :], x, token_mask, self.checkpointing)
            x = self.pooled(self.norm(x), token_mask)
        return self.classifier(x)


def through(layers: Iterable[nn.Module], x: Tensor, token_mask: Tensor | None, recomputed: bool) -> Tensor:
    """Tokens after some layers; ``recomputed``: their activations are computed again rather than kept for gradients."""
    for layer in layers:
        if recomputed and torch.is_grad_enabled():
            x = recompute(layer, x, token_mask, use_reentrant=False)
        else:
            x = layer(x, token_mask)
    return x


def first_columns(grid: Tensor, most: int) -> Tensor:
    """Grid (…, columns) of no more than so many: asked, since the export to ONNX can't cut where the length is free."""
    return grid[..., :most] if grid.shape[-1] > most else grid


def sinusoids(length: int, channels: int) -> Tensor:
    """Sines, then cosines, of positions (length, channels), their periods growing up to 10000 · 2π."""
    rates = 10000.0 ** (-torch.arange(0, channels, 2) / channels)
    angle = torch.arange(length)[:, None] * rates
    return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :channels]


_BLOCKS = (  # timm's names of what a block holds
    (r"\bblocks\.", "layers."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
)


class VitFamily(Family):
    """A family on :class:`VisionTransformer`, whose official files name blocks as timm does.

    Attributes:
        names: Patterns and replacements of what stands outside the blocks.
        unused: Pattern of whole keys that nothing here reads.
    """

    last_layer = "dense"
    names: ClassVar[Sequence[tuple[str, str]]] = ()
    unused: ClassVar[str] = "(?!)"

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of an official file; one that was trained without labels has no head, whose LayerNorm then is a new one."""
        own = renamed(state, (*self.names, *_BLOCKS), self.unused)
        if (
            not any(key.startswith("classifier.") for key in own)
            and (norm := own.get("layers.0.norm1.weight")) is not None
        ):
            own |= {
                "classifier.layernorm.weight": torch.ones_like(norm),
                "classifier.layernorm.bias": torch.zeros_like(norm),
            }
        return own
