"""What configs can compute: settings that follow weights and data, and the space of a rate."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.models.weight_files import PACKED


def by_weights(otherwise: Any, measured: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for a run's model, weights and data: ``${by_weights:15,{synthetic:2}}``.

    Args:
        otherwise: For what ``measured`` doesn't name, and for a node that stands by itself.
        measured: Key → value; the first of these wins: ``home`` for rudiments, the package's clips or real
            ones, from weights of sousa_bench.pretrain, which know them (of real ones with ``trainer.new_head=true`` it
            is not for; the package's clips take ``synthetic`` before it); ``MODEL_WEIGHTS`` (such as
            ``efficientat_official``); ``WEIGHTS`` alone; ``synthetic`` for clips that the package makes.
    """
    name, weights = (OmegaConf.select(_root_, f"model.{key}", default=None) for key in ("name", "weights"))
    synthetic = OmegaConf.select(_root_, "data.synthetic", default=None) is not None
    own = ["synthetic"] if synthetic else []
    keys = [f"{name}_{weights}", str(weights), *own]
    if "home" in measured and weights in PACKED and (synthetic or _on_rudiments(_root_)):
        keys = [*own, "home", *keys]
    return next((measured[key] for key in keys if key in measured), otherwise)


def _on_rudiments(config: DictConfig) -> bool:
    """Whether a config has clips of rudiments and doesn't ask for a new head."""
    from sousa_bench.data.sources.find_source import holds_rudiments  # imports pandas

    if OmegaConf.select(config, "trainer.new_head", default=None):
        return False
    keys = {key: OmegaConf.select(config, f"data.{key}", default=None) for key in ("root", "hub_id", "layout", "table")}
    columns = OmegaConf.select(config, "data.columns", default=None)
    named = columns.items() if isinstance(columns, DictConfig) else ()
    return holds_rudiments(**keys, columns={str(key): name for key, name in named})


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
