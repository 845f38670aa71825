"""`experiment=models` holds every published model, and says which of them it can't start without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sousa_bench.catalogue.model_facts import model_facts
from tests.sweep.running import Command

ROOT = Path(__file__).resolve().parents[2]


def test_it_holds_every_model_that_has_published_weights() -> None:
    config = OmegaConf.load(ROOT / "conf" / "experiment" / "models.yaml")
    published = [m["model"] for m in model_facts() if any(row["weights"] == "official" for row in m["variants"])]
    assert config.hydra.sweeper.params.model.split(",") == published


@pytest.mark.slow
def test_a_model_without_small_weights_is_left_out_with_the_reason(tmp_path: Path) -> None:
    train = Command(tmp_path, [sys.executable, "-m", "sousa_bench.train"])
    said = train(
        "-m", "experiment=models", "model=ast,whisper", "resume=failed", "sweep=s", code=1
    )  # nothing failed yet
    assert said.count("ships no embedded weights for model=whisper") == 3
    assert "Sweep ended: 0 of 3 runs completed, 3 more left out as impossible, " in said
    jobs = json.loads((tmp_path / "multirun" / "s" / "sweep.json").read_text())["jobs"]
    found = [
        (job["status"], *(word for word in job["overrides"] if word.startswith(("model=", "peft=")))) for job in jobs
    ]
    methods = ("peft=lora", "peft=head", "peft=full")
    assert found == [
        *(("skipped", "model=ast", method) for method in methods),
        *(("refused", "model=whisper", method) for method in methods),
    ]
