"""What a report is made of: blocks that say something, whatever it is written as.

A section of the report is a function from a study and the report's options to blocks, a ``Heading`` first. All text in
them is plain: whoever renders it escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sousa_bench.analysis.columns import Column
from sousa_bench.analysis.report.clip_sounds import ClipSounds
from sousa_bench.analysis.study import Study

MAX_LISTED = 100

Line: TypeAlias = str | tuple[str, str]
"""A text, or one in bold and what follows it."""


@dataclass(frozen=True)
class Options:
    """What a report is asked for.

    Attributes:
        top: Length of the best lists.
        min_accuracy: Least test accuracy of the most parameter-efficient.
        plots: Whether figures are drawn.
        sounds: Of clips that all mishear.
    """

    top: int = 5
    min_accuracy: float = 0.5
    plots: bool = True
    sounds: ClipSounds = field(default_factory=ClipSounds)


@dataclass(frozen=True)
class Heading:
    """The title of a section, or of a part of one; without a block after it, it is left out.

    Attributes:
        text: The title.
        level: 2 for a section, 3 for a part.
        short: Its name in the page's navigation; empty: it has no place there.
    """

    text: str
    level: int = 2
    short: str = ""


@dataclass(frozen=True)
class Text:
    """Paragraphs; ``answer`` where they are what the report was made for."""

    lines: Sequence[Line]
    answer: bool = False


@dataclass(frozen=True)
class Verdict:
    """The line that a reader of five seconds reads, first on the page: who leads, how sure, what would do as well.

    Where it has a name, the page's figure whose ``meta`` says this name rewrites it for what the filters leave.
    """

    line: Line
    name: str = ""


@dataclass(frozen=True)
class Facts:
    """What all runs share, by name."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Items:
    """A list, ``numbered`` or not; ``notes`` are marked as what must be minded."""

    lines: Sequence[Line]
    numbered: bool = False
    notes: bool = False


@dataclass(frozen=True)
class Numbers:
    """Counts by name."""

    values: Mapping[str, int]


@dataclass(frozen=True)
class Table:
    """A row for each of ``rows``, with the cells that ``columns`` make of it.

    ``sounds``, where there are any, are a data address a row, or "" for a row without; on the page alone.
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[Any, Any]]
    sounds: Sequence[str] = ()

    def aligned(self, clean: Callable[[str], str]) -> list[list[str]]:
        """The headings and all cells as texts, each as wide as its column's widest."""
        cells = [[clean(column.label) for column in self.columns]]
        cells += [[clean(column.cell(row)) for column in self.columns] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        sides = ["<" if column.text else ">" for column in self.columns]
        return [[f"{cell:{s}{w}}" for cell, s, w in zip(row, sides, widths, strict=True)] for row in cells]


@dataclass(frozen=True)
class Command:
    """Lines for a shell."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Details:
    """What few want to read: the page shows its title until it is opened."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Figure:
    """A figure of plotly's, or None where there is nothing to draw, with its caption; on the page alone.

    ``name`` is unique, of letters, digits and underscores.
    """

    name: str
    figure: Any
    caption: str


@dataclass(frozen=True)
class RunTable:
    """The table of all runs, on the page alone, where it can be filtered and sorted."""

    study: Study


Block: TypeAlias = Heading | Verdict | Text | Facts | Items | Numbers | Table | Command | Details | Figure | RunTable
Section: TypeAlias = Callable[[Study, Options], list[Block]]


def with_content(blocks: Iterable[Block]) -> list[Block]:
    """All blocks, but the headings that nothing follows."""
    kept: list[Block] = []
    pending: list[Heading] = []
    for block in blocks:
        if isinstance(block, Heading):
            pending = [*(head for head in pending if head.level < block.level), block]
        else:
            kept += [*pending, block]
            pending = []
    return kept


def listed(lines: Sequence[Line], where: str = "") -> Items:
    """A list of at most ``MAX_LISTED`` lines, which says how many more there are, and where."""
    more = len(lines) - MAX_LISTED
    return Items([*lines[:MAX_LISTED], f"… and {more} more{where}"] if more > 0 else lines)
