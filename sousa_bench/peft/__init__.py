"""Parameter-efficient fine-tuning: what a ``conf/peft`` choice does to a model, and how it is saved and loaded.

Torch and PEFT are imported when the first name that needs them is asked for: a sweep only asks :func:`precheck`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sousa_bench.peft.added_options import (
    BottleneckConfig,
    ConformerConfig,
    ConvAdapterConfig,
    ConvpassConfig,
    PrefixConfig,
    PromptConfig,
    ScaleShiftConfig,
)
from sousa_bench.peft.options import LocalConfig
from sousa_bench.peft.precheck import oversized_rank, precheck

if TYPE_CHECKING:
    from sousa_bench.peft.adapter import load, load_run_model
    from sousa_bench.peft.build import inject
    from sousa_bench.peft.injection import Injection

__all__ = [
    "BottleneckConfig",
    "ConformerConfig",
    "ConvAdapterConfig",
    "ConvpassConfig",
    "Injection",
    "LocalConfig",
    "PrefixConfig",
    "PromptConfig",
    "ScaleShiftConfig",
    "inject",
    "load",
    "load_run_model",
    "oversized_rank",
    "precheck",
]

_HOMES = {"Injection": "injection", "inject": "build", "load": "adapter", "load_run_model": "adapter"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
