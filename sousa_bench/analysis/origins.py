"""Where runs come from: the runs that they go back to, and the runs that were only evaluated again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from sousa_bench.results.result import EVALUATED


class Origin(NamedTuple):
    """Where one result comes from.

    Attributes:
        experiment: Its id.
        words: Which runs it goes back to, and how.
        command: The command that made it from them, as its file says it, to be read; empty where none is named.
    """

    experiment: str
    words: str
    command: str


def origin_words(row: Mapping[Any, Any]) -> str:
    """What a row of the table goes back to, in words; empty for a run of its own."""
    parts = []
    if isinstance(evaluated := row.get(EVALUATED), str):
        parts.append(f"evaluates {evaluated}")
    named, command = row.get("lineage.from"), row.get("lineage.command")
    if isinstance(named, str) and named:
        warm = str(row.get("lineage.warm")).lower() == "true"
        parts.append(f"{'went on from the weights of' if warm else 'started anew after'} {named}")
    if isinstance(teacher := row.get("lineage.teacher"), str):
        parts.append(f"learnt from {teacher}")
    if not parts and isinstance(command, str):
        parts.append("was started by another command")
    return ", ".join(parts)


def all_origin_words(table: pd.DataFrame) -> list[str]:
    """``origin_words`` of each row."""
    known = (EVALUATED, "lineage.from", "lineage.warm", "lineage.command", "lineage.teacher")
    keys = [key for key in known if key in table]
    return [origin_words(row) for row in table[keys].to_dict("records")] if keys else [""] * len(table)


def origins(table: pd.DataFrame) -> list[Origin]:
    """Every result of the table that goes back to another."""
    commands = table["lineage.command"] if "lineage.command" in table else [""] * len(table)
    rows = zip(table["experiment_id"], all_origin_words(table), commands, strict=True)
    return [Origin(name, words, command if isinstance(command, str) else "") for name, words, command in rows if words]
