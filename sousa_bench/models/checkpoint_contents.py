"""Keys and shapes of a checkpoint file, read without its values, without running any of its code and without torch."""

from __future__ import annotations

import functools
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LARGEST_INDEX = 64 * 2**20
"""Bytes; the part of a file that lists its tensors is some 100 kB."""

_PICKLE = b"\x80"
"""The first byte of a pickle, which torch's old files begin with."""

_NEITHER = "is neither a safetensors file nor one that torch.save wrote"
_BEFORE_OLD_CONTENT = 3
"""Pickles before the content in a torch file from before the zip format: a number, a version, facts of the system."""


@dataclass(frozen=True)
class Contents:
    """What lies in a checkpoint file.

    Attributes:
        shapes: Key → shape of its tensor.
        extra: What stands beside the tensors (BEATs: ``cfg``).
    """

    shapes: Mapping[str, tuple[int, ...]]
    extra: Mapping[str, Any] = field(default_factory=dict)


def contents(path: Path) -> Contents | None:
    """Look into a file: safetensors, or torch's with a state dict, bare or inside.

    Returns:
        None for a file that can't be read so; whoever loads its values says what is wrong with it.
    """
    state = path.stat()
    return _contents(path.resolve(), state.st_mtime_ns, state.st_size)


def broken(path: Path) -> str | None:
    """What is wrong with a file that can be no checkpoint, or not a whole one; None where nothing shows it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
        if head[8:] == b"{":
            return None if contents(path) else "is cut short, or no safetensors file"
        if not head.startswith(b"PK"):
            return None if head.startswith(_PICKLE) else _NEITHER
        if not zipfile.is_zipfile(path):
            return "is cut short"
        with zipfile.ZipFile(path) as archive:
            return None if any(name.endswith("/data.pkl") for name in archive.namelist()) else _NEITHER
    except (OSError, zipfile.BadZipFile) as error:
        return f"can't be read ({error.strerror if isinstance(error, OSError) else error})"


@functools.lru_cache(maxsize=64)
def _contents(path: Path, _mtime: int, _size: int) -> Contents | None:
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
            stream.seek(0)
            if head[8:] == b"{":
                return _of_safetensors(stream)
            content = _of_zip(stream) if head.startswith(b"PK") else _of_old_file(stream)
    except Exception:  # whatever a file that is cut short or no checkpoint leads to
        return None
    if not isinstance(content, Mapping):
        return None
    state, extra = state_dict_in(content)
    shapes = {str(key): value.size for key, value in state.items() if isinstance(value, _Tensor)}
    return Contents(shapes, extra) if shapes else None


def state_dict_in(content: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """The state dict of a torch file, bare or under ``state_dict`` (Lightning) or ``model`` (BEATs), and the rest."""
    for inner in ("state_dict", "model"):
        if isinstance(content.get(inner), Mapping):
            return content[inner], {key: value for key, value in content.items() if key != inner}
    return content, {}


def _of_safetensors(stream: IO[bytes]) -> Contents:
    length = int.from_bytes(stream.read(8), "little")
    header = json.loads(stream.read(min(length, LARGEST_INDEX)))
    extra = header.pop("__metadata__", {})
    if 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0) > stream.seek(0, 2):
        raise ValueError("cut short")
    return Contents({key: tuple(entry["shape"]) for key, entry in header.items()}, extra)


def _of_zip(stream: IO[bytes]) -> Any:
    with zipfile.ZipFile(stream) as archive:
        [entry] = [each for each in archive.infolist() if each.filename.endswith("/data.pkl")]
        if entry.file_size > LARGEST_INDEX:
            return None
        with archive.open(entry) as index:
            return _Index(index).load()


def _of_old_file(stream: IO[bytes]) -> Any:
    for _ in range(_BEFORE_OLD_CONTENT):
        _Index(stream).load()
    return _Index(stream).load()


@dataclass(frozen=True)
class _Tensor:
    """Stands for a tensor."""

    size: tuple[int, ...]


class _Nothing:
    """Stands for any class or function that a file names, and for what these would have made."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> _Nothing:
        return self

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None:
        """As a list's."""

    def extend(self, items: object) -> None:
        """As a list's."""


def _tensor(storage: object, offset: int, size: tuple[int, ...], *rest: object) -> _Tensor:
    return _Tensor(tuple(map(int, size)))


def _parameter(tensor: object, *rest: object) -> object:
    return tensor


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Index(pickle.Unpickler):
    """Reads the list of tensors; nothing that the file names is imported."""

    def find_class(self, module: str, name: str) -> Any:
        """One of few stand-ins, whatever the file names."""
        return _KNOWN.get((module, name), _Nothing)

    def persistent_load(self, pid: Any) -> Any:
        """A tensor's values, which stay where they are."""
        return _Nothing()
