"""Blocks as Markdown: ``summary_report.md``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sousa_bench.analysis.report.blocks import (
    Block,
    Command,
    Details,
    Facts,
    Figure,
    Heading,
    Items,
    Line,
    Numbers,
    RunTable,
    Table,
    Text,
    Verdict,
    with_content,
)


def markdown(title: str, blocks: Iterable[Block]) -> str:
    """A whole report."""
    shown = with_content(block for block in blocks if not isinstance(block, Figure | RunTable))
    return "\n\n".join([f"# {escape(title)}", *map(_block, shown)]) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Verdict(line):
            return _line(line)
        case Facts(values):
            return "\n".join(f"- **{escape(name)}**: {escape(value)}" for name, value in values.items())
        case Text(lines):
            return "\n\n".join(map(_line, lines))
        case Items(lines, notes=True):
            return "\n>\n".join(f"> {_line(line)}" for line in lines)
        case Items(lines, numbered):
            marks = (f"{number}." if numbered else "-" for number in range(1, len(lines) + 1))
            return "\n".join(f"{mark} {_line(line)}" for mark, line in zip(marks, lines, strict=True))
        case Numbers(values):
            return "\n".join(f"- **{escape(name.capitalize())}**: {value}" for name, value in values.items())
        case Table():
            return table(block)
        case Command(lines):
            return _code("\n".join(lines))
        case Details(title, blocks):
            return "\n\n".join([f"### {escape(title)}", *map(_block, blocks)])
    raise TypeError(f"a section of the report gave {type(block).__name__}, which is no block")


def table(block: Table) -> str:
    """A table; empty without a row."""
    if not block.rows:
        return ""
    cells = block.aligned(escape)
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([rows[0], f"|{'|'.join('-' * (len(cell) + 2) for cell in cells[0])}|", *rows[1:]])


def _line(line: Line) -> str:
    return (
        escape(line)
        if isinstance(line, str)
        else f"**{escape(line[0])}**{' ' * line[1].startswith(' ')}{escape(line[1])}"
    )


def _code(text: str) -> str:
    """A text in a fenced block that it can't close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}bash\n{text}\n{fence}"


def escape(value: Any) -> str:
    """A text that Markdown shows as it stands: no HTML, no link, no emphasis, no new cell, one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for char in "\\`*[]|":
        text = text.replace(char, f"\\{char}")
    return text
