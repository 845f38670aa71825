"""New Python processes of this package's own."""

from __future__ import annotations

import os
from pathlib import Path

import sousa_bench


def python_path() -> str:
    """``PYTHONPATH`` with which a new interpreter finds this package, wherever this one found it."""
    home = str(Path(sousa_bench.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))


def python_environment(**variables: str) -> dict[str, str]:
    """The environment of a new interpreter that shall find this package, with ``variables`` set beside it."""
    return {**os.environ, **variables, "PYTHONPATH": python_path()}
