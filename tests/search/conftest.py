from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sweep.running import ROOT, Command

pytest.importorskip("optuna")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path, [sys.executable, str(ROOT / "tests" / "search" / "app.py")])
