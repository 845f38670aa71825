"""The BEATs encoder (Chen et al. 2022, arXiv 2212.09058) with fused attention: features → logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from sousa_bench.models.base import Divisible, PerToken, State, Sublayer, TokenGrid, place_number
from sousa_bench.models.grouped_convolution import convolved_in_groups

BINS = 128
"""Mel bins of all published models."""


@dataclass(frozen=True)
class BeatsConfig:
    """Numbers that fix a BEATs network; field names are those of the official ``cfg``.

    Attributes:
        encoder_layers: Transformer layers.
        encoder_embed_dim: Width of a token in the encoder.
        encoder_ffn_embed_dim: Width of the hidden layer of each feed-forward block.
        encoder_attention_heads: Attention heads per layer.
        embed_dim: Channels of the patch embedding.
        input_patch_size: Side of a square patch, in frames and in mel bins.
        conv_pos: Kernel length of the positional convolution, in tokens.
        conv_pos_groups: Groups of the positional convolution.
        num_buckets: Relative-position buckets, both directions together.
        max_distance: Token distance from which all share the last bucket.
        dropout: After each sub-layer and after the first layer norm.
        attention_dropout: On the attention weights.
        activation_dropout: After the activation of the feed-forward block.
        dropout_input: On the projected patches.
        predictor_dropout: Before the head.
    """

    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    embed_dim: int = 512
    input_patch_size: int = 16
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    dropout_input: float = 0.0
    predictor_dropout: float = 0.0

    @property
    def residual_scale(self) -> float:
        """DeepNorm's alpha of an encoder, (2 N)^(1/4) (Wang et al. 2022, arXiv 2203.00555, table 1)."""
        return (2 * self.encoder_layers) ** 0.25


def split_mask(mask: Tensor, parts: int) -> Tensor:
    """Cut a padding mask evenly into ``parts`` chunks; a chunk is padding when all of it is.

    The entries that are left over, ``length % parts`` at the end, are dropped first, as the official code does.

    Args:
        mask: (batch, length) bool, True on padding; ``length >= parts``.
        parts: Number of chunks.

    Returns:
        (batch, parts) bool.
    """
    chunk = mask.shape[1] // parts
    # By places rather than by a reshaping, whose size the export to ONNX can't prove where the length is free.
    places = torch.arange(parts, device=mask.device)[:, None] * chunk + torch.arange(chunk, device=mask.device)
    return mask[:, places].all(-1)


class RelativePositionBias(nn.Module):
    """T5's bucketed relative positions, one learnt bias per bucket and head, for both directions.

    Half of the buckets serve keys after the query. Of each half the first half are exact distances, the rest grow
    logarithmically up to ``max_distance`` (Raffel et al. 2020, arXiv 1910.10683, section 2.1).
    """

    def __init__(self, num_buckets: int, max_distance: int, heads: int) -> None:
        super().__init__()
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.table = nn.Embedding(num_buckets, heads)

    def buckets(self, length: int) -> Tensor:
        """Bucket of every offset key - query from ``1 - length`` to ``length - 1``: (2 length - 1,) int64."""
        offsets = torch.arange(1 - length, length, device=self.table.weight.device)
        half = self.num_buckets // 2
        exact = half // 2
        distance = offsets.abs()
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
        return (offsets > 0).long() * half + torch.where(distance < exact, distance, far)

    def forward(self, length: int) -> Tensor:
        """Bias (1, heads, length, length): row is the query, column the key."""
        by_offset = self.table(self.buckets(length)).t()
        position = torch.arange(length, device=by_offset.device)
        return by_offset[:, position[None, :] - position[:, None] + length - 1].unsqueeze(0)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose relative-position bias is gated by the query.

    ``grep_linear`` and ``grep_a`` are the official names of the gate (gated relative position, as in WavLM, Chen et
    al. 2022, arXiv 2110.13900, section III-A).
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.grep_linear = nn.Linear(dim // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor, key_mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: (batch, tokens, dim).
            bias: (1, heads, tokens, tokens) ungated relative-position bias.
            key_mask: (batch, 1, 1, tokens), 0 or -inf on padding, or None.

        Returns:
            (batch, tokens, dim).
        """
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = self.gate(query) * bias
        if key_mask is not None:
            bias = bias + key_mask
        rate = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), rate, scale=self.scale)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def gate(self, query: Tensor) -> Tensor:
        """Gate (batch, heads, tokens, 1) from the unscaled query (batch, heads, tokens, head dim)."""
        a, b = torch.sigmoid(self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1)).split(1, dim=-1)
        return a * (b * self.grep_a - 1) + 2


class EncoderLayer(nn.Module):
    """Post-norm transformer layer with DeepNorm's scaled residual."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.residual_scale = config.residual_scale
        self.self_attn = SelfAttention(dim, config.encoder_attention_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.feedforward = Sublayer("mlp")  # Its layers have their names from the official files.

    def forward(self, x: Tensor, bias: Tensor, key_mask: Tensor | None) -> Tensor:
        """(batch, tokens, dim) → the same; the other arguments as in :meth:`SelfAttention.forward`."""
        attended = self.dropout(self.self_attn(x, bias, key_mask))
        x = self.self_attn_layer_norm(x * self.residual_scale + attended)
        return self.final_layer_norm(x * self.residual_scale + self.dropout(self.feedforward(x, self._feedforward)))

    def _feedforward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_dropout(self.activation(self.fc1(x))))


class PositionalConvolution(nn.Module):
    """Grouped, weight-normalised convolution over the token axis that stands in for position embeddings."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups), dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        moved = convolved_in_groups(self.conv, x.transpose(1, 2))
        # An even kernel with half its length of padding gives one position too many.
        return F.gelu(moved[..., : x.shape[1]]).transpose(1, 2)


class Encoder(nn.Module):
    """Positional convolution, layer norm, then the transformer layers (no norm at the end: they are post-norm)."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.pos_conv = PositionalConvolution(dim, config.conv_pos, config.conv_pos_groups)
        self.layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        # Official files hold one copy of this table per layer; there is one table.
        self.relative_attention_bias = RelativePositionBias(
            config.num_buckets, config.max_distance, config.encoder_attention_heads
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.gradient_checkpointing = False

    def forward(self, x: Tensor, padding_mask: Tensor | None, layers: int | None = None) -> Tensor:
        """(batch, tokens, dim), mask (batch, tokens) bool or None → (batch, tokens, dim) after so many layers."""
        if padding_mask is not None:
            x = x.masked_fill(padding_mask.unsqueeze(-1), 0.0)
        x = self.dropout(self.layer_norm(x + self.pos_conv(x)))
        return self.through(self.layers[:layers], x, padding_mask)

    def through(self, layers: nn.ModuleList, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Some layers: (batch, tokens, dim) → the same."""
        key_mask = None
        if padding_mask is not None:
            key_mask = x.new_zeros(padding_mask.shape).masked_fill(padding_mask, -math.inf)[:, None, None, :]
        bias = self.relative_attention_bias(x.shape[1])
        for layer in layers:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(layer, x, bias, key_mask, use_reentrant=False)
            else:
                x = layer(x, bias, key_mask)
        return x


class BeatsBackbone(Divisible):
    """BEATs from features to logits: predictor on every token, then the mean over the tokens that are no padding.

    That is the official fine-tuned model's form, up to its final sigmoid.

    Args:
        config: The network's numbers.
        num_classes: Classes of the head.
    """

    beside_tokens: ClassVar[Mapping[str, PerToken]] = {"bias": PerToken(0.0, pairs=True), "key_mask": PerToken(0.0)}

    def __init__(self, config: BeatsConfig, num_classes: int) -> None:
        super().__init__()
        patch = config.input_patch_size
        self.config = config
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=False)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, config.encoder_embed_dim)
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Encoder(config)
        self.predictor_dropout = nn.Dropout(config.predictor_dropout)
        self.predictor = nn.Linear(config.encoder_embed_dim, num_classes)
        self._initialise()

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each encoder layer in the backward pass instead of keeping its activations."""
        self.encoder.gradient_checkpointing = True

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`."""
        return TokenGrid(BINS // self.config.input_patch_size, time_major=True)

    def tokens(
        self, features: Tensor, padding_mask: Tensor | None = None, layers: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Encode.

        Args:
            features: (batch, frames, bins) with at least ``input_patch_size`` frames; frames after the last full
                patch are dropped.
            padding_mask: (batch, frames) bool, True on padding, or None. It is cut evenly into one chunk per token,
                so a time patch at the border may be masked in its higher-frequency tokens alone, as officially.
            layers: Stop after so many transformer layers; None: after all.

        Returns:
            Tokens (batch, time x frequency patches, dim), time-major, and their mask (batch, tokens) or None.
        """
        patches = self.patch_embedding(features.unsqueeze(1)).flatten(2).transpose(1, 2)
        x = self.dropout_input(self.post_extract_proj(self.layer_norm(patches)))
        token_mask = None if padding_mask is None else self.token_mask(padding_mask, x.shape[1])
        return self.encoder(x, token_mask, layers), token_mask

    def token_mask(self, padding_mask: Tensor, tokens: int) -> Tensor:
        """Mask of the frames (batch, frames) → of so many tokens (batch, tokens), True on padding."""
        return split_mask(padding_mask, tokens)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits (batch, classes); arguments as :meth:`tokens`."""
        return self._classify(*self.tokens(features, padding_mask))

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        return self.tokens(features, padding_mask, None if place is None else place_number(place))

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        tokens, token_mask = state
        assert tokens is not None
        if place is not None:
            tokens = self.encoder.through(self.encoder.layers[place_number(place) :], tokens, token_mask)
        return self._classify(tokens, token_mask)

    def _classify(self, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        return mean_over_tokens(self.predictor(self.predictor_dropout(tokens)), token_mask)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Random start: Xavier inside the encoder layers, BERT's normal(0, 0.02) elsewhere.

        DeepNorm would start values, outputs and feed-forward blocks smaller still, for the sake of training hundreds
        of layers; in a trunk that PEFT leaves frozen they would hardly change their input.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for layer in self.encoder.layers:
            assert isinstance(layer, EncoderLayer)
            attention = layer.self_attn
            projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
            for linear in (*projections, layer.fc1, layer.fc2):
                nn.init.xavier_normal_(linear.weight)
        conv = self.encoder.pos_conv.conv
        # Variance 4 / (kernel x width): wav2vec 2.0's start of this convolution (Baevski et al. 2020).
        conv.weight = torch.randn_like(conv.weight) * math.sqrt(4 / (self.config.conv_pos * conv.in_channels))
        nn.init.zeros_(conv.bias)


def mean_over_tokens(values: Tensor, token_mask: Tensor | None) -> Tensor:
    """Mean over tokens (batch, tokens, any) → (batch, any), without the masked ones."""
    if token_mask is None:
        return values.mean(1)
    kept = ~token_mask
    return values.masked_fill(token_mask.unsqueeze(-1), 0.0).sum(1) / kept.sum(1, keepdim=True)
