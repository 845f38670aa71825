"""Where runs come from: the runs that they go back to, and the runs that were only evaluated again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sousa_bench.analysis.study import Study
from sousa_bench.results.result import EVALUATED


@dataclass(frozen=True)
class Origin:
    """Where one result comes from.

    Attributes:
        row: Its row in the table.
        experiment: Its id.
        words: Which runs it goes back to, and how.
        command: The command that made it from them, as its file says it, to be read; empty where none is named.
    """

    row: int
    experiment: str
    words: str
    command: str


def origin_words(row: Mapping[Any, Any]) -> str:
    """What a row of the table goes back to, in words; empty for a run of its own."""
    parts = []
    if isinstance(evaluated := row.get(EVALUATED), str):
        parts.append(f"evaluates {evaluated}")
    named = row.get("lineage.from")
    if isinstance(named, str) and named:
        warm = row.get("lineage.warm")
        how = "went on from the weights of" if str(warm).lower() == "true" else "started anew after"
        parts.append(f"{how} {named}")
    elif isinstance(row.get("lineage.command"), str):
        parts.append("was started by another command")
    return ", ".join(parts)


def origins(study: Study) -> list[Origin]:
    """Every result that goes back to another."""
    keys = [key for key in (EVALUATED, "lineage.from", "lineage.warm", "lineage.command") if key in study.table]
    if not keys:
        return []
    rows = study.table[["experiment_id", *keys]].to_dict("records")
    found = []
    for number, row in zip(study.table.index, rows, strict=True):
        if words := origin_words(row):
            command = row.get("lineage.command")
            made = Origin(int(number), row["experiment_id"], words, command if isinstance(command, str) else "")
            found.append(made)
    return found
