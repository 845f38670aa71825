"""The recipe for a method that the PEFT library has: one config."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousa_bench.results.result import read_result
from tests.extending import recipes


@pytest.mark.slow
def test_it_trains_and_its_keys_are_checked_before_a_sweep_starts(tmp_path: Path) -> None:
    recipes.write("A fine-tuning method", tmp_path)
    done = recipes.train(tmp_path, "-m", "sweep=own", "peft=rslora", "peft.r=2,4")
    assert done.returncode == 0, done.stdout + done.stderr
    results = [read_result(file.parent) for file in tmp_path.glob("multirun/own/*/result.json")]
    assert {(result["status"], result["config"]["strategy"]) for result in results} == {("completed", "rslora")}
    one, other = sorted(result["parameters"]["adapter"] for result in results)
    assert other == 2 * one
    file = tmp_path / "my_conf" / "peft" / "rslora.yaml"
    file.write_text(file.read_text() + "lora_alhpa: 3\n")
    refused = recipes.train(tmp_path, "-m", "sweep=wrong", "peft=rslora")
    assert refused.returncode == 2
    assert "has no key 'lora_alhpa'; did you mean lora_alpha" in refused.stderr
    assert not (tmp_path / "multirun" / "wrong").exists()
