"""What configs can compute: settings that follow weights and data, and the space of a rate."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def by_weights(otherwise: Any, measured: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for a run's model, weights and data: ``${by_weights:15,{synthetic:2}}``.

    Args:
        otherwise: For what ``measured`` doesn't name, and for a node that stands by itself.
        measured: ``MODEL_WEIGHTS`` (such as ``efficientat_official``), ``WEIGHTS`` alone, ``synthetic`` for clips that
            the package makes, or ``MODEL`` alone → value; the first of these wins.
    """
    name, weights = (OmegaConf.select(_root_, f"model.{key}", default=None) for key in ("name", "weights"))
    synthetic = OmegaConf.select(_root_, "data.synthetic", default=None) is not None
    keys = [f"{name}_{weights}", str(weights), *(["synthetic"] if synthetic else []), str(name)]
    return next((measured[key] for key in keys if key in measured), otherwise)


def around(rate: float) -> str:
    """The space of a rate in a search, from a tenth to five times its default: ``${around:${peft.learning_rate}}``."""
    return f"tag(log,interval({rate / 10:g},{rate * 5:g}))"


def register() -> None:
    """Let configs use them."""
    for resolver in (by_weights, around):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
