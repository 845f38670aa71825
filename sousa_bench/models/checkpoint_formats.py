"""Read tensors out of checkpoint files in the containers that official weights come in, running no code of theirs."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sousa_bench.errors import WeightsError
from sousa_bench.models.checkpoint_contents import state_dict_in

_AGAIN = "Download it again, or save its state dict alone with torch.save or safetensors."


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a checkpoint file and whatever else it holds; no code in the file is ever run.

    The container is told by its first bytes, not by its name: safetensors, or a torch file that is a bare state dict or
    holds one under ``state_dict`` (Lightning) or ``model`` (BEATs).

    Raises:
        WeightsError: It is neither, or it is cut short.
    """
    with path.open("rb") as stream:
        head = stream.read(9)
    if len(head) == 9 and head[8:] == b"{":
        return read_safetensors(path)
    return _unwrap(_read_pickle(path), path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a safetensors file, and its metadata.

    Raises:
        WeightsError: It is missing, no regular file, or none.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is {'no regular file' if path.exists() else 'missing'}; copy it again.")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is no readable safetensors file ({error}); copy it again.") from error


class _Inert:
    """Stands for any class that a pickle names: Lightning files hold callbacks and arguments, unused here."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _read_pickle(path: Path) -> Any:
    _assert_stored(path)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError):
        names = []  # Not a zip archive: an old torch file has no list, and loads below or not at all.
    # weights_only refuses every class that it does not know; the inert one takes its place, so none is imported.
    inert: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in names]
    try:
        with torch.serialization.safe_globals(inert):
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except (RuntimeError, ValueError):  # An old, non-zip file can't be memory-mapped.
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL |trying to load )`?([\w.]+)", str(error))
        what = f"it asks for {code[1]} to be run" if code else "it is none, or it asks for code to be run"
        raise WeightsError(f"{path} is no checkpoint of plain tensors: {what}. {_AGAIN}") from error
    except Exception as error:  # whatever torch makes of a file that is none
        reason = "" if isinstance(error, KeyError) else str(error).strip().split(". ")[0].splitlines()[:1]
        raise WeightsError(f"{path} can't be read ({''.join(reason) or 'no checkpoint'}). {_AGAIN}") from error


def _assert_stored(path: Path) -> None:
    """Refuse a zip archive with compressed parts: torch.save stores, and what is compressed may unpack to any size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} can't be read ({error}). {_AGAIN}") from error
    if packed:
        raise WeightsError(f"{path} is no checkpoint that torch.save wrote: its parts are compressed. {_AGAIN}")


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    extra: dict[str, Any] = {}
    if isinstance(content, Mapping):
        content, extra = state_dict_in(content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} holds no state dict (a mapping of keys to tensors), alone or under state_dict or model."
        )
    return dict(content), extra
