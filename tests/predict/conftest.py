from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from sousa_bench.predict.__main__ import main
from tests.trained import Trained, trained

RATE = 44_100


@pytest.fixture(scope="session")
def finished() -> Trained:
    return trained()


@pytest.fixture(scope="session")
def stroke() -> np.ndarray:
    """(samples,) a second at 44.1 kHz: four strokes of a snare-like sound."""
    time = np.arange(RATE // 4) / RATE
    noise = np.random.default_rng(0).normal(size=len(time))
    return np.tile(0.5 * np.exp(-25 * time) * (np.sin(2 * np.pi * 220 * time) + 0.5 * noise), 4).clip(-1, 1)


@pytest.fixture
def predict(finished: Trained, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The command's JSON, and its exit code as ``code``."""

    def run(*words: str | Path) -> dict[str, Any]:
        code = main([str(finished.folder), *map(str, words), "--json", "--threads", "1"])
        return {**json.loads(capsys.readouterr().out), "code": code}

    return run


def write(path: Path, samples: np.ndarray, rate: int = RATE, **kind: Any) -> Path:
    sf.write(path, samples, rate, **kind)
    return path
