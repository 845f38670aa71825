"""Wrong constants for the tests of the tests."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sousa_bench.models.vit import VisionTransformer


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


Wrong = tuple[Iterable[object], str, object]
WRONG_BLOCKS: dict[str, Callable[[VisionTransformer], Wrong]] = {
    "tanh GELU": lambda b: ([layer.mlp.act for layer in b.layers], "approximate", "tanh"),
    "attention scale": lambda b: ([layer.attention for layer in b.layers], "scale", 1.1 * b.layers[0].attention.scale),
    "LayerNorm eps": lambda b: ([n for x in b.layers for n in (x.norm1, x.norm2)], "eps", 1e-3),
    "norms on the other side": lambda b: (list(b.layers), "post_norm", not b.layers[0].post_norm),
}
"""What is wrong → the objects, their attribute and its wrong value, in a vision transformer."""
