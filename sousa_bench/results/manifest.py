"""``sweep.json``: which runs a sweep consists of, and where the result of each lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sousa_bench.results.result import read_json

MANIFEST_FILE = "sweep.json"
MAX_BYTES = 64 * 1024 * 1024


def relative(start: Path, path: Path) -> str:
    """``path`` as seen from ``start``, with forward slashes."""
    return Path(os.path.relpath(path, start)).as_posix()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in ``folder``, or an empty dict when there is none or it can't be read."""
    try:
        content = read_json(folder / MANIFEST_FILE, MAX_BYTES)
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("jobs"), list):
        return {}
    if not isinstance(content.get("processes"), list):
        content["processes"] = []
    content["jobs"] = [
        job for job in content["jobs"] if isinstance(job, dict) and isinstance(job.get("fingerprint"), str)
    ]
    return content
