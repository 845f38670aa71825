"""Settings that follow the weights that a run starts from: ``${by_weights:3e-4,{efficientat_official:3e-3}}``."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def by_weights(otherwise: Any, measured: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for a run's model and weights.

    Args:
        otherwise: For weights that ``measured`` doesn't name, and for a node that stands by itself.
        measured: ``MODEL_WEIGHTS`` (such as ``efficientat_official``) or ``WEIGHTS`` alone → value; the first wins.
    """
    name, weights = (OmegaConf.select(_root_, f"model.{key}", default=None) for key in ("name", "weights"))
    return measured.get(f"{name}_{weights}", measured.get(str(weights), otherwise))


def register() -> None:
    """Let configs use it."""
    OmegaConf.register_new_resolver("by_weights", by_weights, replace=True)
