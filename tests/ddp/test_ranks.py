"""A run over several processes: started together, ended together, with one record that names the cause."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from sousa_bench.sweep.device_processes import verdict
from sousa_bench.sweep.resources import slots
from sousa_bench.sweep.supervised_process import Exit
from tests.sweep.running import Command, finish, interrupt, running, until

TRIO = ["-m", "sweep=s", "seed=1,2,3", "+trainer.devices=2"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def variables(folder: Path, rank: int) -> dict[str, str]:
    log = folder / ("run.log" if rank == 0 else f"run_rank{rank}.log")
    return ast.literal_eval(next(line for line in log.read_text().splitlines() if line.startswith("{")))


@pytest.mark.slow
def test_each_rank_has_torchruns_variables(command: Command) -> None:
    command(*TRIO)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    first, second = (variables(command.of(1), rank) for rank in (0, 1))
    assert (first["RANK"], first["LOCAL_RANK"], first["WORLD_SIZE"]) == ("0", "0", "2")
    assert (second["RANK"], second["LOCAL_RANK"], second["WORLD_SIZE"]) == ("1", "1", "2")
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert first["TORCHELASTIC_RUN_ID"] == second["TORCHELASTIC_RUN_ID"]
    assert len(list(command.folder.glob("multirun/s/**/result.json"))) == 3
    assert command.processes() == []


def test_a_single_run(command: Command) -> None:
    command("seed=1", "+trainer.devices=2")
    [path] = command.folder.glob("outputs/*/result.json")
    assert json.loads(path.read_text())["status"] == "completed"
    assert (variables(path.parent, 0)["RANK"], variables(path.parent, 1)["RANK"]) == ("0", "1")
    assert command.processes() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words", "cause"),
    [
        ("kill", "rank 1: killed by signal 9", "signal 9"),
        ("raise", "rank 1: RuntimeError: the task broke", "exception"),
        ("memory", "rank 1: MemoryError", "oom"),
    ],
)
def test_a_rank_that_dies_takes_the_others_down(command: Command, fault: str, words: str, cause: str) -> None:
    slow = ["task.steps=400", "task.seconds=0.05"]  # the first rank would go on for 20 seconds
    command(*TRIO[:2], "seed=2", "+trainer.devices=2", f"task.fault={fault}", "task.rank=1", *slow, code=1)
    result = command.results()[2]
    assert result["status"] == "failed"
    assert words in result["error"]
    assert result["failure"]["cause"] == cause
    assert result["attempts"] == 1
    assert command.processes() == []


@pytest.mark.slow
def test_the_other_runs_of_the_sweep_go_on(command: Command) -> None:
    healed = command.folder / "healed"
    slow = ["task.steps=80", "task.seconds=0.1"]  # 8 seconds: longer than the first rank gets to end by itself
    words = ["task.fault=kill", "task.rank=1", f"task.healed={healed}", *slow]
    command(*TRIO, *words, code=1)
    assert command.statuses() == {1: "completed", 2: "failed", 3: "completed"}
    healed.touch()
    command(*TRIO, *words)
    assert set(command.statuses().values()) == {"completed"}


@pytest.mark.slow
def test_the_timeout_reaches_all_ranks(command: Command) -> None:
    words = ["seed=2", "+trainer.devices=2", "task.fault=hang", "timeout=2", "hydra.launcher.grace=1"]
    command("-m", "sweep=s", *words, code=1)
    assert command.results()[2]["error"] == "exceeded timeout of 2 seconds"
    assert command.processes() == []


def test_ctrl_c_reaches_all_ranks(command: Command) -> None:
    process = command.start("-m", "sweep=s", "seed=2", "+trainer.devices=2", "task.steps=200", "task.seconds=0.1")
    running(command, 2, 3)
    until(lambda: (command.of(2) / "rank1" / "progress.json").exists())
    interrupt(process)
    finish(process, 130)
    assert command.results()[2]["status"] == "interrupted"
    for name in ("run.log", "run_rank1.log"):
        assert "stopped at step" in (command.of(2) / name).read_text()
    assert command.processes() == []


def test_the_record_is_the_first_ranks() -> None:
    ends = [Exit(10, 1, end={"status": "failed", "error": "Connection closed by peer"}), Exit(11, -9)]
    told = verdict(ends, 1)
    assert (told.pid, told.rank, told.code, told.end) == (10, 1, -9, {})


def test_gpus_for_each_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots(2, 2)] == ["0,1", "2,3"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots(3, 1)] == ["0", "1", "2"]
    assert "CUDA_VISIBLE_DEVICES" not in slots(1, 4)[0].environment
