"""``report.html``: one file that holds everything, the plots' library among it, and asks no network for anything.

Whatever comes from a result file reaches the page as escaped text or as JSON that no script tag can end; a content
security policy by hash keeps any other script from running.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

from plotly.io.json import to_json_plotly

from sousa_bench.analysis.columns import lower_is_better
from sousa_bench.analysis.drawn_runs import OF_ALL
from sousa_bench.analysis.plots.details import confusion_traces, f1_traces, variant_runs
from sousa_bench.analysis.plots.style import template
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
from sousa_bench.analysis.report.run_details import run_details
from sousa_bench.analysis.report.run_table import filters, run_columns, run_rows
from sousa_bench.analysis.study import Study

VARIANTS = {"confusion_matrix": confusion_traces, "per_class_f1": f1_traces}
ADDRESS = re.compile(r"""(["'`(])https?://(?!www\.w3\.org/)""")  # in code; licences keep theirs, names of XML do, too
SCRIPTS = (
    "page",
    "run_filters",
    "filtered_verdict",
    "run_rows",
    "run_details",
    "drawing",
    "run_chooser",
    "latex_tables",
)
RETRY = "Runs it again in its sweep, where a finished run is taken as done; force=true repeats that, too."
LONG_WORD = re.compile(r"\S{24}")
CHOOSER = '<p class="chooser"><label for="run">Run: </label><select id="run"></select></p>'


def page(study: Study, blocks: Sequence[Block], title: str = "sousa_bench report", refresh: float = 0) -> str:
    """The whole report as HTML.

    Args:
        study: From ``compare``.
        blocks: From ``report``.
        title: Title of the page.
        refresh: Seconds after which the page loads itself again; 0 for never.
    """
    blocks = with_content(blocks)
    columns = run_columns(study)
    rows = run_rows(study, columns)
    drawn = [block for block in blocks if isinstance(block, Figure) and block.figure is not None]
    data = {
        "metric": study.metric,
        "score": study.task.score,
        "ascending": lower_is_better(study.metric, study.table),
        "columns": [
            {"key": c.key, "title": c.label, "help": c.help, "text": c.text, "up": c.text or not c.better}
            for c in columns
        ],
        "filters": filters(study),
        "runs": rows,
        "details": run_details(study, [row["id"] for row in rows]) | {"about": RETRY},
        "plots": [_plot(study, figure) for figure in drawn],
        "labels": {str(row): study.run_labels[row] for row in sorted({*study.drawn.rows, *variant_runs(study)})},
        "templates": {theme: template(theme) for theme in ("light", "dark")},
    }
    scripts = {"PLOTLY": plotly_library(), "SCRIPT": _script()}
    parts = {
        **scripts,
        "TITLE": html.escape(title),
        "POLICY": _policy(list(scripts.values())),
        "REFRESH": f'<meta http-equiv="refresh" content="{refresh:g}">' if refresh else "",
        "STYLE": asset("page.css"),
        "MADE": f"{datetime.now():%Y-%m-%d %H:%M}",
        "NAVIGATION": "".join(
            f'<a href="#{_anchor(block)}">{html.escape(block.short)}</a>'
            for block in blocks
            if isinstance(block, Heading) and block.short
        ),
        "REPORT": sections(blocks),
        "DATA": script_json(data),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match.group(1)], asset("page.html"))


def sections(blocks: Sequence[Block]) -> str:
    """Blocks as HTML: sections, each begun by a heading; figures that follow one another stand side by side."""
    parts = []
    for of_figures, group in itertools.groupby(blocks, lambda block: isinstance(block, Figure)):
        chunk = list(group)
        text = "".join(map(_block, chunk))
        chooser = CHOOSER if any(isinstance(block, Figure) and block.name in VARIANTS for block in chunk) else ""
        parts.append(f'{chooser}<div class="plots">{text}</div>' if of_figures else text)
    return "".join(parts).removeprefix("</section>") + "</section>"


def fragment(blocks: Sequence[Block]) -> str:
    """Blocks as HTML without sections, such as a notebook shows."""
    return "".join(map(_block, with_content(blocks)))


def _block(block: Block) -> str:
    """A block as HTML; whatever text it holds is escaped."""
    match block:
        case Heading(text, 2):
            return f'</section><section id="{_anchor(block)}"><h2>{html.escape(text)}</h2>'
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Verdict(line, name):
            return f'<p class="verdict"{_id(name)}>{_line(line)}</p>'
        case Facts(values):
            rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(said)}</dd>" for name, said in values.items())
            return f'<dl class="facts">{rows}</dl>'
        case Text(lines, answer):
            text = "".join(f"<p>{_line(line)}</p>" for line in lines)
            return f'<div class="answer">{text}</div>' if answer else text
        case Items(lines, numbered, notes):
            name = "ol" if numbered else "ul"
            items = "".join(f"<li>{_line(line)}</li>" for line in lines)
            return f"<{name}{' class=notes' if notes else ''}>{items}</{name}>"
        case Numbers(values):
            tiles = "".join(f"<li><b>{value}</b> {html.escape(name)}</li>" for name, value in values.items())
            return f'<ul class="tiles">{tiles}</ul>'
        case Table():
            return _table(block)
        case Command(lines):
            code = html.escape("\n".join(lines))
            button = '<button type="button" class="copy">Copy</button>'
            return f'<div class="command"><pre><code>{code}</code></pre>{button}</div>'
        case Details(title, blocks):
            inner = "".join(map(_block, blocks))
            return f"<details><summary>{html.escape(title)}</summary>{inner}</details>"
        case Figure():
            return _figure(block)
        case RunTable(study):
            drawn = study.drawn
            note = (
                f"The table and the figures hold {len(drawn.rows):,} of {drawn.total:,} runs: {drawn.chosen}. {OF_ALL} "
                "comparison_table.csv has all."
            )
            return asset("runs.html") + ("" if drawn.all else f'<p class="note">{note}</p>')
    raise TypeError(f"a section of the report gave {type(block).__name__}, which is no block")


def _line(line: Line) -> str:
    return html.escape(line) if isinstance(line, str) else f"<b>{html.escape(line[0])}</b>{html.escape(line[1])}"


def _anchor(heading: Heading) -> str:
    return re.sub(r"[^a-z0-9]+", "-", (heading.short or heading.text).lower()).strip("-")


def _table(block: Table) -> str:
    sides = ["" if column.text else " class=n" for column in block.columns]
    heads = "".join(
        f'<th scope="col"{side} title="{html.escape(column.help)}">{html.escape(column.label)}</th>'
        for column, side in zip(block.columns, sides, strict=True)
    )
    if block.sounds:
        heads = f'<th scope="col" class="sound">sound</th>{heads}'
    body = "".join(
        _row(row)
        + (_sound(sound) if block.sounds else "")
        + "".join(_cell(column.cell(row), side) for column, side in zip(block.columns, sides, strict=True))
        + "</tr>"
        for row, sound in zip(block.rows, block.sounds or [""] * len(block.rows), strict=True)
    )
    return f'<div class="scroll tall"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _id(name: str) -> str:
    return f' id="{html.escape(name)}"' if name else ""


def _row(row: Mapping[Any, Any]) -> str:
    """The beginning of a table's row; one that is about runs says which, so that filters can hide it."""
    runs = row.get("rows")
    return f'<tr data-runs="{" ".join(map(str, map(int, runs)))}">' if isinstance(runs, list) else "<tr>"


def _cell(text: str, side: str) -> str:
    """A cell of a table; a narrow one may break a long word in it."""
    return f"<td{side or (' class=long' if LONG_WORD.search(text) else '')}>{html.escape(text)}</td>"


def _sound(address: str) -> str:
    """A cell with a player."""
    player = f'<audio controls preload="metadata" src="{html.escape(address)}"></audio>' if address else "not at hand"
    return f'<td class="sound">{player}</td>'


def _figure(block: Figure) -> str:
    caption, name = html.escape(block.caption), html.escape(block.name)
    if block.figure is None:
        title = html.escape(block.name.replace("_", " ").capitalize())
        return f'<figure class="absent"><h3>{title}</h3><figcaption>{caption}</figcaption></figure>'
    return (
        f'<figure id="figure-{name}"><h3></h3><div class="plot" id="plot-{name}" role="img"></div>'
        f'<figcaption>{caption} <span class="more"></span></figcaption></figure>'
    )


def _plot(study: Study, block: Figure) -> dict[str, Any]:
    """A figure as the page's script draws it."""
    made = block.figure.to_plotly_json()
    layout = {key: value for key, value in made["layout"].items() if key not in ("template", "title")}
    layout["meta"] = {"kind": "static"} | (layout.get("meta") or {})
    title = made["layout"].get("title", {}).get("text", "")
    content = {"name": block.name, "title": title, "data": made["data"], "layout": layout}
    if block.name in VARIANTS:
        runs = variant_runs(study)
        made_for = {str(row): VARIANTS[block.name](study, row) for row in runs}
        content["variants"] = {row: {"title": title, "data": data} for row, (title, data) in made_for.items()}
        content["data"] = []
        layout["meta"] |= {"runs": runs}
    return content


def script_json(content: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or a line of JavaScript."""
    return to_json_plotly(content, engine="json").replace("&", "\\u0026")


@cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return resources.files("sousa_bench.analysis.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's own script: its files, one after another, in one scope."""
    return "\n".join(['"use strict";\n(() => {', *(asset(f"{name}.js") for name in SCRIPTS), "start();\n})();"])


@cache
def plotly_library() -> str:
    """The plots' library, without the addresses that it could open, load from or send to."""
    from plotly.offline import get_plotlyjs

    code: str = get_plotlyjs()
    return ADDRESS.sub(r"\1about:", code.replace("</script", "<\\/script"))


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy under which only these inline scripts run, and nothing is fetched."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
