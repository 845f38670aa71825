"""What configs can compute: settings that follow weights and data, and the space of a rate."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def by_weights(otherwise: Any, measured: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for a run's model, weights and data: ``${by_weights:15,{synthetic:2}}``.

    Args:
        otherwise: For what ``measured`` doesn't name, and for a node that stands by itself.
        measured: ``MODEL_WEIGHTS`` (such as ``efficientat_official``), ``WEIGHTS`` alone, or ``synthetic`` for clips
            that the package makes → value; the first of these wins. ``embedded`` is for other clips than these, which
            such weights come from.
    """
    name, weights = (OmegaConf.select(_root_, f"model.{key}", default=None) for key in ("name", "weights"))
    synthetic = OmegaConf.select(_root_, "data.synthetic", default=None) is not None
    away = [] if synthetic and weights == "embedded" else [f"{name}_{weights}", str(weights)]
    keys = [*away, *(["synthetic"] if synthetic else [])]
    return next((measured[key] for key in keys if key in measured), otherwise)


def around(key: str, *, _root_: DictConfig) -> str:
    """The space of a rate in a search, from a tenth to ten times its default: ``${around:peft.learning_rate}``.

    Args:
        key: The rate's. Where the config has no number there, what it has is the space, which is then refused as such.
    """
    rate = OmegaConf.select(_root_, key, default=None)
    try:
        number = float(rate)
    except (TypeError, ValueError):
        return "null" if rate is None else str(rate)
    return f"tag(log,interval({number / 10:g},{number * 10:g}))"


def register() -> None:
    """Let configs use them."""
    for resolver in (by_weights, around):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
