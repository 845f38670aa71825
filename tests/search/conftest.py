from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweep.running import Command

pytest.importorskip("optuna")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)
