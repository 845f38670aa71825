"""HuBERT (Hsu et al. 2021, arXiv:2106.07447): transformers' ``HubertModel``, and what it shares with WavLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from sousa_bench.models.base import PerToken
from sousa_bench.models.grouped_convolution import convolved_in_groups
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.speech import SpeechBackbone
from sousa_bench.models.speech_family import SpeechFamily
from sousa_bench.models.vit import Size
from sousa_bench.models.waveform_frontend import SHORTEST, ClipNorm, WaveformFrontend


@dataclass(frozen=True)
class Shape(Size):
    """The numbers of a variant (``conf/model/hubert.yaml``, ``wavlm.yaml``).

    Attributes:
        channels: Of each of the seven convolutions that turn the waveform into tokens.
        large: Whether it is built as the large models are: a LayerNorm after each convolution, in place of a GroupNorm
            after the first, and the blocks' norms before their sums rather than after them.
        conv_bias: Whether the convolutions have biases.
        normalize: Whether each clip is brought to a mean of 0 and a variance of 1 first.
        dropout: Of attention and hidden states.
        checkpoint: Address of the variant's official file, or None.
    """

    channels: int
    large: bool
    conv_bias: bool
    normalize: bool
    dropout: float
    checkpoint: str | None = None


class HubertBackbone(SpeechBackbone):
    """HuBERT's network, in which no sample, frame or token of padding has a say.

    Officially a base model takes padding as silence: its GroupNorm, over all frames of a channel, then depends on how
    long a clip's neighbours are. Here it is over the clip's own frames, so that a clip gives what it gives alone.
    """

    beside_tokens: ClassVar[Mapping[str, PerToken]] = {"attention_mask": PerToken(True)}
    trunk: HubertModel

    def __init__(self, trunk: Any, size: Shape, num_classes: int) -> None:
        super().__init__(trunk, size, num_classes)
        if not size.large:
            trunk.feature_extractor.conv_layers[0].layer_norm = ClipNorm(size.channels, size.channels)

    @property
    def layers(self) -> nn.ModuleList:
        """See :class:`SpeechBackbone`."""
        return self.trunk.encoder.layers

    def last_norm(self, x: Tensor) -> Tensor:
        """Of the large models, whose blocks have their norms before the sums."""
        return self.trunk.encoder.layer_norm(x) if self.trunk.config.do_stable_layer_norm else x

    def embed(self, features: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See :class:`SpeechBackbone`; a token is a clip's own when all of its samples are."""
        trunk, encoder = self.trunk, self.trunk.encoder
        lengths = None if padding_mask is None else (~padding_mask).sum(dim=1).clamp(min=SHORTEST)
        first, *others = trunk.feature_extractor.conv_layers
        x = features.transpose(1, 2)
        if lengths is None or trunk.config.do_stable_layer_norm:
            x = self.run(first, x)
        else:
            frames = (lengths - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
            x = first.conv(x)
            own = torch.arange(x.shape[2], device=x.device) < frames[:, None]
            x = first.activation(self.run(first.layer_norm, x, own=own[:, None]))
        for layer in others:
            x = self.run(layer, x)
        x = self.run(trunk.feature_projection, x.transpose(1, 2))
        token_mask = None
        if lengths is not None:
            tokens: Any = trunk._get_feat_extract_output_lengths(lengths)  # type: ignore[arg-type]
            token_mask = torch.arange(x.shape[1], device=x.device) >= tokens[:, None]
            x = x.masked_fill(token_mask[:, :, None], 0.0)
        x = x + convolved_in_groups(encoder.pos_conv_embed, x)
        if not trunk.config.do_stable_layer_norm:
            x = encoder.layer_norm(x)
        return encoder.dropout(x), token_mask

    def context(self, x: Tensor, token_mask: Tensor | None) -> Mapping[str, Any]:
        """The mask of keys, True on those that count."""
        return {"attention_mask": None if token_mask is None else ~token_mask[:, None, None, :]}


class Hubert(SpeechFamily):
    """HuBERT in all published sizes; ``conf/model/hubert.yaml``."""

    numbers = Shape
    source = PUBLISHED["hubert"].source
    config_class: ClassVar[type[Any]] = HubertConfig
    names = (
        (r"^(hubert|wavlm)\.", ""),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    )
    unused = r"(.*\.)?masked_spec_embed|(lm_head|projector|classifier)\..*|layer_weights"
    """What stands for hidden tokens in pretraining; heads of transformers' own."""
    network: ClassVar[Sequence[str]] = (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
        *("layer_norm_eps", "do_stable_layer_norm", "feat_extract_norm", "feat_extract_activation", "conv_dim"),
        *("conv_kernel", "conv_stride", "conv_bias", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups"),
    )

    def config(self, numbers: Shape) -> Any:
        """See :class:`SpeechFamily`; without masking in the network, and without leaving out whole layers."""
        return self.config_class(
            hidden_size=numbers.dim,
            num_hidden_layers=numbers.layers,
            num_attention_heads=numbers.heads,
            intermediate_size=4 * numbers.dim,
            conv_dim=[numbers.channels] * 7,
            conv_bias=numbers.conv_bias,
            feat_extract_norm="layer" if numbers.large else "group",
            do_stable_layer_norm=numbers.large,
            **dict.fromkeys(("hidden_dropout", "attention_dropout"), numbers.dropout),
            **dict.fromkeys(("activation_dropout", "feat_proj_dropout", "layerdrop"), 0.0),
            **dict.fromkeys(("mask_time_prob", "mask_feature_prob"), 0.0),
        )

    def preprocessor(self, numbers: Shape) -> Mapping[str, Any]:
        """See :class:`SpeechFamily`."""
        return {"do_normalize": numbers.normalize, "sampling_rate": WaveformFrontend.sample_rate}

    def frontend(self, numbers: Shape) -> WaveformFrontend:
        """See :class:`Family`."""
        return WaveformFrontend(numbers.normalize)

    def backbone(self, numbers: Shape, num_classes: int) -> HubertBackbone:
        """See :class:`Family`."""
        trunk = HubertModel(self.config(numbers))
        trunk.set_attn_implementation("sdpa")
        return HubertBackbone(trunk, numbers, num_classes)


build = Hubert().build
