"""How a search stops a run that lags behind: the history that the run writes, and the request that it looks for.

Both are files in the run's folder, so that they reach a run on any node; the search alone opens its database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sousa_bench.errors import Interrupted
from sousa_bench.results.result import read_object, write_json

HISTORY_FILE = "history.json"
REQUEST_FILE = "prune.json"
CAUSE = "pruned"  # in the ``failure`` block of the record, whose status is "interrupted": it can go on


class Pruned(Interrupted):
    """A search gave the run up; its checkpoint is written."""


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write what a run's epochs gave so far."""
    write_json(folder / HISTORY_FILE, {"epochs": list(history)})


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run so far; empty where there is no history yet, or it can't be read."""
    epochs = read_object(folder / HISTORY_FILE).get("epochs")
    return [entry for entry in epochs if isinstance(entry, dict)] if isinstance(epochs, list) else []


def ask(folder: Path, reason: str) -> None:
    """Ask the run in a folder to end."""
    write_json(folder / REQUEST_FILE, {"reason": reason})


def asked(folder: Path) -> str | None:
    """Why the run in a folder was asked to end, or None."""
    request = read_object(folder / REQUEST_FILE)
    return str(request["reason"]) if "reason" in request else None


def forget(folder: Path) -> None:
    """Drop a request that an earlier attempt met."""
    with suppress(OSError):
        (folder / REQUEST_FILE).unlink()


def is_pruned(result: Mapping[str, Any]) -> bool:
    """Whether a record is of a run that a search gave up."""
    return result.get("status") == "interrupted" and (result.get("failure") or {}).get("cause") == CAUSE
