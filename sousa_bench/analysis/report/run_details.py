"""What the page says of a run that is clicked on: its config, overrides, folder, command and the end of its log.

All of it is foreign text and bounded in number and size; the page's script sets it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.factors import shown
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import ERROR_FILE, EVALUATED, LOG_FILE, NOT_COMPLETED
from sousa_bench.system.foreign import read_tail

MAX_RUNS = 500
MAX_LOGS = 80
MAX_KEYS = 300  # of a config
MAX_VALUE = 200  # characters
LOG_BYTES = 3000


def run_details(study: Study, runs: Sequence[int]) -> dict[str, Any]:
    """The details of the first ``MAX_RUNS`` of ``runs``, row numbers of the table.

    Returns:
        ``shared``, the keys and values that all their configs hold; ``runs``, by row, each with the rest of its
        ``config``, its ``overrides``, ``folder``, ``command``, where it failed ``error``, and of the ``MAX_LOGS`` runs
        that failed or are the first ones ``log``.
    """
    chosen = list(runs)[:MAX_RUNS]
    configs = {row: _config(study.results.resolved[row]) for row in chosen}
    shared = _shared(list(configs.values()))
    status = study.table["status"]
    logged = sorted(chosen, key=lambda row: status.at[row] not in NOT_COMPLETED)[:MAX_LOGS]
    made: dict[str, Any] = {}
    for row in chosen:
        fields = study.table.iloc[row]
        folder = Path(str(fields["folder"]))
        made[str(row)] = {
            "folder": str(folder),
            "overrides": [text[:MAX_VALUE] for text in study.results.overrides[row]],
            "config": {key: value for key, value in configs[row].items() if key not in shared},
            "command": retry_command(study, row) if _trained(fields) else "",
            "error": str(fields["error"] or "")[:1000],
            "log": _log(folder) if row in logged else "",
        }
    return {"shared": shared, "runs": made}


def _config(resolved: Mapping[str, Any]) -> dict[str, str]:
    return {key: shown(resolved[key])[:MAX_VALUE] for key in sorted(resolved)[:MAX_KEYS]}


def _shared(configs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all of several configs hold; nothing where there is one alone, whose config is its own."""
    if len(configs) < 2:
        return {}
    first, *others = configs
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _trained(fields: pd.Series) -> bool:
    """Whether the result is a training's, which a command can start again; an evaluation's is not."""
    return not isinstance(fields.get(EVALUATED), str)


def _log(folder: Path) -> str:
    """The end of what a run printed; of its error where it left one."""
    for name in (ERROR_FILE, LOG_FILE):
        with suppress(OSError, ValueError):
            if text := read_tail(folder / name, LOG_BYTES).strip():
                return text
    return ""
