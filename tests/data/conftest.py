"""Datasets for the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from noise_data import rows, write_audio, write_hub, write_labels


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's caches or data."""
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOUSA_ROOT", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def generator_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generator")
    table = rows()
    write_audio(root, table)
    write_labels(root, table)
    return root


@pytest.fixture
def generator(generator_copy: Path, tmp_path: Path) -> Path:
    """A generator folder of 240 clips that a test may spoil."""
    return Path(shutil.copytree(generator_copy, tmp_path / "sousa"))


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's layout, 120 clips of 20 classes, two shards a split."""
    root = tmp_path_factory.mktemp("hub")
    write_hub(root, rows(rudiments=20))
    return root
