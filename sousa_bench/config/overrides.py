"""How overrides are spelt, one and lists of them. Imports nothing heavy: the analysis, without Hydra, uses them too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sousa_bench.errors import ConfigError

PATTERN = "data.group_pattern"
"""The key whose value is a regular expression."""

COMBINATIONS, PARAMS = "hydra.sweeper.combinations", "hydra.sweeper.params."


def split(override: str) -> tuple[str, str]:
    """Key, without Hydra's ``+`` and ``~``, and value of an override."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def with_quotes(words: Sequence[str]) -> list[str]:
    """The words of a command line, a pattern in quotes: the shell took its own, and Hydra's grammar wants some too."""
    return [
        f"{key}={quoted(value)}" if key == PATTERN and value not in ("", "null") and value[0] not in "'\"" else word
        for word, (key, _, value) in ((word, word.partition("=")) for word in words)
    ]


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back."""
    if re.fullmatch(r"[\w./@+-]+", text, re.ASCII):
        return text
    # To Hydra a backslash is an escape only before a quote, the closing one too.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def literal(value: Any) -> str:
    """A value as Hydra reads it back."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) else repr(value)


def in_quotes(text: str) -> str:
    """A text in double quotes, since a shell's single quotes stand around the whole."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def combinations_override(combinations: Sequence[Sequence[str]]) -> str:
    """The override that asks for a sweep over these combinations, where the product of the values would hold others."""
    rows = ("[" + ",".join(in_quotes(word) for word in combination) + "]" for combination in combinations)
    return f"{COMBINATIONS}=[{','.join(rows)}]"


def inner_overrides(override: str) -> list[str]:
    """The overrides inside one of the sweeper's, which asks for combinations or values; none inside any other."""
    key, value = split(override)
    if key.startswith(PARAMS):
        return [f"{key.removeprefix(PARAMS)}={value}"]
    texts = re.finditer(r"""(["'])((?:\\.|(?!\1)[^\\])*)\1""", value if key == COMBINATIONS else "")
    return [re.sub(r"\\(.)", r"\1", text[2]) for text in texts]


def check_combinations(value: Any, words: Sequence[str]) -> list[list[str]]:
    """The combinations that a config asks for, as lists of overrides.

    Args:
        value: A list of lists of ``key=value``, or None.
        words: The overrides beside it, whose keys no combination may set.

    Raises:
        ConfigError: It is something else, or a key is set twice.
    """
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{COMBINATIONS}={value}: it is a list of combinations, such as [['model=ast','peft=lora']]")
    beside = [split(word)[0] for word in words]
    for combination in value:
        good = isinstance(combination, Sequence) and not isinstance(combination, str) and combination
        if not good or not all(isinstance(word, str) and "=" in word for word in combination):
            raise ConfigError(
                f"{COMBINATIONS}: {combination!r} is no list of overrides, such as ['model=ast','peft=lora']"
            )
        keys = [split(word)[0] for word in combination]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ConfigError(f"{COMBINATIONS}: {list(combination)} sets {twice} twice")
        if both := next((key for key in beside if key in keys), None):
            raise ConfigError(f"{both}: set both in {COMBINATIONS} and on the command line; leave out one")
    return [list(combination) for combination in value]
