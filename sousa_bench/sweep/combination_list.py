"""A sweep over an explicit list of combinations, where the product of the values would hold others too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sousa_bench.config.overrides import quoted, split
from sousa_bench.errors import ConfigError

KEY = "hydra.sweeper.combinations"


def crossed(combinations: Sequence[Sequence[str]], rest: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each combination with each list of the other overrides, combination by combination."""
    return [[*others, *combination] for combination in combinations for others in rest]


def checked(value: Any) -> list[list[str]]:
    """The combinations of a config, as lists of overrides.

    Args:
        value: A list of lists of ``key=value``, or None.

    Raises:
        ConfigError: It is something else, or a combination sets a key twice.
    """
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{KEY}={value}: it is a list of combinations, such as [['model=ast','peft=lora']]")
    for combination in value:
        good = isinstance(combination, Sequence) and not isinstance(combination, str) and combination
        if not good or not all(isinstance(word, str) and "=" in word for word in combination):
            raise ConfigError(f"{KEY}: {combination!r} is no list of overrides, such as ['model=ast','peft=lora']")
        keys = [split(word)[0] for word in combination]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ConfigError(f"{KEY}: {list(combination)} sets {twice} twice")
    return [list(combination) for combination in value]


def keys_of(combinations: Sequence[Sequence[str]]) -> set[str]:
    """Every key that a combination sets."""
    return {split(word)[0] for combination in combinations for word in combination}


def check_apart(combinations: Sequence[Sequence[str]], words: Sequence[str]) -> None:
    """Refuse a key that stands both in a combination and beside the combinations.

    Raises:
        ConfigError: It names the key.
    """
    own = keys_of(combinations)
    if both := next((split(word)[0] for word in words if split(word)[0] in own), None):
        raise ConfigError(f"{both}: set both in {KEY} and on the command line; leave out one")


def literal(value: Any) -> str:
    """A value as Hydra reads it back."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) else repr(value)


def listed(combinations: Sequence[Sequence[str]]) -> str:
    """The override that asks for these combinations."""
    rows = ("[" + ",".join(in_quotes(word) for word in combination) + "]" for combination in combinations)
    return f"{KEY}=[{','.join(rows)}]"


def in_quotes(text: str) -> str:
    """A text in double quotes, since a shell's single quotes stand around the whole."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
