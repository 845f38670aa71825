"""Visual prompt tuning (VPT, Jia et al. 2022, arXiv:2203.12119): learnt tokens among those of a clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.errors import PeftError
from sousa_bench.models.base import PerToken
from sousa_bench.peft.added_options import PromptConfig


class PromptTokens(nn.Module):
    """Goes around a block, whose other tokens attend to the learnt ones behind them.

    They start uniform within ±√(3 / channels), which for patches as wide as a token is the authors' start.

    Args:
        options: Of the method.
        channels: Of the tokens that are put in here; 0: those of the block before go on.
        beside_tokens: What the block takes beside its tokens.
        leaves: Whether they are cut off behind it; else they go on.
    """

    def __init__(
        self, options: PromptConfig, channels: int, beside_tokens: Mapping[str, PerToken], leaves: bool
    ) -> None:
        super().__init__()
        self.length, self.beside_tokens, self.leaves = options.length, beside_tokens, leaves
        self.tokens: nn.Parameter | None = None
        if channels:
            bound = math.sqrt(3 / channels)
            self.tokens = nn.Parameter(torch.empty(options.length, channels).uniform_(-bound, bound))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, base: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Tokens (batch, tokens, channels) → what the block gives; see :class:`sousa_bench.peft.added_tuner.Added`."""
        if self.tokens is not None:
            own = self.dropout(self.tokens.to(x.dtype).expand(x.shape[0], -1, -1))
            x = torch.cat((x, own), dim=1)
        named = zip(chain(self.beside_tokens, repeat("")), args, strict=False)
        args = tuple(self._longer(argument, value) for argument, value in named)
        kwargs = {argument: self._longer(argument, value) for argument, value in kwargs.items()}
        made = base(x, *args, **kwargs)
        if not self.leaves:
            return made
        return (self._shorter(made[0]), *made[1:]) if isinstance(made, tuple) else self._shorter(made)

    def _shorter(self, x: Tensor) -> Tensor:
        return x[:, : x.shape[1] - self.length]

    def _longer(self, argument: str, value: Any) -> Any:
        """What the block takes beside the tokens, for as many more as there are."""
        if not isinstance(value, Tensor):
            return value
        if argument not in self.beside_tokens:
            raise PeftError(
                f"a block takes a tensor{argument and f' {argument}'} that its backbone's beside_tokens doesn't name; "
                "see sousa_bench.models.base.PerToken"
            )
        kind = self.beside_tokens[argument]
        return F.pad(value, (0, self.length) * (2 if kind.pairs else 1), value=kind.neutral)
