"""Objects from config nodes, with the errors that their makers raised."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sousa_bench.config.config_errors import user_error
from sousa_bench.config.identity import with_present_targets


def build(node: Any, **arguments: Any) -> Any:
    """Instantiate a ``_target_`` node into plain Python containers and objects.

    Args:
        node: The config node.
        arguments: Further keyword arguments of the target, and Hydra's own (``_partial_``).

    Raises:
        UserError: What the target says of an impossible value, without Hydra's wrapping.
    """
    if OmegaConf.is_config(node):
        plain = OmegaConf.to_container(node)
        if with_present_targets(plain) != plain:
            node = with_present_targets(OmegaConf.to_container(node, resolve=True))
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        inner = user_error(error)
        if inner is None:
            raise
    # Raised outside the handler: inside it the error and Hydra's wrapping of it would be each other's cause.
    raise inner
