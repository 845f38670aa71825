"""AST, the Audio Spectrogram Transformer (Gong et al., Interspeech 2021, arXiv:2104.01778).

The blocks are transformers' ``ASTModel``: SDPA attention, separate query, key, value and output projections for PEFT.
Around them stands what that class lacks: a batched front end on the device, and inputs shorter or longer than 1024
frames as the authors' own code takes them (YuanGongND/ast, ``src/models/ast_models.py``).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTModel

from sousa_bench.models.base import Divisible, Frontend, PerToken, State, TokenGrid, place_number
from sousa_bench.models.family import Family, initialise_encoder, initialise_head, renamed
from sousa_bench.models.fbank import KaldiFbank, band_centres
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.vit import sinusoids, through

MEAN, STD = -4.2677393, 4.5689974
"""Of AudioSet's log-mel values (YuanGongND/ast, ``egs/audioset/run.sh``)."""


@dataclass(frozen=True)
class Shape:
    """The numbers of a variant (``conf/model/ast.yaml``).

    Attributes:
        dim: Width of the tokens.
        layers: Transformer blocks.
        heads: Attention heads.
        mlp: Width of the hidden layer of the MLP.
        bins: Mel bins.
        frames: Frames that the position table covers, and the length of an official input.
        frequency_stride: Mel bins between patches of 16.
        time_stride: Frames between patches of 16.
    """

    dim: int
    layers: int
    heads: int
    mlp: int
    bins: int
    frames: int
    frequency_stride: int
    time_stride: int


class AstFrontend(Frontend):
    """Kaldi filter bank with a symmetric Hann window, normalised by AudioSet's mean and twice its deviation."""

    def __init__(self, bins: int, frames: int) -> None:
        super().__init__()
        self.sample_rate = 16000
        self.frames = frames
        self.mean, self.divisor = MEAN, 2 * STD
        self.fbank = KaldiFbank("hann", self.sample_rate, bins)

    @property
    def pad_value(self) -> float:  # type: ignore[override]
        """Zero rows, appended before normalising."""
        return -self.mean / self.divisor

    def centres(self) -> Tensor:
        """As :meth:`sousa_bench.models.base.Frontend.centres`."""
        return band_centres(self.fbank.bank, self.sample_rate)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features; see :class:`sousa_bench.models.base.Frontend`.

        Without ``lengths`` the result has the official 1024 frames (padded, or cut at the end); with ``lengths`` only
        as many as the batch needs.
        """
        x = self.fbank(waveform)
        if lengths is None:
            x = F.pad(x, (0, 0, 0, self.frames - x.shape[1]))  # A negative pad cuts.
        else:
            beyond = torch.arange(x.shape[1], device=x.device) >= self.fbank.frames(lengths)[:, None]
            x = x.masked_fill(beyond[:, :, None], 0.0)
            x = F.pad(x, (0, 0, 0, max(0, 16 - x.shape[1])))  # One patch at least.
        return (x - self.mean) / self.divisor, None


class AstBackbone(Divisible):
    """Patches, transformer, the mean of the class and distillation tokens, LayerNorm and a linear head.

    Args:
        shape: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    beside_tokens: ClassVar[Mapping[str, PerToken]] = {}

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        config = ASTConfig(
            hidden_size=shape.dim,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp,
            num_mel_bins=shape.bins,
            max_length=shape.frames,
            frequency_stride=shape.frequency_stride,
            time_stride=shape.time_stride,
        )
        self.trunk = ASTModel(config)
        self.trunk.set_attn_implementation("sdpa")
        self.classifier = nn.Sequential(
            OrderedDict(
                layernorm=nn.LayerNorm(shape.dim, eps=config.layer_norm_eps),
                dense=nn.Linear(shape.dim, num_classes),
            )
        )
        self.grid: tuple[int, int] = self.trunk.embeddings.get_shape(config)
        self.checkpointing = False
        self._initialise()

    def _initialise(self) -> None:
        embeddings = self.trunk.embeddings
        initialise_encoder(self.trunk)
        # With zeros in their place, as transformers has them, an untrained trunk could not tell one patch from another.
        with torch.no_grad():
            grid = sinusoid_grid(*self.grid, embeddings.position_embeddings.shape[-1])
            embeddings.position_embeddings[:, 2:] = grid.flatten(0, 1)
        nn.init.normal_(embeddings.cls_token)
        nn.init.normal_(embeddings.distillation_token)
        initialise_head(self.classifier)

    def enable_gradient_checkpointing(self) -> None:
        """Compute each block's activations again in the backward pass instead of keeping them."""
        self.checkpointing = True

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`."""
        return TokenGrid(self.grid[0], special=2)

    def positions(self, columns: int) -> Tensor:
        """Position embeddings (1, 2 + rows * columns, dim) for an input of so many time columns.

        Fewer columns than the table has are cut from its middle, more are interpolated bilinearly, as the authors do.
        """
        table = self.trunk.embeddings.position_embeddings
        rows, whole = self.grid
        if columns == whole:
            return table
        special, patches = table[:, :2], table[:, 2:]
        grid = patches.transpose(1, 2).unflatten(2, (rows, whole))
        if columns < whole:
            start = whole // 2 - columns // 2
            grid = grid[..., start : start + columns]
        else:
            grid = F.interpolate(grid, size=(rows, columns), mode="bilinear")
        return torch.cat((special, grid.flatten(2).transpose(1, 2)), dim=1)

    def embed(self, features: Tensor) -> Tensor:
        """Tokens (batch, 2 + rows * columns, dim), positions added, from features (batch, frames, bins)."""
        embeddings = self.trunk.embeddings
        patches = embeddings.patch_embeddings(features)
        special = torch.cat((embeddings.cls_token, embeddings.distillation_token), dim=1)
        tokens = torch.cat((special.expand(patches.shape[0], -1, -1).to(patches.dtype), patches), dim=1)
        return tokens + self.positions(patches.shape[1] // self.grid[0]).to(tokens.dtype)

    def encode(self, features: Tensor) -> Tensor:
        """Tokens (batch, 2 + rows * columns, dim) after the final LayerNorm."""
        return self.trunk.layernorm(through(self.trunk.layers, self.embed(features), None, self.checkpointing))

    def embedding(self, features: Tensor) -> Tensor:
        """The pooled vector (batch, dim) that the head takes."""
        return _pooled(self.encode(features))

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (batch, frames, bins) → logits (batch, classes); AST has no use for a padding mask."""
        return self.classifier(self.embedding(features))

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        if place is None:
            return (self.embedding(features),)
        return (through(self.trunk.layers[: place_number(place)], self.embed(features), None, self.checkpointing),)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        (x,) = state
        assert x is not None
        if place is not None:
            x = through(self.trunk.layers[place_number(place) :], x, None, self.checkpointing)
            x = _pooled(self.trunk.layernorm(x))
        return self.classifier(x)


def sinusoid_grid(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of row and column (rows, columns, dim), half of the channels for each (He et al., 2022)."""
    half = dim // 2
    row = sinusoids(rows, half)[:, None].expand(-1, columns, -1)
    column = sinusoids(columns, dim - half)[None].expand(rows, -1, -1)
    return torch.cat((row, column), dim=-1)


def _pooled(tokens: Tensor) -> Tensor:
    return (tokens[:, 0] + tokens[:, 1]) / 2


_HUB = (  # transformers 4.x, the names in the hub's file → transformers 5
    (r"audio_spectrogram_transformer\.", "trunk."),
    (r"trunk\.encoder\.layer\.", "trunk.layers."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
_ORIGINAL = (  # The authors' .pth, built on timm
    (r"^module\.", ""),
    (r"^v\.cls_token$", "trunk.embeddings.cls_token"),
    (r"^v\.dist_token$", "trunk.embeddings.distillation_token"),
    (r"^v\.pos_embed$", "trunk.embeddings.position_embeddings"),
    (r"^v\.patch_embed\.proj\.", "trunk.embeddings.patch_embeddings.projection."),
    (r"^v\.norm\.", "trunk.layernorm."),
    (r"^v\.blocks\.", "trunk.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
    (r"^mlp_head\.0\.", "classifier.layernorm."),
    (r"^mlp_head\.1\.", "classifier.dense."),
)
_UNUSED = r"(module\.)?v\.head(_dist)?\.(weight|bias)"
"""The ImageNet heads of the DeiT that the authors started from; their code never calls them."""


class Ast(Family):
    """AST; ``conf/model/ast.yaml``."""

    numbers = Shape
    source = PUBLISHED["ast"].source
    last_layer = "dense"

    def frontend(self, numbers: Shape) -> AstFrontend:
        """See :class:`Family`."""
        return AstFrontend(numbers.bins, numbers.frames)

    def backbone(self, numbers: Shape, num_classes: int) -> AstBackbone:
        """See :class:`Family`."""
        return AstBackbone(numbers, num_classes)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the hub's file or the authors' own."""
        original = any(re.match(r"(module\.)?v\.", key) for key in state)
        return renamed(state, _ORIGINAL, _UNUSED) if original else renamed(state, _HUB)


build = Ast().build
