"""Where a run comes from: the earlier runs that it was promoted from, for its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import ADAPTER_FOLDER, ResultError, read_result

KEY = "lineage"


def lineage(config: DictConfig) -> dict[str, Any] | None:
    """The ``lineage`` block of a run's record, or None for a run that comes from no other.

    Returns:
        ``command`` that promoted it; ``from``: ``experiment_id``, ``fingerprint`` and ``val_acc`` (or ``val_map``) of
        each earlier run (None where its result is gone), best first; ``warm``: whether it went on from the weights of
        one.
    """
    places = OmegaConf.select(config, f"{KEY}.from", default=None) or []
    start = config.get("init_from")
    if not places and not start:
        return None
    return {
        "command": OmegaConf.select(config, f"{KEY}.command", default=None),
        "from": [_parent(Path(str(place))) for place in places or [start]],
        "warm": bool(start),
    }


def _parent(place: Path) -> dict[str, Any]:
    folder = place.parent if place.name == ADAPTER_FOLDER else place
    try:
        result = read_result(folder)
    except ResultError:
        return {"experiment_id": folder.name, "fingerprint": None, "val_acc": None}
    metrics = result.get("metrics") or {}
    return {
        "experiment_id": result.get("experiment_id") or folder.name,
        "fingerprint": result.get("fingerprint"),
        (key := ranking(metrics)): metrics.get(key),
    }
