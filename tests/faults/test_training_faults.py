"""Faults of real training runs, through the real command line, on the tiny model and a handful of clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_faults import check_one_resume_completes
from tests.sweep.running import Command, finish, interrupt, until

pytestmark = pytest.mark.faults

SMALL = (
    "model=ast",
    "peft=lora",
    "logger=none",
    "n_jobs=1",
    "data.synthetic.clips=240",
    "trainer.max_epochs=2",
    "trainer.batch_size=8",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path: Path, cache: Path) -> Command:
    return Command(tmp_path, [sys.executable, "-m", "sousa_bench.train"], SOUSA_BENCH_CACHE=str(cache))


def by_override(command: Command, key: str) -> dict[Any, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in command.folder.glob("multirun/**/result.json")]
    return {result["config"].get(key): result for result in found}


def test_nan_loss(train: Command) -> None:
    words = ["-m", "sweep=a", *SMALL, "trainer.learning_rate=0.001,1e30"]
    train(*words, code=1, timeout=300)
    results = by_override(train, "trainer.learning_rate")
    assert results[0.001]["status"] == "completed"
    assert results[1e30]["status"] == "failed"
    assert results[1e30]["failure"]["phase"] == "fit"
    assert results[1e30]["failure"]["type"] == "NonFiniteLossError"


def test_out_of_memory_in_training_halves_the_micro_batch(train: Command) -> None:
    hungry = ("model._target_=tests.faults.hungry.build", "+model.inner=sousa_bench.models.ast.build")
    words = ["-m", "sweep=a", *SMALL, *hungry, "+model.most_clips=0,2,64"]
    output = train(*words, code=1, timeout=300)
    results = by_override(train, "model.most_clips")
    assert results[64]["status"] == "completed"
    assert results[64]["efficiency"]["micro_batch_size"] == 8
    assert results[2]["status"] == "completed"
    assert results[2]["efficiency"]["micro_batch_size"] == 2
    assert any("micro-batches of 2" in warning for warning in results[2]["warnings"])
    assert results[2]["metrics"]["test_loss"] == pytest.approx(results[64]["metrics"]["test_loss"], rel=1e-3)
    assert results[0]["status"] == "failed"
    assert results[0]["failure"]["cause"] == "oom"
    assert "OutOfMemoryError" in output


def test_unreadable_clip(train: Command, tmp_path: Path) -> None:
    train.environment["SOUSA_BENCH_CACHE"] = str(tmp_path / "own_cache")
    train("-m", "sweep=made", *SMALL, "trainer.max_epochs=1", timeout=300)
    [audio] = (tmp_path / "own_cache" / "synthetic").glob("*/audio")
    clip = sorted(path for path in audio.rglob("*") if path.is_file())[0]
    whole = clip.read_bytes()
    clip.write_bytes(whole[:100])
    words = ["-m", f"data.root={audio.parent}", "data=tiny", *(word for word in SMALL if "synthetic" not in word)]
    output = train(*words, "sweep=a", code=1, timeout=300)
    assert clip.name in output
    assert "Traceback" not in output
    failed = json.loads(next(train.folder.glob("multirun/a/*/result.json")).read_text())
    assert (failed["status"], failed["failure"]["phase"]) == ("failed", "data")
    train(*words, "sweep=b", "data.on_bad_clip=skip", timeout=300)
    skipped = json.loads(next(train.folder.glob("multirun/b/*/result.json")).read_text())
    assert skipped["status"] == "completed"
    assert any(clip.name in warning or clip.stem in warning for warning in skipped["warnings"]), skipped["warnings"]
    clip.write_bytes(whole)
    train(*words, "sweep=a", timeout=300)


def test_torn_cache(train: Command, cache: Path) -> None:
    words = ["-m", "sweep=a", *SMALL]
    train(*words, timeout=300)
    [first] = train.results().values()
    for number, file in enumerate(sorted(cache.rglob("*.s16"))):
        data = file.read_bytes()
        file.write_bytes((data[: len(data) // 2], b"", b"\0" * len(data))[number % 3])
    train(*words, "force=true", timeout=300)
    for path in train.folder.glob("multirun/a/*/result.json"):
        assert json.loads(path.read_text())["metrics"] == first["metrics"]


def test_a_sweep_that_was_killed_ends_with_the_numbers_of_one_that_was_not(train: Command, tmp_path: Path) -> None:
    calm = Command(tmp_path / "calm", train.program, **{"SOUSA_BENCH_CACHE": train.environment["SOUSA_BENCH_CACHE"]})
    calm.folder.mkdir()
    words = ["-m", "sweep=a", *SMALL, "peft=adalora,lora", "trainer.max_epochs=3", "trainer.checkpoint_minutes=0.001"]
    calm(*words, timeout=300)
    process = train.start(*words)
    until(lambda: list(train.folder.glob("multirun/a/*adalora*/checkpoints/last.pt")), 300)
    process.kill()
    process.wait()
    until(lambda: not train.processes(), 10)
    process = train.start(*words)
    until(lambda: list(train.folder.glob("multirun/a/ast_lora_*/checkpoints/last.pt")), 300)
    interrupt(process)
    finish(process, 130)
    check_one_resume_completes(train, words)
    wanted, got = (
        {path.parent.name: json.loads(path.read_text()) for path in command.folder.glob("multirun/a/*/result.json")}
        for command in (calm, train)
    )
    assert wanted.keys() == got.keys()
    for name, result in wanted.items():
        assert result["metrics"] == got[name]["metrics"]
        assert result["per_class"] == got[name]["per_class"]
