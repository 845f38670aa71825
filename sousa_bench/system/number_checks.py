"""What kind of number a value of a config is; true and false are none."""

from __future__ import annotations

from typing import TypeGuard


def is_whole(value: object, least: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number, of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_positive(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number above 0."""
    return is_number(value) and value > 0
