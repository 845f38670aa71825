"""A real search of three trials, and the best one promoted from its weights."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.core.conftest import SMALL
from tests.sweep.running import Command

pytestmark = pytest.mark.slow


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


def test_three_trials_and_the_best_goes_on(tmp_path: Path) -> None:
    train = Command(tmp_path, [sys.executable, "-m", "sousa_bench.train"], SOUSA_BENCH_CACHE=str(tmp_path / "cache"))
    words = ("search=ia3", "model=efficientat", *SMALL, "sweep=s", "hydra.sweeper.n_trials=3", "n_jobs=1")
    output = train(*words, timeout=400)
    assert "Search ended: 3 of 3 trials: 3 completed" in output
    found = {result["sweep"]["trial"]: result for result in results(tmp_path / "multirun" / "s")}
    assert found[0]["resolved_config"]["peft"]["learning_rate"] == 5e-3
    assert len({result["resolved_config"]["peft"]["learning_rate"] for result in found.values()}) == 3
    assert {result["config"]["strategy"] for result in found.values()} == {"ia3"}
    [again] = re.findall(r"Run it: python -m sousa_bench\.train (.*)", output)
    assert "Completed already" in train(*shlex.split(again), timeout=200)

    promote = Command(
        tmp_path, [sys.executable, "-m", "sousa_bench.promote"], SOUSA_BENCH_CACHE=str(tmp_path / "cache")
    )
    promote("multirun/s", "--top", "1", "--warm", "trainer.max_epochs=1", "sweep=next", timeout=400)
    [result] = results(tmp_path / "multirun" / "next")
    best = max(found.values(), key=lambda each: each["metrics"]["val_acc"])
    assert result["lineage"]["warm"] is True
    assert result["lineage"]["from"][0]["val_acc"] == best["metrics"]["val_acc"]
    assert result["status"] == "completed"
