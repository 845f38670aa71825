"""Wrong constants for the tests of the tests."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def patched(objects: Iterable[object], name: str, value: object) -> Iterator[None]:
    """Give an attribute of all objects another value for a while.

    pytest's ``monkeypatch`` would do, but since version 9 it takes a module's buffers and children, which torch keeps
    outside ``__dict__``, for inherited attributes and deletes them at the end.
    """
    before = [(thing, getattr(thing, name)) for thing in objects]
    try:
        for thing, _ in before:
            setattr(thing, name, value)
        yield
    finally:
        for thing, old in before:
            setattr(thing, name, old)
