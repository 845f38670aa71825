"""Objects from config nodes, with the errors that their makers raised."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from sousa_bench.errors import UserError


def build(node: Any, **arguments: Any) -> Any:
    """Instantiate a ``_target_`` node into plain Python containers and objects.

    Args:
        node: The config node.
        arguments: Further keyword arguments of the target, and Hydra's own (``_partial_``).

    Raises:
        UserError: What the target says of an impossible value, without Hydra's wrapping.
    """
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise
