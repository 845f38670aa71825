"""Prefix-tuning (Li and Liang 2021, arXiv:2101.00190): learnt keys and values in each attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sousa_bench.errors import PeftError
from sousa_bench.peft.added_options import PrefixConfig


class AttentionPrefix(nn.Module):
    """Goes around a sublayer whose queries attend to the learnt keys, too, whatever is masked and wherever they stand.

    They are found by what all attention here ends in, PyTorch's ``scaled_dot_product_attention``, so that networks of
    other packages need no place for them. They start small, by normal(0, 0.02).

    Args:
        options: Of the method.
        channels: Of all heads together.
    """

    def __init__(self, options: PrefixConfig, channels: int) -> None:
        super().__init__()
        self.keys, self.values = (
            nn.Parameter(torch.empty(options.length, channels).normal_(std=0.02)) for _ in range(2)
        )
        self.dropout = nn.Dropout(options.dropout)

    @torch.compiler.disable  # behind a break in the graph the mode below would be gone, and with it the prefix
    def forward(self, base: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See :class:`sousa_bench.peft.added_tuner.Added`.

        Raises:
            PeftError: There is no such attention inside, or one that looks at what came before alone.
        """
        with _Prefixed(self.dropout(self.keys), self.dropout(self.values)) as inside:
            made = base(*args, **kwargs)
        if not inside.reached:
            raise PeftError(
                "a prefix finds no attention: the sublayer doesn't call torch.nn.functional."
                "scaled_dot_product_attention; use prompt"
            )
        return made


class _Prefixed(TorchFunctionMode):
    """Within it attention has further keys (length, channels) and values before its own."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.reached = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = self._attend if func is F.scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **others: Any,
    ) -> Tensor:
        if is_causal:
            raise PeftError("a prefix has no place in attention that looks at what came before alone; use prompt")
        self.reached = True
        key, value = _behind(self.keys, key), _behind(self.values, value)
        if attn_mask is not None:  # true, or nothing to add: they are never padding and stand nowhere
            attn_mask = F.pad(attn_mask, (len(self.keys), 0), value=attn_mask.dtype == torch.bool)
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, **others)


def _behind(prefix: Tensor, own: Tensor) -> Tensor:
    """What (batch, heads, tokens, width) has, behind a prefix (length, channels).

    Where each of several windows has heads of its own, they stand one window after the other.
    """
    batch, heads, _, width = own.shape
    split = prefix.to(own.dtype).unflatten(1, (-1, width)).transpose(0, 1)
    return torch.cat((split.repeat(heads // len(split), 1, 1).expand(batch, -1, -1, -1), own), dim=2)
