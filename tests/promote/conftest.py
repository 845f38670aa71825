from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.synthetic import MODELS, STRATEGIES, write_sweep
from tests.core.conftest import config, folder  # noqa: F401 - real runs on a few clips
from tests.sweep.running import Command


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The training command with stand-ins for runs."""
    return Command(tmp_path)


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two models by two methods, with and without augmentation, three seeds; read-only."""
    root = tmp_path_factory.mktemp("promoted")
    write_sweep(root / "multirun", models=MODELS[:2], strategies=STRATEGIES[::2], seeds=(1, 2, 3), per_player=60)
    return root
