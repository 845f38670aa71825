"""What WavLM, HuBERT and Whisper share: blocks of transformers' classes under a head on a learnt sum over all layers.

Which layer of a speech model knows most differs from question to question, so probes of SUPERB (Yang et al. 2021,
arXiv:2105.01051) weigh all of them: the input of each block, and what comes out of the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from sousa_bench.models.base import Divisible, PerToken, State, TokenGrid, place_number
from sousa_bench.models.family import initialise_encoder, initialise_head
from sousa_bench.models.vit import Size


class LayerSum(nn.Module):
    """Weighted sum over layers (their softmax adds up to one), LayerNorm, linear layer.

    Args:
        size: Numbers of the variant.
        num_classes: Outputs.
    """

    def __init__(self, size: Size, num_classes: int) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(size.layers + 1))
        self.layernorm = nn.LayerNorm(size.dim)
        self.dense = nn.Linear(size.dim, num_classes)

    def forward(self, means: Tensor) -> Tensor:
        """Each layer's mean over time (batch, 1 + layers, dim) → logits (batch, classes)."""
        return self.dense(self.layernorm(self.layer_weights.softmax(dim=0).to(means.dtype) @ means))


class SpeechBackbone(Divisible):
    """An encoder of transformers, gone through block by block, and the head.

    The mean over time comes before the sum over layers, which gives the same and keeps one vector a layer. A model
    gives :attr:`layers`, :meth:`last_norm`, :meth:`embed` and, where its blocks take more than tokens, :meth:`context`.

    Args:
        trunk: The whole of transformers' encoder.
        size: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    beside_tokens: ClassVar[Mapping[str, PerToken]] = {}

    def __init__(self, trunk: nn.Module, size: Size, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = LayerSum(size, num_classes)
        self.checkpointing = False
        initialise_encoder(self.trunk)
        initialise_head(self.classifier)

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the trunk."""
        raise NotImplementedError

    def last_norm(self, x: Tensor) -> Tensor:
        """What follows the last block."""
        raise NotImplementedError

    def embed(self, features: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (batch, tokens, dim) before the first block, and which are padding (batch, tokens); None: none is."""
        raise NotImplementedError

    def context(self, x: Tensor, token_mask: Tensor | None) -> Mapping[str, Any]:
        """What every block takes beside the tokens."""
        return {}

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`: a token is all of its frame."""
        return TokenGrid(1)

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        self.checkpointing = True

    def run(self, layer: nn.Module, x: Tensor, **context: Any) -> Tensor:
        """One layer; its first output, where it has several."""
        if self.checkpointing and torch.is_grad_enabled():
            out = recompute(layer, x, use_reentrant=False, **context)
        else:
            out = layer(x, **context)
        return out[0] if isinstance(out, tuple) else out

    def hidden_states(self, features: Tensor, padding_mask: Tensor | None = None) -> list[Tensor]:
        """The input of each block and the output of all (batch, tokens, dim): what the head sums over."""
        x, token_mask = self.embed(features, padding_mask)
        states, x = self._through(self.layers, x, token_mask)
        return [*states, self.last_norm(x)]

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (batch, frames, bins) → logits (batch, classes)."""
        return self.onward(None, self.until(None, features, padding_mask))

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`Divisible`: the means of the layers below, and what goes on, or the head's input alone."""
        x, token_mask = self.embed(features, padding_mask)
        states, x = self._through(self.layers[: None if place is None else place_number(place)], x, token_mask)
        means = _means(states, x, token_mask)
        return (self._all_means(means, x, token_mask),) if place is None else (means, x, token_mask)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`Divisible`."""
        means, *rest = state
        assert means is not None
        if place is not None:
            below, token_mask = rest
            assert below is not None
            states, x = self._through(self.layers[place_number(place) :], below, token_mask)
            means = torch.cat((means, _means(states, x, token_mask)), dim=1)
            means = self._all_means(means, x, token_mask)
        return self.classifier(means)

    def _all_means(self, means: Tensor, x: Tensor, token_mask: Tensor | None) -> Tensor:
        return torch.cat((means, _means([self.last_norm(x)], x, token_mask)), dim=1)

    def _through(
        self, layers: Iterable[nn.Module], x: Tensor, token_mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Each layer's input, and what comes out of the last."""
        context, inputs, own = self.context(x, token_mask), [], x.shape[1]
        for layer in layers:
            inputs.append(x[:, :own])  # behind which a method may have put more
            x = self.run(layer, x, **context)
        return inputs, x


def _means(states: Sequence[Tensor], like: Tensor, token_mask: Tensor | None) -> Tensor:
    """Means over the tokens that are no padding, in float32 at least: (batch, states, dim)."""
    wide = torch.promote_types(like.dtype, torch.float32)  # a sum over many tokens is too much for half precision
    if not states:
        return like.new_zeros(like.shape[0], 0, like.shape[2], dtype=wide)
    if token_mask is None:
        return torch.stack([x.to(wide).mean(dim=1) for x in states], dim=1)
    count = (~token_mask).sum(dim=1)[:, None, None]
    return torch.stack([x.to(wide).masked_fill(token_mask[..., None], 0.0).sum(dim=1) for x in states], dim=1) / count
