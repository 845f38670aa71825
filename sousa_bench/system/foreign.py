"""What is refused in files that may come from others: none of them may choose what this machine executes or reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sousa_bench.errors import UserError

# Keys without a dot that are no config group, and whose values may hold a path.
PLACES = ("init_from", "sweep")


class ForeignError(UserError):
    """A file says something that could execute code or read other files."""


def check_node(node: Any, place: Path) -> None:
    """Refuse a config node, as it was read from JSON, that would do more than give values.

    Args:
        node: Without its own ``_target_``.
        place: The file, for the message.

    Raises:
        ForeignError: It holds an interpolation or a ``_target_``.
    """
    text = json.dumps(node, ensure_ascii=False, default=str)
    if found := next((word for word in ("${", "_target_") if word in text), None):
        raise ForeignError(
            f"{place}: what its model is built from holds {found}, but must be plain values: it may execute code"
        )


def check_overrides(overrides: Iterable[str]) -> None:
    """Refuse overrides of a result or a manifest that would do more than give values or choose by name.

    Raises:
        ForeignError: One interpolates, names code, or chooses a config file by its path.
    """
    if bad := next(filter(_does_more, overrides), None):
        raise ForeignError(
            f"the override {bad[:200]!r} of a result file may execute code or read other files, since it holds "
            "${, _target_ or the path of a config; write it yourself if it is yours"
        )


def _does_more(override: str) -> bool:
    text = override.replace("\\", "")  # what Hydra's grammar escapes with: $\{…\} is an interpolation too
    key, _, value = text.partition("=")
    group = key.lstrip("+~").partition("@")[0]
    chooses = "." not in group and group not in PLACES
    return "${" in text or "_target_" in text or (chooses and ("/" in value or ".." in value))
