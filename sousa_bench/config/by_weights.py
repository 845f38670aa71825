"""Settings that follow the weights that a run starts from, and its data: ``${by_weights:15,{synthetic:2}}``."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def by_weights(otherwise: Any, measured: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for a run's model, weights and data.

    Args:
        otherwise: For what ``measured`` doesn't name, and for a node that stands by itself.
        measured: ``MODEL_WEIGHTS`` (such as ``efficientat_official``), ``WEIGHTS`` alone, or ``synthetic`` for clips
            that the package makes → value; the first of these wins.
    """
    name, weights = (OmegaConf.select(_root_, f"model.{key}", default=None) for key in ("name", "weights"))
    synthetic = OmegaConf.select(_root_, "data.synthetic", default=None) is not None
    keys = [f"{name}_{weights}", str(weights), *(["synthetic"] if synthetic else [])]
    return next((measured[key] for key in keys if key in measured), otherwise)


def register() -> None:
    """Let configs use it."""
    OmegaConf.register_new_resolver("by_weights", by_weights, replace=True)
