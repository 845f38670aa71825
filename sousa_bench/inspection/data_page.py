"""What was found as one page that needs no network and runs no script, with sounds to listen to."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.report.blocks import Block
from sousa_bench.analysis.report.html_page import asset, sections
from sousa_bench.data import SousaData
from sousa_bench.errors import UserError
from sousa_bench.inspection.excerpts import EACH, RATE, SECONDS, Excerpt, excerpts
from sousa_bench.system.files import replaced
from sousa_bench.task import Task

MARKED = 12
"""Clips on the page that something is noted of."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
img-src data:; media-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}
.copy {{ display: none; }}
.sounds {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }}
.sounds img {{ width: 100%; height: 7rem; display: block; }}
.sounds audio {{ width: 100%; margin: .4rem 0; }}
.sounds h3 {{ padding: 0; max-width: none; }}
.sounds figcaption {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<header><div><h1>{title}</h1></div></header>
<main>{found}<section id="listen"><h2>Listen</h2><p>{said}</p><div class="sounds">{sounds}</div></section></main>
</body>
</html>
"""


def write_page(path: Path, data: SousaData, clips: pd.DataFrame, blocks: Sequence[Block]) -> None:
    """Write the page; it appears whole or not at all.

    Args:
        path: The HTML file.
        data: The data.
        clips: Those that a training would use.
        blocks: What was found.

    Raises:
        UserError: It can't be written.
    """
    data.source.fetch(clips)
    marks = _marks(clips)
    first = np.flatnonzero(marks != "")[:MARKED]
    made = excerpts(data.source, clips, first)
    made.sort(key=lambda each: (not marks[each.position], clips["class"].iloc[each.position], each.position))
    places = [each.position for each in made]
    shown = clips.iloc[places]
    said = (
        f"The first {SECONDS:g} seconds at {RATE // 1000} kHz: up to {MARKED} clips that were noted above, then up to "
        f"{EACH} of each class ({shown['label'].explode().nunique():,} of {len(data.task.classes):,} classes). The "
        f"spectrograms reach from 0 to {RATE // 2000} kHz."
    )
    rows = zip(made, shown.to_dict("records"), data.source.names(shown), marks[places], strict=True)
    figures = [_figure(excerpt, row, name, mark, data.task) for excerpt, row, name, mark in rows]
    page = PAGE.format(
        title=html.escape(f"Data: {data.source.place}"),
        style=asset("page.css"),
        found=sections(blocks),
        said=said,
        sounds="".join(figures),
    )
    try:
        with replaced(path) as draft:
            draft.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--page {path} can't be written ({error.strerror or error}): choose another file.") from error


def _marks(clips: pd.DataFrame) -> np.ndarray:
    """(clips,) what was noted of the sound of a clip that can be used; "" where nothing was."""
    if "kind" not in clips:
        return np.full(len(clips), "", dtype=object)
    good = (clips["kind"] == "").to_numpy()
    clipped = good & clips["clipped"].to_numpy(bool)
    again = good & clips.duplicated("digest", keep=False).to_numpy()
    return np.select([clipped & again, clipped, again], ["clipped, more than once", "clipped", "more than once"], "")


def _figure(excerpt: Excerpt, row: dict[Any, Any], name: str, mark: str, task: Task) -> str:
    whose = [f"{task.group} {row['group']}"] if task.grouped else []
    caption = html.escape(" · ".join([row["split"], *whose, name]))
    labels = row["label"] if task.several else (row["label"],)
    title = html.escape(", ".join(task.display(task.classes[label]) for label in labels) or "no label")
    return (
        f'<figure><h3>{title}</h3><img src="{excerpt.picture}" alt="spectrogram">'
        f'<audio controls preload="none" src="{excerpt.sound}" aria-label="{title}"></audio>'
        f"<figcaption>{f'<b>{mark}</b> · ' if mark else ''}{caption}</figcaption></figure>"
    )
