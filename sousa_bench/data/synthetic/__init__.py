"""Our own generator of the 40 rudiments: SOUSA's folder layout from nothing but a seed.

`write_dataset` writes a folder that the loader reads like real SOUSA data; `Generator` makes single clips in memory,
for a stream of pretraining clips. Both are deterministic by (seed, domain, clip index), whatever the number of workers.
This package imports numpy, pyarrow and soundfile only, and those late: neither torch nor pandas.
"""

from sousa_bench.data.synthetic.version import GENERATOR_VERSION, describe

__all__ = ["GENERATOR_VERSION", "Clip", "Generator", "describe", "write_dataset"]

_LATE = {
    "Clip": "sousa_bench.data.synthetic.generator",
    "Generator": "sousa_bench.data.synthetic.generator",
    "write_dataset": "sousa_bench.data.synthetic.writer",
}


def __getattr__(name: str) -> object:
    """Import the heavier parts when they are first asked for."""
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
