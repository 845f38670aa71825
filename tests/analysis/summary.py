"""The text of ``summary_report.md``, straight from a study."""

from __future__ import annotations

from typing import Any

from sousa_bench.analysis import Study
from sousa_bench.analysis.report.blocks import Options
from sousa_bench.analysis.report.markdown import markdown
from sousa_bench.analysis.report.sections import report


def summary(study: Study, **options: Any) -> str:
    return markdown("Summary", report(study, Options(plots=False, **options)))
