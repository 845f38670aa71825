"""What the system tells of this machine's processor. Imports no torch."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

BFLOAT16 = {"avx512_bf16", "amx_bf16"}
"""Flags of processors whose matrix products take bfloat16."""
_KIND = (
    *("vendor_id", "cpu family", "model", "model name", "stepping"),
    *("CPU implementer", "CPU part", "CPU variant", "CPU revision"),  # as ARM's are told
)


@cache
def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition(":")[::2] for line in lines)
    found: dict[str, str] = {}
    for key, value in pairs:
        found.setdefault(key.strip(), value.strip())
    return found


def processor() -> str:
    """Name of the CPU model, as far as the system tells."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def kind() -> str:
    """What tells one model of processor from another; machines in a cloud share the names of theirs."""
    told = [value for key in _KIND if (value := _cpuinfo().get(key))]
    return "/".join(told or [platform.machine(), platform.processor()])


def takes_bfloat16() -> bool:
    """Whether its matrix products take bfloat16; where the system doesn't tell, they don't."""
    return not BFLOAT16.isdisjoint(_cpuinfo().get("flags", "").split())
