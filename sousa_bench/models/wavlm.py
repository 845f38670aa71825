"""WavLM (Chen et al. 2021, arXiv:2110.13900): HuBERT's network with gated relative positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import WavLMConfig, WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from sousa_bench.models.base import PerToken
from sousa_bench.models.hubert import Hubert, HubertBackbone, Shape
from sousa_bench.models.published import PUBLISHED


class ReachableAttention(WavLMAttention):
    """transformers' attention by way of its linear layers, whose weights it reads past whatever PEFT put there."""

    def torch_multi_head_self_attention(
        self, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
    ) -> tuple[Tensor, Any]:
        """As the method that it stands for; the mask (batch, tokens) is True on keys that count."""
        query, key, value = (
            project(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = gated_position_bias.unflatten(0, (-1, self.num_heads))
        if attention_mask is not None:
            bias = bias.masked_fill(~attention_mask[:, None, None, :], torch.finfo(bias.dtype).min)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2)), None


class WavLMBackbone(HubertBackbone):
    """HuBERT's with WavLM's blocks; the table of relative positions is the first block's."""

    beside_tokens: ClassVar[Mapping[str, PerToken]] = {
        **HubertBackbone.beside_tokens,
        "position_bias": PerToken(0.0, pairs=True),
    }

    def context(self, x: Tensor, token_mask: Tensor | None) -> Mapping[str, Any]:
        """The mask of keys, True on those that count, and the position bias (batch * heads, tokens, tokens)."""
        first: Any = self.layers[0]
        bias = first.attention.compute_bias(x.shape[1], x.shape[1])
        return {
            "attention_mask": None if token_mask is None else ~token_mask,
            "position_bias": bias.expand(x.shape[0], -1, -1, -1).flatten(0, 1),
        }


class WavLM(Hubert):
    """WavLM in all published sizes; ``conf/model/wavlm.yaml``."""

    source = PUBLISHED["wavlm"].source
    config_class = WavLMConfig
    network = (*Hubert.network, "num_buckets", "max_bucket_distance", "add_adapter")

    def backbone(self, numbers: Shape, num_classes: int) -> WavLMBackbone:
        """See :class:`Family`."""
        trunk = WavLMModel(self.config(numbers))
        for layer in trunk.encoder.layers:
            layer.attention.__class__ = ReachableAttention
        return WavLMBackbone(trunk, numbers, num_classes)


build = WavLM().build
