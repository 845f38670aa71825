"""Text on a terminal: tables, amounts, durations, and what is redrawn."""

from __future__ import annotations

import sys
from collections.abc import Sequence

WIDTH = 100
"""Columns that a printed table takes at most."""
MOST_ROWS = 40
"""Of the table at the end of a sweep or a search."""
SHORTEST = 12  # that a cell is cut to


def in_columns(rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Rows of cells, one a line, in columns; where they don't fit, the longest cells lose their middle."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    longest = max(range(len(widths)), key=widths.__getitem__)
    excess = sum(widths) + 2 * (len(widths) - 1) - width
    widths[longest] = max(widths[longest] - max(excess, 0), min(widths[longest], SHORTEST))
    return "\n".join(
        "  ".join(shortened(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def shortened(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than ``width``."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def redraw(text: str) -> None:
    """Print a text that replaces the one before: on a terminal the screen shows it alone, elsewhere it follows."""
    print(f"\x1b[H\x1b[J{text}" if sys.stdout.isatty() else text, flush=True)


def amount(count: int, noun: str) -> str:
    """``1 run``, ``24 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def scaled(number: float) -> str:
    """``86.2 M``, ``515 k``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``2:03``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
