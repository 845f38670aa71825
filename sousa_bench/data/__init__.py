"""SOUSA's clips: where they come from, which of them a run uses, and their waveforms."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sousa_bench.data.run_data import SousaData, fingerprint

__all__ = ["SPLITS", "SousaData", "fingerprint"]

SPLITS = ("train", "val", "test")


def __getattr__(name: str) -> object:
    """Import what needs pandas when it is first asked for: the processes that write synthetic clips never do."""
    if name in __all__:
        from sousa_bench.data import run_data

        return getattr(run_data, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
