"""The values of a `data` node: each judged by itself, and OmegaConf's containers made Python's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sousa_bench.data.decode import SHORTEST
from sousa_bench.data.sources.source import SPLITS
from sousa_bench.data.subset import parse_fold
from sousa_bench.errors import ConfigError

if TYPE_CHECKING:
    from sousa_bench.data.sousa import SousaData


def check_values(data: SousaData) -> None:
    """See `SousaData.check`."""
    for split, count in data.clips.items():
        if split not in SPLITS:
            raise ConfigError(f"data.clips.{split}: the splits are {', '.join(SPLITS)}.")
        _need(f"clips.{split}", count, count is None or (_whole(count) and count >= 1), "a number of clips, or null")
    _need(
        "max_duration",
        data.max_duration,
        _number(data.max_duration) and data.max_duration >= SHORTEST,
        f"seconds, at least {SHORTEST:g}",
    )
    good = _number(data.quantum) and 0 < data.quantum <= data.max_duration
    _need("quantum", data.quantum, good, f"seconds above 0, up to data.max_duration={data.max_duration}")
    for key, choices in (("on_bad_clip", ("error", "skip")), ("shards", ("fewest", "all"))):
        _need(key, getattr(data, key), getattr(data, key) in choices, " or ".join(choices))
    _need("resplit", data.resplit, isinstance(data.resplit, bool), "true or false")
    _need("subset_seed", data.subset_seed, _whole(data.subset_seed), "a whole number")
    for key in ("tempo_min", "tempo_max", "cache_limit_gb"):
        value = getattr(data, key)
        _need(key, value, value is None or (_number(value) and value > 0), "a number above 0, or null")
    if data.tempo_min is not None and data.tempo_max is not None and data.tempo_min > data.tempo_max:
        raise ConfigError(f"data.tempo_min={data.tempo_min} lies above data.tempo_max={data.tempo_max}.")
    _need(
        "workers",
        data.workers,
        data.workers is None or (_whole(data.workers) and data.workers >= 1),
        "a number of at least 1, or null for all cores",
    )
    if parse_fold(data.fold) and data.resplit:
        raise ConfigError("data.fold and data.resplit=true both split by player: choose one.")
    if data.synthetic is not None and data.root:
        raise ConfigError(
            f"data={data.name} makes its own clips and reads no data.root; for those in {data.root} choose "
            "data=tiny|mini|small|medium|full."
        )


def plain(value: Any) -> Any:
    """OmegaConf's containers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _need(key: str, value: object, good: bool, what: str) -> None:
    if not good:
        raise ConfigError(f"data.{key}={value} can't be: it must be {what}.")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def several(key: str, value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """A filter's name or names.

    Raises:
        ConfigError: Anything else.
    """
    if value is None:
        return None
    values = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not values or not all(isinstance(item, str) and item for item in values):
        raise ConfigError(f"data.{key}={value} can't be: it must be a name or a list of names.")
    return values
