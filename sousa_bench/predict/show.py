"""Answers for people: a line a file, and the timeline of a long recording below it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sousa_bench.inference.answer import WORDS, Answer
from sousa_bench.rudiments import DISPLAY

NAME_WIDTH = 44
RUDIMENT_WIDTH = max(map(len, DISPLAY.values()))
MARGIN = "  "


@dataclass(frozen=True)
class Names:
    """How files are called in the table.

    Attributes:
        folder: What all of them lie in, and no line repeats; None for a single file.
        width: Of the column.
    """

    folder: Path | None
    width: int

    @classmethod
    def of(cls, files: Sequence[Path]) -> Names:
        """Short names for some files."""
        folder = Path(os.path.commonpath([file.absolute().parent for file in files])) if len(files) > 1 else None
        width = max(len(cls(folder, 0).name(file)) for file in files)
        return cls(folder, min(width, NAME_WIDTH))

    def name(self, file: Path | str) -> str:
        """A file's name in its line."""
        return str(file if self.folder is None else Path(file).absolute().relative_to(self.folder))


def heading(names: Names, top: int) -> str:
    """The table's first line, and where the files lie."""
    others = f"{MARGIN}then" if top > 1 else ""
    place = "" if names.folder is None else f"Files: {names.folder}\n"
    return f"{place}\n{'file':{names.width}}{MARGIN}{'rudiment':{RUDIMENT_WIDTH}}{MARGIN}probability{others}"


def lines(answer: Answer, names: Names, top: int) -> list[str]:
    """An answer's lines; of a file that failed there is none here."""
    name, width = names.name(answer.file), names.width
    made = [] if len(name) <= width else [name]
    name = name if len(name) <= width else ""
    best = answer.best(top)
    if not best:
        made.append(f"{name:{width}}{MARGIN}{WORDS[answer.status]} ({answer.reason})")
    else:
        others = ", ".join(f"{item['name']} {share(item['probability'])}" for item in best[1:])
        first = f"{best[0]['name']:{RUDIMENT_WIDTH}}{MARGIN}{share(best[0]['probability']):>11}"
        made.append(f"{name:{width}}{MARGIN}{first}{MARGIN}{others}".rstrip())
    made += [_stretch_line(item) for item in answer.record(top)["timeline"]]
    return made + [f"{MARGIN}({note})" for note in answer.notes]


def _stretch_line(stretch: dict[str, object]) -> str:
    place = f"{clock(float(str(stretch['start'])))} – {clock(float(str(stretch['end'])))}"
    if stretch["probability"] is None:
        return f"{MARGIN}{place:>21}{MARGIN}{WORDS['no_drum']}"
    return f"{MARGIN}{place:>21}{MARGIN}{stretch['name']} {share(float(str(stretch['probability'])))}"


def share(probability: float) -> str:
    """A probability in per cent: ``91 %``, ``4.3 %``, ``< 0.1 %``."""
    if probability < 0.001:
        return "< 0.1 %"
    return f"{probability:.0%}".replace("%", " %") if probability >= 0.095 else f"{100 * probability:.1f} %"


def clock(seconds: float) -> str:
    """A place in a recording: ``0:07.5``, ``12:00.0``, ``1:00:00.0``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{rest / 10:04.1f}"
    return text if not hours else f"{hours}:{minutes:02}:{rest / 10:04.1f}"
