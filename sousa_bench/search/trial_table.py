"""The trials of a search as a table for the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sousa_bench.search.space import Value
from sousa_bench.system.text_table import MOST_ROWS, duration, in_columns

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATUS = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "not ended"}
"""What a state of Optuna's is called here."""


def trial_table(
    trials: Sequence[FrozenTrial], keys: Sequence[str], metric: str, direction: str, seconds: Mapping[int, float]
) -> str:
    """The trials in columns: their own values, what became of each, what it reached; of many the best ones.

    Args:
        trials: Those that were begun, by number.
        keys: What varies. A column is called by a key's last part where no other ends so.
        metric: What the search looks at.
        direction: ``maximize`` or ``minimize``.
        seconds: What this command's trials took, by number.
    """
    chosen = list(trials)
    if len(chosen) > MOST_ROWS:
        sign = -1 if direction == "maximize" else 1
        chosen.sort(key=lambda trial: math.inf if _reached(trial) is None else sign * float(trial.value or 0.0))
        del chosen[MOST_ROWS:]
    ends = Counter(key.rpartition(".")[2] for key in keys)
    heads = [end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys]
    rows = [("trial", *heads, "status", metric, "time")]
    for trial in chosen:
        reached, took = _reached(trial), seconds.get(trial.number)
        values = [_short(trial.params[key]) if key in trial.params else "" for key in keys]
        told = "" if reached is None else f"{reached:.4f}"
        rows.append((str(trial.number), *values, STATUS[trial.state.name], told, duration(took) if took else ""))
    text = in_columns(rows)
    return text if len(chosen) == len(trials) else f"{text}\nThe best {MOST_ROWS} of {len(trials)} trials."


def _reached(trial: FrozenTrial) -> float | None:
    """The value of a completed trial; a pruned one's is that of the epoch in which it ended."""
    return trial.value if trial.state.name == "COMPLETE" else None


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
