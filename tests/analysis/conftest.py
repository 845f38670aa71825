from __future__ import annotations

from pathlib import Path

import pytest

from sousa_bench.analysis import Study, collect, compare
from tests.analysis.synthetic import MODELS, STRATEGIES, write_sweep


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 24 runs of the whole comparison, one seed; treat as read-only."""
    return write_sweep(tmp_path_factory.mktemp("comparison") / "multirun")


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that still runs: 9 completed, 1 failed, 1 timed out, 2 running, 11 not started; read-only."""
    statuses = {3: "failed", 7: "timeout", 11: "running", 12: "running"}
    root = tmp_path_factory.mktemp("unfinished") / "multirun"
    return write_sweep(root, statuses=statuses, missing=tuple(range(13, 24)))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two strategies, with and without augmentation, three seeds; read-only."""
    root = tmp_path_factory.mktemp("seeded") / "multirun"
    return write_sweep(root, models=MODELS[:2], strategies=STRATEGIES[:2], seeds=(1, 2, 3))


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model, two strategies, with a factor of its own: ``peft.r``; read-only."""
    root = tmp_path_factory.mktemp("ranks") / "multirun"
    return write_sweep(root, models=("ast",), strategies=("lora", "adalora"), extra={"peft.r": (4, 8, 16)})


@pytest.fixture(scope="session")
def comparison_study(comparison: Path) -> Study:
    return compare(collect([comparison]))


@pytest.fixture(scope="session")
def seeded_study(seeded: Path) -> Study:
    return compare(collect([seeded]))
