"""Channels of EfficientAT's network at each width. Imports no torch: a sweep's front end tells files apart by them."""

from __future__ import annotations

LAST_CHANNELS = 160
"""Of the last block at width 1; the last convolution makes six times as many."""


def round_channels(value: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor``, at least ``divisor`` and never below 90 percent of ``value``."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def embedding_size(width: float) -> int:
    """Length of the clip embedding at a width."""
    return 6 * round_channels(LAST_CHANNELS * width)
