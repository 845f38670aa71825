"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356): transformers' ``WhisperEncoder``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperEncoderLayer

from sousa_bench.models.base import Sublayer
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.speech import SpeechBackbone
from sousa_bench.models.speech_family import SpeechFamily
from sousa_bench.models.vit import Size
from sousa_bench.models.whisper_frontend import FRAMES_A_TOKEN, HOP, N_FFT, RATE, SILENCE, WhisperFrontend

TOKENS_A_SECOND = RATE // HOP // FRAMES_A_TOKEN
LOUDNESS_RANGE = 8.0
"""Powers of ten below a clip's loudest value at which its log-mels are cut off."""


@dataclass(frozen=True)
class Shape(Size):
    """The numbers of a variant (``conf/model/whisper.yaml``).

    Attributes:
        bins: Mel bins.
        tokens: That there are positions for, 20 ms each: 1500 officially, which are 30 s.
        fill: Whether a shorter clip is filled with silence to all of them, as the model was trained.
        checkpoint: Address of the variant's official file, or None.
    """

    bins: int
    tokens: int
    fill: bool = True
    checkpoint: str | None = None


class Block(WhisperEncoderLayer):
    """transformers' block, whose second sublayer, too, is a place where a method can put a module."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.feedforward = Sublayer("mlp")

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """Tokens (batch, tokens, dim) → the same; all of them count, and there is no dropout, as published."""
        x = hidden_states + self.self_attn(self.self_attn_layer_norm(hidden_states))[0]
        return x + self.feedforward(self.final_layer_norm(x), self._feedforward)

    def _feedforward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_fn(self.fc1(x)))


class WhisperBackbone(SpeechBackbone):
    """Whisper's encoder, which hears the silence after a clip; the mean that the head takes is over the clip alone.

    Args:
        trunk: transformers' encoder.
        shape: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    trunk: WhisperEncoder

    def __init__(self, trunk: WhisperEncoder, shape: Shape, num_classes: int) -> None:
        super().__init__(trunk, shape, num_classes)
        self.fill = shape.fill

    @property
    def layers(self) -> nn.ModuleList:
        """See :class:`SpeechBackbone`."""
        return self.trunk.layers

    def last_norm(self, x: Tensor) -> Tensor:
        """See :class:`SpeechBackbone`."""
        return self.trunk.layer_norm(x)

    def embed(self, features: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See :class:`SpeechBackbone`; a token is padding when both of its frames begin after the clip's end."""
        trunk = self.trunk
        missing = FRAMES_A_TOKEN * trunk.max_source_positions - features.shape[1] if self.fill else 0
        x = F.pad(features, (0, 0, 0, missing), value=SILENCE)
        x = (torch.maximum(x, x.amax(dim=(1, 2), keepdim=True) - LOUDNESS_RANGE) + 4.0) / 4.0
        x = F.gelu(trunk.conv2(F.gelu(trunk.conv1(x.transpose(1, 2))))).transpose(1, 2)
        token = torch.arange(x.shape[1], device=x.device)
        x = x + trunk.embed_positions(token)
        if padding_mask is None:
            return x, None
        return x, token * FRAMES_A_TOKEN >= (~padding_mask).sum(dim=1)[:, None]


class Whisper(SpeechFamily):
    """Whisper's encoder in all published sizes; ``conf/model/whisper.yaml``."""

    numbers = Shape
    source = PUBLISHED["whisper"].source
    names = ((r"^(model\.)?(encoder\.)?", ""),)
    unused = r"(model\.)?decoder\..*|proj_out\.weight|(projector|classifier)\..*|layer_weights"
    network = (
        *("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "activation_function"),
        *("num_mel_bins", "max_source_positions", "scale_embedding"),
    )

    def config(self, numbers: Shape) -> WhisperConfig:
        """See :class:`SpeechFamily`."""
        return WhisperConfig(
            d_model=numbers.dim,
            encoder_layers=numbers.layers,
            encoder_attention_heads=numbers.heads,
            encoder_ffn_dim=4 * numbers.dim,
            num_mel_bins=numbers.bins,
            max_source_positions=numbers.tokens,
        )

    def preprocessor(self, numbers: Shape) -> Mapping[str, Any]:
        """See :class:`SpeechFamily`."""
        seconds = numbers.tokens // TOKENS_A_SECOND
        return {
            "feature_size": numbers.bins,
            "chunk_length": seconds,
            "hop_length": HOP,
            "n_fft": N_FFT,
            "sampling_rate": RATE,
        }

    def frontend(self, numbers: Shape) -> WhisperFrontend:
        """See :class:`Family`."""
        return WhisperFrontend(numbers.bins, numbers.tokens)

    def backbone(self, numbers: Shape, num_classes: int) -> WhisperBackbone:
        """See :class:`Family`."""
        config = self.config(numbers)
        trunk = WhisperEncoder(config)
        trunk.layers = nn.ModuleList(Block(config) for _ in trunk.layers)
        trunk.set_attn_implementation("sdpa")
        return WhisperBackbone(trunk, numbers, num_classes)


build = Whisper().build
