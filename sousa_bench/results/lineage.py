"""Where a run comes from: the earlier runs that it was promoted from or learns from, for its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import ADAPTER_FOLDER, ResultError, own_scores, read_result

KEY = "lineage"


def lineage(config: DictConfig) -> dict[str, Any] | None:
    """The ``lineage`` block of a run's record, or None for a run that comes from no other.

    Returns:
        ``command`` that promoted it; ``from``: ``experiment_id``, ``fingerprint`` and ``val_acc`` (or ``val_map``) of
        each earlier run (None where its result is gone or it is a refit), best first; ``warm``: whether it went on from
        the weights of one; for a student ``teacher``: the same of the run that it learns from, and what that scored on
        which test clips, and its size.
    """
    places = OmegaConf.select(config, f"{KEY}.from", default=None) or []
    start = config.get("init_from")
    teacher = OmegaConf.select(config, "teacher.run", default=None)
    if not places and not start and not teacher:
        return None
    return {
        "command": OmegaConf.select(config, f"{KEY}.command", default=None),
        "from": [_facts(*_run(Path(str(place)))) for place in places or ([start] if start else [])],
        "warm": bool(start),
        **({"teacher": _teacher(Path(str(teacher)))} if teacher else {}),
    }


def _teacher(place: Path) -> dict[str, Any]:
    folder, result = _run(place)
    metrics = own_scores(result)
    return {
        **_facts(folder, result),
        (key := ranking(metrics, "test")): metrics.get(key),
        "total_params": (result.get("efficiency") or {}).get("total_params"),
        "test_fingerprint": (result.get("data") or {}).get("test_fingerprint"),
    }


def _run(place: Path) -> tuple[Path, dict[str, Any]]:
    """A run's folder and its result, which is empty where it is gone."""
    place = place.expanduser()
    folder = place.parent if place.name == ADAPTER_FOLDER else place
    try:
        return folder, read_result(folder)
    except ResultError:
        return folder, {}


def _facts(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    metrics = own_scores(result)
    return {
        "experiment_id": result.get("experiment_id") or folder.name,
        "fingerprint": result.get("fingerprint"),
        (key := ranking(metrics)): metrics.get(key),
    }
