"""How many digits a number gets: as many as what is known of it warrants.

Percentages of a table share their decimals: the last one is worth at most a tenth of the usual interval's width, so an
interval 13 points wide has none (57 to 64 %), one 6 points wide has one (87.4 to 93.4 %). Where there is no interval
there is one decimal. Anything else gets three digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sousa_bench.analysis.columns import ABSENT, is_absent

MOST_DECIMALS = 2
MORE_DECIMALS = 3  # of an end that would be rounded to zero
WITHOUT_INTERVAL = 1
SIZES = ((1e9, " G"), (1e6, " M"), (1e3, " k"))


def decimals(widths: Iterable[float]) -> int:
    """Decimals of percentages whose intervals are so wide, as shares; the median of them counts."""
    known = sorted(100 * width for width in widths if width > 0)
    if not known:
        return WITHOUT_INTERVAL
    return min(max(math.ceil(1 - math.log10(known[len(known) // 2])), 0), MOST_DECIMALS)


def percent(share: float, digits: int) -> str:
    """``91.5 %``."""
    return ABSENT if is_absent(share) else f"{100 * share:.{digits}f} %"


def percent_interval(low: float, high: float, digits: int) -> str:
    """``87.4–93.4``, in percent."""
    return ABSENT if is_absent(low) else f"{100 * low:.{digits}f}–{100 * high:.{digits}f}"


def points_behind(behind: float, low: float, high: float, digits: int) -> str:
    """A difference of shares in points with its interval: ``1.5 (-3.9 to 6.9)``; no end that isn't zero reads 0.0."""
    ends = "" if is_absent(low) else f" ({_end(low, digits)} to {_end(high, digits)})"
    return f"{_signless(behind, digits)}{ends}"


def _end(share: float, digits: int) -> str:
    """An end of an interval, whose sign is the verdict: with more decimals where it would be rounded to zero."""
    more = range(digits, digits + MORE_DECIMALS)
    return next((f"{100 * share:.{n}f}" for n in more if round(100 * share, n)), _signless(share, digits))


def _signless(share: float, digits: int) -> str:
    """Points without a minus before a zero."""
    text = f"{100 * share:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def three_digits(value: float) -> str:
    """A number to three digits, large ones with their size: ``0.412``, ``37.6``, ``461 k``, ``86.2 M``."""
    if is_absent(value):
        return ABSENT
    rounded = float(f"{value:.3g}")
    size, unit = next(((size, unit) for size, unit in SIZES if abs(rounded) >= size), (1.0, ""))
    part = rounded / size
    places = 0 if part.is_integer() else max(2 - math.floor(math.log10(abs(part))), 0)
    return f"{part:.{min(places, 6)}f}{unit}"
