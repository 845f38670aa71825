"""AST, the Audio Spectrogram Transformer (Gong et al., Interspeech 2021, arXiv:2104.01778).

The blocks are transformers' ``ASTModel``: SDPA attention, separate query, key, value and output projections for PEFT.
Around them stands what that class lacks: a batched front end on the device, and inputs shorter or longer than 1024
frames as the authors' own code takes them (YuanGongND/ast, ``src/models/ast_models.py``).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute
from transformers import ASTConfig, ASTModel

from sousa_bench.models.assembly import assemble
from sousa_bench.models.base import AudioModel, Divisible, Frontend, State, WeightsInfo, place_number
from sousa_bench.models.fbank import KaldiFbank
from sousa_bench.models.initialisation import classifier_, encoder_, sinusoid_grid
from sousa_bench.models.weight_files import check_weights
from sousa_bench.models.weights import CheckpointSource, load_official, pick_variant, seeded

SOURCE = CheckpointSource(hub="MIT/ast-finetuned-audioset-10-10-0.4593", license="BSD-3-Clause")
AUDIOSET_CLASSES = 527
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
        encoder_(self.trunk)
        # With zeros in their place, as transformers has them, an untrained trunk could not tell one patch from another.
        with torch.no_grad():
            grid = sinusoid_grid(*self.grid, embeddings.position_embeddings.shape[-1])
            embeddings.position_embeddings[:, 2:] = grid.flatten(0, 1)
        nn.init.normal_(embeddings.cls_token)
        nn.init.normal_(embeddings.distillation_token)
        classifier_(self.classifier)

    def enable_gradient_checkpointing(self) -> None:
        """Compute each block's activations again in the backward pass instead of keeping them."""
        self.checkpointing = True

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
        tokens = torch.cat((special.expand(len(patches), -1, -1).to(patches.dtype), patches), dim=1)
        return tokens + self.positions(patches.shape[1] // self.grid[0]).to(tokens.dtype)

    def encode(self, features: Tensor) -> Tensor:
        """Tokens (batch, 2 + rows * columns, dim) after the final LayerNorm."""
        return self.trunk.layernorm(self._through(self.trunk.layers, self.embed(features)))

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
        return (self._through(self.trunk.layers[: place_number(place)], self.embed(features)),)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        (x,) = state
        assert x is not None
        if place is not None:
            x = _pooled(self.trunk.layernorm(self._through(self.trunk.layers[place_number(place) :], x)))
        return self.classifier(x)

    def _through(self, layers: Iterable[nn.Module], x: Tensor) -> Tensor:
        for layer in layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = recompute(layer, x, None, use_reentrant=False)
            else:
                x = layer(x, None)
        return x


def _pooled(tokens: Tensor) -> Tensor:
    return (tokens[:, 0] + tokens[:, 1]) / 2


def build(
    *,
    num_classes: int | None = 40,
    variants: Mapping[str, Mapping[str, Any]],
    head: str,
    targets: Mapping[str, Any],
    name: str = "ast",
    variant: str | None = None,
    weights: str = "random",
    checkpoint: str | None = None,
    seed: int = 0,
    refuses: Mapping[str, str] | None = None,
) -> AudioModel:
    """Build AST; ``conf/model/ast.yaml`` names this function.

    Args:
        num_classes: Outputs of a new head, or None for the checkpoint's own 527 AudioSet classes and their head.
        variants: Variant → the numbers of :class:`Shape`.
        head: Dotted name, inside the backbone, of the module that makes the logits.
        targets: Fields of :class:`sousa_bench.models.base.Targets`.
        name: The model's name in configs and results.
        variant: Key of ``variants``; None follows ``weights``.
        weights: ``official``, ``random`` or ``embedded``.
        checkpoint: See :func:`sousa_bench.models.weights.load_official`; None is the hub's.
        seed: Of random weights and of the new head.
        refuses: Method → reason; read from the config before a sweep starts, not here.

    Raises:
        WeightsError: The weights can't be had or don't fit.
        ConfigError: Unknown variant or kind of weights.
    """
    check_weights(weights, checkpoint)
    variant, numbers = pick_variant(weights, variant, variants)
    shape = Shape(**numbers)
    with seeded(seed):
        backbone = AstBackbone(shape, AUDIOSET_CLASSES if num_classes is None else num_classes)

    def official() -> tuple[dict[str, Tensor], WeightsInfo]:
        loaded = load_official(SOURCE, checkpoint)
        return own_keys(loaded.state), loaded.info

    return assemble(
        name=name,
        variant=variant,
        frontend=AstFrontend(shape.bins, shape.frames),
        backbone=backbone,
        head=head,
        targets=targets,
        weights=weights,
        seed=seed,
        official=official,
        checkpoint=checkpoint,
        fresh=() if num_classes is None else (f"{head}.dense",),
    )


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
    (r"^mlp_head\.0\.", "classifier.layernorm."),
    (r"^mlp_head\.1\.", "classifier.dense."),
)
_UNUSED = re.compile(r"(module\.)?v\.head(_dist)?\.(weight|bias)")
"""The ImageNet heads of the DeiT that the authors started from; their code never calls them."""


def own_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of either official file under this backbone's keys; unknown keys stay as they are."""
    original = any(re.match(r"(module\.)?v\.", key) for key in state)
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if original and _UNUSED.fullmatch(key):
            continue
        for pattern, replacement in _ORIGINAL if original else _HUB:
            key = re.sub(pattern, replacement, key)
        fused = re.fullmatch(r"(.*)\.attn\.qkv\.(weight|bias)", key)
        if fused:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{fused[1]}.attention.{letter}_proj.{fused[2]}"] = part
        else:
            renamed[key] = tensor
    return renamed
