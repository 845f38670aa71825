"""What is refused in files that may come from others: none of them may choose what this machine executes or reads."""

from __future__ import annotations

import json
import math
import shlex
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from sousa_bench.errors import UserError

# Keys without a dot that are no config group, and whose values may hold a path.
PLACES = ("init_from", "sweep")
MAX_BYTES = 64 * 1024 * 1024  # of a JSON file
MAX_LEVELS = 100  # of nesting in it
NUMBER = (int, float)
# A file's bytes without opening brackets, each digit a zero, whatever can stand before a number a space.
OUTLINE = bytes.maketrans(b"123456789\t\r\n:,-", b"000000000      ")
LONG_NUMBER = b" " + b"0" * 19  # may be a whole number that 64 bits can't hold, which orjson rounds
MANY_BRACKETS = 900  # may be a nesting that Python's own parser refuses and orjson doesn't


class ForeignError(UserError):
    """A file says something that could execute code or read other files."""


def check_node(node: Any, place: Path) -> None:
    """Refuse a config node, as it was read from JSON, that would do more than give values.

    Args:
        node: Without its own ``_target_``.
        place: The file, for the message.

    Raises:
        ForeignError: It holds an interpolation or a ``_target_``.
    """
    text = json.dumps(node, ensure_ascii=False, default=str)
    if found := next((word for word in ("${", "_target_") if word in text), None):
        raise ForeignError(
            f"{place}: what its model is built from holds {found}, but must be plain values: it may execute code"
        )


def check_overrides(overrides: Iterable[str]) -> None:
    """Refuse overrides of a result or a manifest that would do more than give values or choose by name.

    Raises:
        ForeignError: One interpolates, names code, or chooses a config file by its path.
    """
    if bad := next(filter(_does_more, overrides), None):
        raise ForeignError(
            f"the override {bad[:200]!r} of a result file may execute code or read other files, since it holds "
            "${, _target_ or the path of a config; write it yourself if it is yours"
        )


def _does_more(override: str) -> bool:
    text = override.replace("\\", "")  # what Hydra's grammar escapes with: $\{…\} is an interpolation too
    key, _, value = text.partition("=")
    group = key.lstrip("+~").partition("@")[0]
    chooses = "." not in group and group not in PLACES
    return "${" in text or "_target_" in text or (chooses and ("/" in value or ".." in value))


def clean(text: str) -> str:
    """Drop control characters (terminal escapes among them) and lone surrogates, which no UTF-8 file can hold."""
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def for_shell(words: Iterable[str]) -> str:
    """A command as a shell reads it; a word that a terminal can't show stands as ``$'…'``, escapes in place of it."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_escaped(word)}'" for word in words)


def _escaped(word: str) -> str:
    def shown(char: str) -> str:
        if char in "'\\":
            return f"\\{char}"
        if char.isprintable():
            return char
        lone = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"  # a byte of the command line
        return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", lone))

    return "".join(map(shown, word))


def read_json(file: Path, limit: int = MAX_BYTES, *, linked: bool = False) -> Any:
    """What a JSON file holds, whoever wrote it: no pipe or device is opened, nothing beyond ``limit`` bytes read.

    Args:
        file: The file.
        limit: Bytes.
        linked: Whether it may be a link, as the files of a hub's snapshot are.

    Raises:
        OSError: It is missing or can't be read.
        ValueError: It is no regular file, larger than ``limit``, no JSON, or nested too deeply.
    """
    state = file.stat() if linked else file.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("no regular file")
    if state.st_size > limit:
        raise ValueError(f"larger than {limit // 2**20} MiB")
    content = file.read_bytes()
    outline = content.translate(OUTLINE, b"[{")
    whole_numbers_fit = LONG_NUMBER not in b" " + outline  # the file itself can begin with one
    if whole_numbers_fit and len(content) - len(outline) < MANY_BRACKETS:
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(content)
    # What orjson refuses or reads otherwise (NaN, half a character, a torn file, …) is Python's own parser's to judge.
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_tail(file: Path, size: int) -> str:
    """The whole lines among the last ``size`` bytes of a text file, cleaned; no pipe, device or link is opened.

    Raises:
        OSError: It is missing or can't be read.
        ValueError: It is no regular file.
    """
    state = file.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("no regular file")
    with file.open("rb") as stream:
        stream.seek(max(state.st_size - size, 0))
        text = stream.read(size).decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return clean(text.partition("\n")[2] if state.st_size > size else text)


def odd_field(content: Mapping[str, Any], types: Mapping[str, Any]) -> str | None:
    """What is wrong with a foreign file's content: a field of another type than in ``types``, or endless nesting.

    A number has to be finite; a field may be missing or null.
    """
    for name, kind in types.items():
        block, _, key = name.rpartition(".")
        value = ((content.get(block) or {}) if block else content).get(key)
        if value is not None and not (isinstance(value, kind) and not isinstance(value, bool) and _is_finite(value)):
            return f"{name} can't be {clean(repr(value))[:60]}"
    containers: list[Any] = [content]
    for _ in range(MAX_LEVELS):
        if not containers:
            return None
        inner = (item for each in containers for item in (each.values() if isinstance(each, dict) else each))
        containers = [item for item in inner if isinstance(item, (dict, list))]
    return "nested too deeply" if containers else None


def read_facts(file: Path, types: Mapping[str, Any], *, linked: bool = False) -> dict[str, Any]:
    """The object that a JSON file holds, whoever wrote it, with a value of its type for each field of ``types``.

    Args:
        file: The file.
        types: As :func:`odd_field` takes them.
        linked: See :func:`read_json`.

    Raises:
        OSError: It is missing or can't be read.
        ValueError: It holds none, a field is missing or of another type, or see :func:`read_json`.
    """
    content = read_json(file, linked=linked)
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    if problem := odd_field(content, types):
        raise ValueError(problem)
    for name in types:
        block, _, key = name.rpartition(".")
        if (content[block] if block else content).get(key) is None:
            raise ValueError(f"it lacks {name}")
    return dict(content)


def is_share(value: Any) -> bool:
    """Whether a value of a foreign file is a number from 0 to 1."""
    return isinstance(value, NUMBER) and not isinstance(value, bool) and 0 <= value <= 1


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, NUMBER) or math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
