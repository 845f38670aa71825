"""Parameter-efficient fine-tuning: what a ``conf/peft`` choice does to a model, and how it is saved and loaded.

``precheck`` and ``refusal`` need neither torch nor peft, so that a sweep can ask them before anything heavy is
imported; everything else is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sousa_bench.peft.precheck import precheck
from sousa_bench.peft.refusals import refusal

if TYPE_CHECKING:
    from sousa_bench.peft.adapter import load, load_run_model, read_description
    from sousa_bench.peft.build import inject
    from sousa_bench.peft.injection import Injection
    from sousa_bench.peft.local import LocalConfig
    from sousa_bench.peft.options import Options, check_config

__all__ = [
    "Injection",
    "LocalConfig",
    "Options",
    "check_config",
    "inject",
    "load",
    "load_run_model",
    "precheck",
    "read_description",
    "refusal",
]

_HOMES = {
    "Injection": "injection",
    "LocalConfig": "local",
    "Options": "options",
    "check_config": "options",
    "inject": "build",
    "load": "adapter",
    "load_run_model": "adapter",
    "read_description": "adapter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
