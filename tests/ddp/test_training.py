"""Two CPU processes (gloo) inside a sweep give the numbers of one process with the same global batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.running import ROOT, Command, finish, interrupt, until

WORDS = [
    "-m",
    "sweep=d",
    "data.synthetic.clips=40",
    "data.synthetic.split_players=[20,10,20]",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "logger=none",
]
TRAIN = [sys.executable, "-m", "sousa_bench.train"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], dict[int, dict[str, Any]]]:
    """A sweep of one and two processes; keyed by (method, augmentation), then by the number of processes.

    BEATs sees clips of several lengths, and masks the padding. Micro-batches are smaller than a rank's share, and the
    last batch of an epoch holds one clip, so that the second rank has none. AdaLoRA adds a loss of its own.
    """
    folder = tmp_path_factory.mktemp("ddp")
    words = ["model=beats", "peft=lora,adalora", "trainer.batch_size=5", "trainer.micro_batch_size=2"]
    words += ["augmentation=off,on", "trainer.devices=1,2", f"data.cache_dir={folder / 'cache'}"]
    Command(folder, TRAIN, OMP_NUM_THREADS="1")(*WORDS, *words, timeout=400)
    found: dict[tuple[str, bool], dict[int, Any]] = {}
    for path in folder.glob("multirun/d/*/result.json"):
        result = json.loads(path.read_text())
        config = result["config"]
        found.setdefault((config["strategy"], config["augmentation"]), {})[config["trainer.devices"]] = result
    assert sorted(len(pair) for pair in found.values()) == [2, 2, 2, 2]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "adalora"])
@pytest.mark.parametrize("augmentation", [False, True])
def test_two_processes_give_the_same_numbers_as_one(results: Any, method: str, augmentation: bool) -> None:
    one, two = results[method, augmentation][1], results[method, augmentation][2]
    assert one["data"]["counts"]["train"] % 5 == 1
    for single, double in zip(one["history"], two["history"], strict=True):
        for key in ("train_loss", "val_loss", "learning_rate"):
            assert double[key] == pytest.approx(single[key], rel=1e-5), key
    for key in ("test_loss", "test_acc", "test_f1_macro", "val_acc"):
        assert two["metrics"][key] == pytest.approx(one["metrics"][key], rel=1e-5), key
    assert one["history"][0]["train_loss"] != one["history"][1]["train_loss"]
    assert two["efficiency"]["steps"] == one["efficiency"]["steps"] == 8
    assert two["parameters"] == one["parameters"]


@pytest.mark.slow
def test_an_interrupted_run_over_two_processes_goes_on(tmp_path: Path) -> None:
    """All ranks stop at the same step; resumed, the run ends with the numbers of one that nobody stopped."""
    words = [*WORDS, "model=efficientat", "peft=lora", "augmentation=off", "trainer.devices=2", "trainer.batch_size=2"]
    words += ["trainer.max_epochs=4", f"data.cache_dir={tmp_path / 'cache'}"]
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    Command(tmp_path / "whole", TRAIN, OMP_NUM_THREADS="1")(*words, timeout=300)
    command = Command(tmp_path / "stopped", TRAIN, OMP_NUM_THREADS="1")
    process = command.start(*words)

    def training() -> bool:
        found = list((tmp_path / "stopped").glob("multirun/d/*/progress.json"))
        return bool(found) and json.loads(found[0].read_text()).get("step", 0) >= 1

    until(training, timeout=60)
    interrupt(process)
    finish(process, 130)
    assert list(command.statuses().values()) == ["interrupted"]
    command(*words, timeout=300)
    whole, stopped = (
        json.loads(next((tmp_path / name).glob("multirun/d/*/result.json")).read_text())
        for name in ("whole", "stopped")
    )
    assert stopped["attempts"] == 2
    keys = ("train_loss", "val_loss", "val_acc")
    assert [[e[k] for k in keys] for e in stopped["history"]] == [[e[k] for k in keys] for e in whole["history"]]
    assert stopped["metrics"] == whole["metrics"]


@pytest.mark.slow
def test_without_a_process_for_each_device_it_refuses(tmp_path: Path) -> None:
    """Lightning would start the whole command again for each device."""
    code = "from sousa_bench.training.distributed import strategy; strategy(2, 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert "trainer.devices=2 needs a process each" in done.stderr
