from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture(scope="package", autouse=True)
def _without_autograd() -> Iterator[None]:
    with torch.no_grad():  # Nothing here trains.
        yield


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Paths for checkpoint files of hundreds of megabytes; the files go away with the test module."""
    files: list[Path] = []

    def path(name: str) -> Path:
        files.append(tmp_path_factory.mktemp("official") / name)
        return files[-1]

    yield path
    for file in files:
        file.unlink(missing_ok=True)


class ModulePatch:
    """``setattr`` on torch modules, undone after the test.

    pytest's own monkeypatch deletes on undo what it did not find in ``__dict__``, and a module's buffers and children
    are not there.
    """

    def __init__(self) -> None:
        self._undo: list[tuple[nn.Module, str, object]] = []

    def setattr(self, module: nn.Module, name: str, value: object) -> None:
        self._undo.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def undo(self) -> None:
        for module, name, value in reversed(self._undo):
            setattr(module, name, value)


@pytest.fixture
def monkeypatch() -> Iterator[ModulePatch]:
    patch = ModulePatch()
    yield patch
    patch.undo()
