"""The ranking as printed: for the eye, or as Markdown, CSV or JSON for a script."""

from __future__ import annotations

import json
import math
from typing import Any

from sousa_bench.analysis.report import markdown
from sousa_bench.analysis.report.blocks import Table
from sousa_bench.analysis.report.ranking import NOTHING_TO_RANK, ranking, ranking_table
from sousa_bench.analysis.study import Study


def render(study: Study, form: str = "table") -> str:
    """The ranking as text.

    Args:
        study: From ``compare``.
        form: ``table``, ``markdown``, ``csv`` or ``json``.
    """
    if form == "json":
        rows = [{key: _json(value) for key, value in row.items()} for row in ranking(study).to_dict("records")]
        return json.dumps({"metric": study.metric, "notes": study.notes, "ranking": rows}, indent=2)
    if form == "csv":
        return ranking(study).to_csv(index=False).rstrip("\n")
    block = ranking_table(study)
    text = markdown.table(block) if form == "markdown" else _table(block)
    return text or NOTHING_TO_RANK


def _json(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(block: Table) -> str:
    if not block.rows:
        return ""
    cells = block.aligned(lambda text: " ".join(text.split()))
    rows = ["  ".join(row).rstrip() for row in cells]
    return "\n".join([rows[0], "  ".join("-" * len(cell) for cell in cells[0]), *rows[1:]])
