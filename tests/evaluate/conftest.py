from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sousa_bench.evaluate.__main__ import main
from tests.trained import Trained, home, trained


@pytest.fixture(scope="session")
def finished() -> Trained:
    return trained()


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict]:
    """The command in this process, without images; its result."""
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(home() / "cache"))
    monkeypatch.delenv("SOUSA_ROOT", raising=False)

    def run(finished: Trained, *words: str, folder: Path = tmp_path / "evaluated", code: int = 0) -> dict:
        done = main([str(finished.folder), *words, "--no-images", "--threads", "1", "--output-dir", str(folder)])
        assert done == code
        return json.loads((folder / "result.json").read_text()) if code == 0 else {}

    return run
