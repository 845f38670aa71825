"""From result files to a decision: load, compare, plot, report. Imports no torch.

In a notebook::

    from sousa_bench.analysis import collect, compare, load, plots

    table = load("multirun/2026-02-01")
    study = compare(collect(["multirun/2026-02-01"]))
    plots.efficiency_scatter(study).show()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sousa_bench.analysis import plots
    from sousa_bench.analysis.study import Study, compare
    from sousa_bench.analysis.table import Results, collect, load

__all__ = ["Results", "Study", "collect", "compare", "load", "plots"]

_HOMES = {"Results": "table", "collect": "table", "load": "table", "Study": "study", "compare": "study"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``--help`` and a reader process don't pay for pandas."""
    if name == "plots":
        return importlib.import_module("sousa_bench.analysis.plots")
    if name in _HOMES:
        return getattr(importlib.import_module(f"sousa_bench.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
