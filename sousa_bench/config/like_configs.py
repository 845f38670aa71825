"""Configs that differ in plain numbers alone: kept once, whatever their number, and made again when they are needed."""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.config_errors import explained
from sousa_bench.config.overrides import split
from sousa_bench.config.run_config import RunConfig, value_at, values_of

NUMBER = re.compile(r"(?!hydra\.)[a-z]\w*(\.\w+)*=(0|[1-9]\d*)(\.\d+)?(e-?\d+)?", re.ASCII)
"""An override of a key by a plain number, which chooses nothing; Python reads the number as Hydra does."""


class Place:
    """What stands for a number while the values are resolved; whoever does more than hand it on gets an error."""

    def __init__(self, key: str) -> None:
        self.key = key

    def _is_no_value(self, *_: Any) -> NoReturn:
        raise TypeError(f"{self.key}: the number isn't known here")

    __str__ = __repr__ = __format__ = __bytes__ = __bool__ = __len__ = __iter__ = _is_no_value
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _is_no_value
    __int__ = __float__ = __index__ = __round__ = __abs__ = __neg__ = _is_no_value
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _is_no_value
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __pow__ = __rpow__ = _is_no_value


class Kind:
    """What such configs have in common.

    Args:
        config: One of them.
        keys: Those of the numbers.
    """

    def __init__(self, config: DictConfig, keys: Sequence[str]) -> None:
        self._pickled = pickle.dumps(config)  # made again in a third of the time that copying takes
        self._keys = keys
        self._changed: dict[tuple[str, str], Kind] = {}

    def copy(self) -> DictConfig:
        """The config of the first of them."""
        config: DictConfig = pickle.loads(self._pickled)  # noqa: S301 - written above
        return config

    def having(self, key: str, value: Any) -> Kind:
        """The same with another value of a key, which is one for all of them then."""
        if (name := (key, repr(value))) not in self._changed:
            rest = [own for own in self._keys if own != key]
            self._changed[name] = Kind(RunConfig(self.copy()).having(key, value).whole(), rest)
        return self._changed[name]

    @functools.cached_property
    def values(self) -> dict[str, Any] | None:
        """Resolved as by :func:`values_of`, a :class:`Place` wherever a number goes.

        None where a number does more than appear: it stands inside a text, or a function looks at it.
        """
        config = self.copy()
        first = values_of(config)
        numbers = {key: value_at(first, key) for key in self._keys}
        with suppress(Exception):  # whatever a function that an interpolation calls makes of a place
            config._set_flag("allow_objects", True)
            for key in self._keys:
                OmegaConf.update(config, key, Place(key))
            config.hydra.overrides.task = config.hydra.job.override_dirname = "???"  # they hold the numbers, too
            found = values_of(config)
            if repr(with_numbers(found, numbers)) == repr(first):
                return found
        return None


def with_numbers(node: Any, numbers: Mapping[str, int | float]) -> Any:
    """A copy of plain containers with the number of its key in each place."""
    if isinstance(node, dict):
        return {key: with_numbers(item, numbers) for key, item in node.items()}
    if isinstance(node, list):
        return [with_numbers(item, numbers) for item in node]
    return numbers[node.key] if type(node) is Place else node


class LikeConfig(RunConfig):
    """The config of a run that is like others but for its numbers.

    Args:
        kind: What they have in common.
        overrides: The run's.
        numbers: Those that the kind has not.
    """

    def __init__(self, kind: Kind, overrides: Sequence[str], numbers: Sequence[str]) -> None:
        self._kind = kind
        self._overrides = overrides
        self._numbers = numbers

    def whole(self) -> DictConfig:
        """A new object, with the numbers and with what Hydra notes of its overrides."""
        config = self._kind.copy()
        parsed = [_parsed(word) for word in self._overrides]
        with explained():
            ConfigLoaderImpl._apply_overrides_to_config(
                [one for one in parsed if one.input_line in self._numbers], config
            )
        job, own = config.hydra.job, [one for one in parsed if not one.is_hydra_override()]
        config.hydra.overrides.task = [one.input_line for one in own]
        form = job.config.override_dirname
        job.override_dirname = get_overrides_dirname(
            own, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
        )
        return config

    @property
    def values(self) -> Mapping[str, Any]:
        """See :func:`values_of`."""
        if self._kind.values is None:
            return values_of(self.whole())
        return dict(with_numbers(self._kind.values, dict(map(_number, self._numbers))))

    def having(self, key: str, value: Any) -> RunConfig:
        """The same with another value of a key that is there."""
        rest = [word for word in self._numbers if split(word)[0] != key]
        return LikeConfig(self._kind.having(key, value), self._overrides, rest)


def _number(word: str) -> tuple[str, int | float]:
    key, text = split(word)
    return key, int(text) if text.isdecimal() else float(text)


@functools.lru_cache(maxsize=1024)
def _parsed(word: str) -> Override:
    return OverridesParser.create().parse_override(word)
