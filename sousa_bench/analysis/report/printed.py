"""What the command prints: of each cohort the verdict and its leading combinations, in ``WIDTH`` columns."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from sousa_bench.analysis.columns import own_name
from sousa_bench.analysis.report import markdown
from sousa_bench.analysis.report.blocks import Table
from sousa_bench.analysis.report.ranking import FIRST_OF_ALL, importance, ranking, ranking_table
from sousa_bench.analysis.report.verdict_line import NOTHING_COMPLETED, verdicts
from sousa_bench.analysis.standings import ROWS, Standings
from sousa_bench.analysis.study import Study
from sousa_bench.system.text_table import WIDTH, shortened

LEAST_NAME = 24  # characters of a combination's name, of which fewer say too little
SPACE = "  "


def render(study: Study, form: str = "table") -> str:
    """The answer as text.

    Args:
        study: From ``compare``.
        form: ``table``: verdicts and leading combinations. ``markdown``, ``csv`` or ``json``: all combinations, alone.
    """
    if form == "json":
        rows = [{key: _json(value) for key, value in row.items()} for row in ranking(study).to_dict("records")]
        return json.dumps(
            {"metric": own_name(study.metric, study.task), "notes": study.notes, "ranking": rows}, indent=2
        )
    if form == "csv":
        return ranking(study).to_csv(index=False).rstrip("\n")
    found = study.standings
    if form == "markdown":
        return "\n\n".join(markdown.table(ranking_table(cohort)) for cohort in found) or NOTHING_COMPLETED
    parts = [answer_lines(study), *(_leading(cohort) for cohort in found)]
    return "\n\n".join(part for part in parts if part)


def answer_lines(study: Study) -> str:
    """The verdict of each cohort, a paragraph of at most ``WIDTH`` columns."""
    return "\n".join(wrapped("".join(line)) for line in verdicts(study))


def wrapped(text: str) -> str:
    """A text in lines of at most ``WIDTH`` columns; a longer word, such as a path, stays whole."""
    return textwrap.fill(one_line(text), WIDTH, break_long_words=False, break_on_hyphens=False)


def _json(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _leading(cohort: Standings) -> str:
    """The table of a cohort, under its name where there are several."""
    table = fitted(ranking_table(cohort, 0, ROWS), cohort.study.metric)
    more = f"{ROWS} of {len(cohort.rows)} shown; all are in combinations.csv" if len(cohort.rows) > ROWS else ""
    title = wrapped(cohort.title)
    return "\n".join(line for line in (title, *_lines(table), more) if line)


def fitted(table: Table, metric: str, width: int = WIDTH) -> Table:
    """A table of at most ``width`` columns: the least important columns go, then the ends of long names.

    Args:
        table: From ``ranking_table``.
        metric: The study's.
        width: Characters of a line.
    """
    columns = list(table.columns)
    while len(columns) > FIRST_OF_ALL and _width(Table(columns, table.rows)) > width:
        columns.remove(max(columns, key=lambda column: importance(column.key, metric)))
    beyond = _width(Table(columns, table.rows)) - width
    if beyond <= 0:
        return Table(columns, table.rows)
    longest = max(len(one_line(str(row["name"]))) for row in table.rows)
    room = max(longest - beyond, LEAST_NAME)
    return Table(columns, [{**row, "name": shortened(one_line(str(row["name"])), room)} for row in table.rows])


def _width(table: Table) -> int:
    return len(SPACE.join(table.aligned(one_line)[0]))


def _lines(table: Table) -> Sequence[str]:
    cells = table.aligned(one_line)
    rows = [SPACE.join(row).rstrip() for row in cells]
    return [rows[0], SPACE.join("-" * len(cell) for cell in cells[0]), *rows[1:]]


def one_line(text: str) -> str:
    """A text without a line break."""
    return " ".join(text.split())
