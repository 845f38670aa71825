"""Several runs on one GPU: how many start, what one that runs out of memory does, and what the results say."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sousa_bench.sweep import shared_gpus
from sousa_bench.sweep.resources import fitting_jobs, slots
from sousa_bench.sweep.shared_gpus import SharedGpus
from sousa_bench.system import gpus
from tests.sweep.running import Command

LONG = ["task.steps=8", "task.seconds=0.1"]
NVIDIA_SMI = """#!/bin/sh
[ "$1 $3 $4" = "--query-gpu=utilization.gpu -i GPU-pretended" ] || exit 6
echo $(($(ls '{gpu}' | wc -l) * 60))
"""


def on_gpu(command: Command, *words: str) -> list[str]:
    """Words of a sweep on a pretended GPU, whose runs take 40 of its 100 units of memory."""
    command.environment["CUDA_VISIBLE_DEVICES"] = "0"
    folder = command.folder / "gpu"
    folder.mkdir()
    return ["-m", "sweep=a", "n_jobs=auto", f"task.gpu.folder={folder}", *words]


def crowds(command: Command) -> list[int]:
    return sorted(result["environment"]["runs_on_gpu"] for result in command.results().values())


@pytest.mark.slow
def test_memory_that_runs_out_leaves_fewer_on_the_gpu(command: Command) -> None:
    """Of three at a time one runs out: it goes on from its checkpoint, to the end that it would have had alone."""
    words = on_gpu(command, "seed=1,2,3", *LONG)
    command(*words)
    alone = command.results()
    assert crowds(command) == [1, 1, 1]
    (command.folder / "multirun" / "a").rename(command.folder / "outputs")  # where it counts as done
    output = command(*words, "hydra.launcher.runs_per_gpu=3", "force=true")
    results = command.results()
    assert all(result["metrics"] == alone[seed]["metrics"] for seed, result in results.items())
    again = [result for result in results.values() if result["attempts"] > 1]
    assert len(again) in (1, 2)
    assert all("memory ran out beside other runs on its GPU" in result["warnings"][0] for result in again)
    assert {result["environment"]["runs_on_gpu"] for result in again} == {3}  # though it went on beside fewer
    assert "its GPU now holds at most" in output
    assert "Progress: 3/3" in output
    assert "Traceback" not in output
    command(*words, "hydra.launcher.runs_per_gpu=3", "seed=4")
    assert command.results()[4]["environment"]["runs_on_gpu"] == 1


def test_a_run_that_no_gpu_holds_fails(command: Command) -> None:
    words = on_gpu(command, "seed=1,2", "task.gpu.need=140")
    output = command(*words, "hydra.launcher.runs_per_gpu=2", code=1)
    assert command.statuses() == {1: "failed", 2: "failed"}
    assert {result["failure"]["cause"] for result in command.results().values()} == {"oom"}
    assert output.count("it goes on later") in (1, 2)


def test_auto_without_a_gpu_changes_nothing(command: Command) -> None:
    command.environment["CUDA_VISIBLE_DEVICES"] = ""
    output = command("-m", "sweep=a", "seed=1,2", "hydra.launcher.runs_per_gpu=auto")
    assert output.count("Note: hydra.launcher.runs_per_gpu changes nothing here: there is no GPU") == 1
    assert command.statuses() == {1: "completed", 2: "completed"}


@pytest.mark.slow
def test_auto_starts_another_while_the_gpu_has_idle_time(command: Command) -> None:
    """At 60 % a run two keep it busy, although its memory is enough for all three."""
    words = on_gpu(command, "seed=1,2,3", "task.steps=60", "task.seconds=0.15", "task.gpu.need=10")
    script = command.folder / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text(NVIDIA_SMI.format(gpu=command.folder / "gpu"))
    script.chmod(0o755)
    command.environment["PATH"] = f"{script.parent}:{os.environ['PATH']}"
    command(*words, "trainer.max_epochs=20", "n_jobs=3", "hydra.launcher.runs_per_gpu=auto", timeout=120)
    assert command.statuses() == dict.fromkeys((1, 2, 3), "completed")
    assert crowds(command)[-1] == 2
    assert {result["attempts"] for result in command.results().values()} == {1}


def told(need: int, free: int) -> dict[str, Any]:
    return {"gpu_memory": {"need": need, "free": free, "total": 100, "uuid": "GPU-a"}}


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How busy the GPU is, the last number; the places that a test makes are all on it."""
    shares: list[int | None] = [0]
    monkeypatch.setattr(shared_gpus, "busy_share", lambda uuid: shares[-1])
    monkeypatch.setattr(shared_gpus, "LOOK_SECONDS", 0.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    return shares


def test_auto_holds_one_until_it_is_measured(busy: list[int | None]) -> None:
    async def sweep() -> None:
        first, second, third, fourth = places = slots(4)
        shared = SharedGpus(places, "auto")
        assert shared.enter(first)
        assert not shared.enter(second)
        shared.learn(first, told(need=20, free=80))
        assert not shared.enter(second), "nobody has looked how busy it is"
        await asyncio.wait_for(shared.change(), 5)
        assert shared.enter(second)
        assert not shared.enter(third)
        busy.append(95)
        shared.learn(second, told(need=20, free=60))
        await asyncio.wait_for(shared.change(), 5)
        assert not shared.enter(third), "two keep it busy"
        shared.leave(first)
        assert shared.enter(third)
        busy.append(None)
        shared.learn(third, told(need=50, free=30))
        await asyncio.wait_for(shared.change(), 5)
        assert not shared.enter(fourth), "the largest so far takes 50, and 10 stay free"
        shared.learn(second, told(need=20, free=61))
        assert shared.enter(fourth), "where nobody can say how busy it is memory decides"
        assert [shared.together(place) for place in places] == [1, 3, 3, 3]

    asyncio.run(sweep())


def test_memory_that_a_run_leaves_is_free_again(busy: list[int | None]) -> None:
    async def sweep() -> None:
        first, second, third = places = slots(3)
        shared = SharedGpus(places, "auto")
        shared.enter(first)
        shared.learn(first, told(need=40, free=60))
        await asyncio.wait_for(shared.change(), 5)
        shared.enter(second)
        shared.learn(second, told(need=40, free=20))
        await asyncio.wait_for(shared.change(), 5)
        assert not shared.enter(third)
        shared.leave(first)
        shared.learn(second, told(need=40, free=20))  # progress repeats what it told before
        assert shared.enter(third)

    asyncio.run(sweep())


def test_fewer_after_each_that_ran_out(busy: list[int | None]) -> None:
    first, *others = places = slots(4)
    shared = SharedGpus(places, 4)
    assert all(shared.enter(place) for place in places)
    assert shared.ran_out(first) == 3
    shared.leave(first)
    assert not shared.enter(first)
    assert shared.shares(first)
    for expected, place in zip((2, 1, 1), others, strict=True):
        assert shared.ran_out(place) == expected
        shared.leave(place)
    assert not shared.shares(first)
    assert shared.enter(first)
    assert not shared.enter(others[0])


def test_how_many_places_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sousa_bench.sweep.resources.usable_cores", lambda: 12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [fitting_jobs(1, per_gpu) for per_gpu in (None, 1, 3, "auto")] == [2, 2, 6, 12]
    assert fitting_jobs(2, 3) == 3
    assert [place.gpus for place in slots(3, 2)] == [["0", "1"]] * 3
    assert not SharedGpus(slots(2), None).shares(slots(2)[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [fitting_jobs(1, per_gpu) for per_gpu in (None, "auto")] == [1, 8]
    assert SharedGpus(slots(2), None).shares(slots(2)[0])  # n_jobs=2 asks for it


def test_nvidia_smi_is_asked_once_for_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of 10,000 runs wants to know 10,000 times."""
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho \"$1\" >> '{tmp_path}/asked'\nprintf '0\\n1\\n'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus._every_gpu.cache_clear()
    try:
        assert [gpus.visible_gpus() for _ in range(3)] == [["0", "1"]] * 3
        assert (tmp_path / "asked").read_text() == "--query-gpu=index\n"
        assert gpus.busy_share("GPU-x") is None  # two answers to a question about one
    finally:
        gpus._every_gpu.cache_clear()
