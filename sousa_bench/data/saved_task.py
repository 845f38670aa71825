"""The task that a result, an adapter or a package was made for, and whether it is SOUSA's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sousa_bench.data.rudiments import TASK
from sousa_bench.task import Task


def is_sousa(task: Task) -> bool:
    """Whether a task is SOUSA's own, about whose sounds more is known than about others: that they are struck."""
    return task == TASK


def saved_task(content: Mapping[str, Any], origin: object) -> Task:
    """The block `task` of a file; files from before there was one are about SOUSA's rudiments.

    Args:
        content: Of the file.
        origin: The file, for the message.

    Raises:
        UserError: The block is none.
    """
    block = content.get("task")
    return TASK if block is None else Task.from_dict(block, origin)
