"""Which code runs."""

from __future__ import annotations

import functools
import subprocess
from contextlib import suppress
from pathlib import Path

import sousa_bench


@functools.cache
def git_commit() -> str:
    """Commit of the package's own repository (``-dirty`` when edited), or its version where there is none."""
    home = Path(sousa_bench.__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=home, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        git("ls-files", "--error-unmatch", "__init__.py")  # not somebody's repository around a site-packages
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return sousa_bench.__version__
