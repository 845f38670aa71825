"""Our own generator of the 40 rudiments: SOUSA's folder layout from nothing but a seed.

`write_dataset` writes a folder that the loader reads like real SOUSA data; `Generator` makes single clips in memory,
for a stream of pretraining clips. Both are deterministic by (seed, domain, clip index), whatever the number of workers.
This package imports numpy, pyarrow and soundfile only, and those late: neither torch nor pandas.
"""

import importlib

from sousa_bench.errors import DataError

__all__ = ["VERSIONS", "Clip", "Generator", "describe", "write_dataset"]

VERSIONS = {"target": "2", "source": "6"}
"""Raised by every change that changes a domain's samples or labels: caches of older versions are then not reused."""

SAMPLE_RATE = 32_000
"""Native rate in Hz. What HTS-AT and EfficientAT take; AST and BEATs take 16 kHz, an exact half. Only CLAP's HTS-AT, at
48 kHz, has its clips upsampled."""

TARGET_SECONDS = 4.0
"""Clips hold the whole number of cycles that comes nearest to this length (SOUSA's fixed duration)."""

DOMAINS: tuple[str, ...] = ("target", "source")
"""`target` is what `data=synthetic` holds; `source` is for pretraining. They share no player, drum or room."""

SPLIT_PLAYERS: tuple[int, int, int] = (70, 13, 20)
"""Players of train, val and test: SOUSA's 68 / 13 / 19 %, with 20 in the test split."""


def check_domain(domain: str) -> str:
    """Return `domain` if it exists.

    Raises:
        DataError: It doesn't; the message names those that do.
    """
    if domain not in DOMAINS:
        raise DataError(f"Unknown synthetic domain {domain!r}: there are {' and '.join(map(repr, DOMAINS))}.")
    return domain


def describe(
    clips: int, seed: int, domain: str = "target", split_players: tuple[int, int, int] = SPLIT_PLAYERS
) -> dict[str, object]:
    """Everything that decides a dataset's content: equal descriptions mean bit-identical datasets.

    Args:
        clips: Number of clips.
        seed: Seed of players and clips.
        domain: One of `DOMAINS`.
        split_players: Players of train, val and test.

    Returns:
        Plain values, ready for JSON and a hash.

    Raises:
        DataError: Unknown domain.
    """
    return {
        "generator": "sousa_bench.synthetic",
        "version": VERSIONS[check_domain(domain)],
        "clips": int(clips),
        "seed": int(seed),
        "domain": domain,
        "split_players": [int(count) for count in split_players],
        "sample_rate": SAMPLE_RATE,
    }


def __getattr__(name: str) -> object:
    """Import the heavier parts when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "writer" if name == "write_dataset" else "generator"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
