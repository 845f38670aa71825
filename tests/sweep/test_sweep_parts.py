"""The parts of a sweep, each by itself."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import Timeout
from omegaconf import OmegaConf

from sousa_bench.config.config_errors import explain
from sousa_bench.config.fingerprint import fingerprint, run_name
from sousa_bench.config.run_config import RunConfig
from sousa_bench.errors import ConfigError
from sousa_bench.results.index import ResultIndex
from sousa_bench.results.locks import RunLock, folder_lock
from sousa_bench.results.manifest import read_manifest
from sousa_bench.results.result import ResultError
from sousa_bench.results.run_process import alive, identity
from sousa_bench.sweep import messages, output, record
from sousa_bench.sweep.child import Order
from sousa_bench.sweep.current_command import run_command, spell_augmentation
from sousa_bench.sweep.device_processes import Ranks
from sousa_bench.sweep.forkserver import serve
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import MOST_WAITING, RunLog, Screen, counted
from sousa_bench.sweep.plan import SweepSettings, varied_keys
from sousa_bench.sweep.progress import Progress
from sousa_bench.sweep.resources import Slot, slots
from sousa_bench.sweep.spawner import ForkServer, ServerError, StartError
from sousa_bench.sweep.supervised_process import Exit
from sousa_bench.sweep.supervisor import Rules, Supervisor
from sousa_bench.sweep.sweep import Sweep, claim_folder, withdraw
from sousa_bench.sweep.verdict import conclude
from sousa_bench.system.python import python_environment
from tests.sweep import running

CONFIG = OmegaConf.create(
    {
        "seed": 1,
        "timeout": 5,
        "n_jobs": 1,
        "logger": {"mode": "offline"},
        "model": {"name": "ast", "checkpoint": None, "refuses": {}},
        "peft": {"name": "lora", "r": 8, "learning_rate": 1e-3},
        "augmentation": {"name": "on"},
        "data": {"name": "tiny", "root": "/a", "cache_dir": None},
        "trainer": {"max_epochs": 2, "checkpoint_minutes": 10, "progress": True},
    }
)


def changed(**values: object) -> str:
    config = CONFIG.copy()
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return fingerprint(config)


def test_the_fingerprint_changes_with_the_outcome_only() -> None:
    same = fingerprint(CONFIG)
    for key, value in {
        "timeout": 9,
        "n_jobs": 4,
        "sweep": "x",
        "resume": False,
        "force": True,
        "on_error": "stop",
        "logger__mode": "online",
        "data__root": "/b",
        "data__cache_dir": "/c",
        "trainer__checkpoint_minutes": 1,
        "trainer__progress": False,
        "hydra": {"run": 1},
        "peft__r": 8.0,
        "model__refuses": {"x": "y"},
        "trainer__compile": False,
        "peft__budget": None,
    }.items():
        assert changed(**{key: value}) == same, key
    others = {
        "seed": 2,
        "peft__r": 4,
        "trainer__max_epochs": 3,
        "trainer__head_learning_rate": 1e-2,
        "trainer__compile": True,
        "trainer__tested_epoch": "best",  # runs of before had no such key, and another rule for equals
        "augmentation__name": "off",
        "peft__budget": "0.3%",
    }
    assert len({same, *(changed(**{key: value}) for key, value in others.items())}) == 1 + len(others)


def test_a_checkpoint_counts_by_its_bytes(tmp_path: Path) -> None:
    for name, content in {"a": b"1", "b": b"1", "c": b"2"}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (changed(model__checkpoint=str(tmp_path / name)) for name in "abc")
    assert a == b != c
    for number, content in enumerate((b"1", b"2")):  # as the hub has it, and as an address
        for name in ("model.safetensors", "pytorch_model.bin"):
            (tmp_path / f"{number}{name[0]}").mkdir()
            (tmp_path / f"{number}{name[0]}" / name).write_bytes(content)
    folders = [changed(model__checkpoint=str(tmp_path / name)) for name in ("0m", "0p", "1m", "1p")]
    assert folders == [a, a, c, c]
    assert changed(model__checkpoint=f"file://{tmp_path / 'a'}") == a


def test_the_fingerprint_names_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="max_epochs"):
        changed(trainer__max_epochs="???")
    with pytest.raises(ConfigError, match="nowhere"):
        changed(trainer__max_epochs="${nowhere}")


def test_the_name_of_a_run() -> None:
    assert run_name(CONFIG, "0123456789abcdef") == "ast_lora_aug_tiny_s1_01234567"


def job(folder: Path, index: int = 1) -> Job:
    return Job(
        RunConfig(CONFIG),
        index,
        2,
        f"{index}" * 64,
        f"run{index}",
        folder / f"run{index}",
        ["seed=1"],
        "python",
        git_commit="c",
    )


def test_a_record_is_opened_and_closed(tmp_path: Path) -> None:
    one = job(tmp_path)
    record.begin(one)
    assert record.read(one.folder)["status"] == "running"
    assert (one.folder / record.RESERVE_FILE).stat().st_size == record.RESERVE_BYTES
    record.finish(one, "failed", {"warnings": ["w", "w"], "phases": {"data": 1.0}}, error="e", failure={"phase": "fit"})
    closed = record.read(one.folder)
    assert (closed["status"], closed["error"], closed["warnings"]) == ("failed", "e", ["w"])
    assert not (one.folder / record.RESERVE_FILE).exists()
    with pytest.raises(ValueError, match=r"metrics\.val_acc"):
        record.finish(one, "completed", {})
    assert record.read(one.folder)["status"] == "failed"
    record.begin(one)
    assert record.read(one.folder)["attempts"] == 2


def test_known_results_tell_the_living_from_the_dead(tmp_path: Path) -> None:
    for index in (1, 2):
        record.begin(job(tmp_path, index))
    path = tmp_path / "run2" / "result.json"
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999'))
    (tmp_path / "run3").mkdir()
    (tmp_path / "run3" / "result.json").write_text("{")
    results = ResultIndex([tmp_path])
    assert [known.status for known in results.of("1" * 64, tmp_path)] == ["running"]
    assert [known.status for known in results.of("2" * 64, tmp_path)] == ["dead"]
    assert len(results.torn) == 1
    with pytest.raises(ResultError):
        raise ResultError(results.torn[0])


def test_long_planning_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(counted(range(1000), "composing")) == list(range(1000))
    assert capsys.readouterr().out == ""
    clock = itertools.count()
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(counted(range(1000), "composing")) == list(range(1000))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "composing 2 of 1,000"
    assert 50 < len(lines) < 101


def test_life_is_told_by_pid_and_start_time(tmp_path: Path) -> None:
    me = identity()
    assert alive(me)
    assert alive({**me, "start_time": me["start_time"] - 3600})  # the clock was changed meanwhile
    assert not alive({**me, "boot": f"{me['boot'].split()[0]} 1"})
    older = {key: value for key, value in me.items() if key != "boot"}
    assert alive(older)
    assert not alive({**older, "start_time": me["start_time"] - 60})
    assert not alive(None)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = identity(process.pid)
    assert alive(other)
    process.communicate(b"\n")
    assert not alive(other)
    elsewhere = {**me, "host": "elsewhere"}
    assert not alive(elsewhere, tmp_path)
    (tmp_path / "progress.json").write_text(f'{{"updated": {time.time() - 60}}}')
    assert alive(elsewhere, tmp_path)
    (tmp_path / "progress.json").write_text(f'{{"updated": {time.time() - 6000}}}')
    assert not alive(elsewhere, tmp_path)
    assert me["host"] == socket.gethostname()


def test_a_progress_bar_leaves_one_line_in_the_log(tmp_path: Path) -> None:
    shown: list[bytes] = []
    log = RunLog(tmp_path / "run.log", shown.append)
    pieces = [b"start\n", b"\r 10%", b"\r 50%\xc3", b"\xa4", b"\r\x1b[31m100%\x1b[0m\n", b"no newline"]
    for piece in pieces:
        log.feed(piece)
    log.close()
    assert (tmp_path / "run.log").read_text() == "start\n100%\nno newline\n"
    assert b"".join(shown) == b"".join(pieces)
    assert list(log.tail) == ["start", "100%", "no newline"]


def test_lines_of_several_runs_carry_their_number(tmp_path: Path) -> None:
    shown: list[bytes] = []
    log = RunLog(tmp_path / "run.log", shown.append, "[3] ")
    log.feed(b"one\ntw")
    log.feed(b"o\n")
    assert shown == [b"[3] one\n", b"[3] two\n"]


def test_a_lock_goes_with_its_holder(tmp_path: Path) -> None:
    holder = "import os, sys; from sousa_bench.results.locks import RunLock; from pathlib import Path\n"
    holder += "lock = RunLock(Path(sys.argv[1]), 'f' * 64); assert lock.acquire(); print('taken', flush=True); input()"
    words = [sys.executable, "-c", holder, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=python_environment())
    assert process.stdout is not None
    assert process.stdout.readline() == b"taken\n"
    with pytest.raises(Timeout):
        folder_lock(tmp_path).acquire(blocking=False)
    process.kill(), process.communicate()
    with folder_lock(tmp_path).acquire(blocking=False):
        pass


def test_folders_of_sweeps(tmp_path: Path) -> None:
    assert claim_folder(tmp_path, "a/b-1.2") == tmp_path / "a" / "b-1.2"
    folders = [claim_folder(tmp_path, None) for _ in range(3)]
    assert len(set(folders)) == 3
    for name in ("a=b,c", "-a", "--help"):  # odd, but below multirun/ no command takes them for anything else
        assert claim_folder(tmp_path, name) == tmp_path / name
    for name in ("/x", "..", "a/../b", "a b", "a//b", "it's", '"a"', "🥁", "a\nb", "~", "."):
        with pytest.raises(ConfigError, match=r"(?s)sweep=.*: a sweep's name is a folder below"):
            claim_folder(tmp_path, name)
    for name in ("analysis", "wandb", "adapter", "checkpoints", "x/.hidden", "a/wandb/b"):
        with pytest.raises(ConfigError, match="readers of results enter no folder named"):
            claim_folder(tmp_path, name)


def manifest_of(folder: Path, index: int, *, ended: bool = False) -> Path:
    """Write the manifest of a sweep of one job; its path."""
    Sweep(folder, "n", [job(folder, index)], SweepSettings(), "c").record(ended=ended)
    return folder / "sweep.json"


def test_a_manifest_keeps_what_an_earlier_command_put_there(tmp_path: Path) -> None:
    manifest_of(tmp_path, 1)
    manifest_of(tmp_path, 2)
    jobs = read_manifest(tmp_path)["jobs"]
    assert [(entry["index"], entry["name"], entry.get("earlier", False)) for entry in jobs] == [
        (2, "run2", False),
        (3, "run1", True),
    ]


def test_a_manifest_names_the_commands_that_have_not_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest_of(tmp_path, 1)
    written = json.loads(path.read_text())
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path.write_text(json.dumps(written | {"processes": [identity(other.pid), {**identity(), "pid": 999999999}]}))
    manifest_of(tmp_path, 1)
    assert [process["pid"] for process in read_manifest(tmp_path)["processes"]] == [other.pid, os.getpid()]
    manifest_of(tmp_path, 1, ended=True)
    assert [process["pid"] for process in read_manifest(tmp_path)["processes"]] == [other.pid]
    other.communicate(b"\n")
    path.write_text("{")
    manifest_of(tmp_path, 1)
    assert (tmp_path / "sweep.json.bad").read_text() == "{"
    assert "can't be read" in capsys.readouterr().out


def test_a_run_has_one_holder_below_all_roots(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    a.mkdir()
    one = RunLock(b / "run", "f" * 64, [a, b, c])
    assert one.acquire()
    assert not c.exists()
    assert not RunLock(a / "run", "f" * 64, [a, c]).acquire()
    assert RunLock(a / "other", "e" * 64, [a, b, c]).acquire()
    one.release()
    two = RunLock(a / "run", "f" * 64, [a, b, c])
    assert two.acquire()
    two.release()


def test_a_screen_that_is_not_read_stops_nothing() -> None:
    reading, writing = os.pipe()
    screen = Screen(writing)
    line = b"x" * 9999 + b"\n"
    for _ in range(300):
        screen.show(line, always=False)
    screen.show(b"the last word\n", always=True)
    assert not screen.finish(0.05)
    shown = b""
    while not shown.endswith(b"the last word\n"):
        shown += os.read(reading, 1 << 16)
    assert len(shown) < 2 * MOST_WAITING
    assert screen.finish(5)
    os.close(reading), os.close(writing)


class NoRoom:
    """A spawner whose system has no room for another process."""

    warnings: tuple[str, ...] = ()

    async def start(self, order: object, fds: object) -> int:
        raise StartError("no room")

    async def ready(self) -> None: ...

    def new_loop(self) -> None: ...


def test_a_run_that_cannot_be_started_is_a_failed_run(tmp_path: Path) -> None:
    config = OmegaConf.merge(CONFIG, {"trainer": {"devices": 1}})
    jobs = [replace(job(tmp_path, index), source=RunConfig(config)) for index in (1, 2)]
    outcomes = Supervisor(NoRoom(), Rules(n_jobs=2), Progress(2, 2)).run(jobs)  # type: ignore[arg-type]
    assert [(outcome.status, outcome.error) for outcome in outcomes] == [("failed", "StartError: no room")] * 2
    assert [record.read(each.folder)["failure"]["phase"] for each in jobs] == ["start", "start"]
    assert (jobs[0].folder / "error.log").exists()


def test_a_fork_that_fails_is_an_answer_and_not_the_end_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    for _ in range(2):
        head, body = (data := messages.frame({"event": "start", "order": None}))[:8], data[8:]
        socket.send_fds(ours, [head], [writing])
        ours.sendall(body)
    ours.shutdown(socket.SHUT_WR)
    serve(theirs)
    for _ in range(2):
        answer, _ = messages.receive(ours)
        assert answer["event"] == "failed"
        assert "temporarily unavailable" in answer["error"]
    os.close(writing)
    assert os.read(reading, 1) == b""  # the server keeps no descriptor of a run that it could not fork
    os.close(reading), ours.close(), theirs.close()


def test_an_error_that_causes_itself_is_explained() -> None:
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as caught:
        raise error from error
    assert explain(caught.value) == "wrong"


def test_a_starter_answers_several_at_a_time_after_its_server_died() -> None:
    async def go() -> None:
        starter = ForkServer(["json"])
        starter.new_loop()
        try:
            await starter.ready()
            os.kill(starter.pid, signal.SIGKILL)
            starter._process.wait()
            starter._ready = False  # as a worker finds it that comes while another has it started again
            await asyncio.wait_for(asyncio.gather(*(starter.ready() for _ in range(3))), 20)
        finally:
            starter.close()

    asyncio.run(go())


def test_what_a_sweep_varied(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [["model=ast", "peft.r=4", "seed=1", "+x=1"], ["model=beats", "peft.r=8", "seed=1"]]
    assert varied_keys(overrides) == ["peft.r", "x"]
    monkeypatch.setattr(sys, "argv", ["train", "-m", "--config-dir", "my dir", "a=1,2"])
    assert run_command(["a='b c'", "sweep=x"], "x") == (
        "python -m sousa_bench.train --config-dir 'my dir' -m sweep=x 'a='\"'\"'b c'\"'\"''"
    )


def test_the_estimate_is_the_mean_of_the_runs_so_far(tmp_path: Path) -> None:
    progress = Progress(total=6, n_jobs=2)
    assert progress.estimate() is None
    progress.end(Outcome(job(tmp_path, 1), "completed", reused=True))
    progress.end(Outcome(job(tmp_path, 2), "completed", seconds=60))
    progress.end(Outcome(job(tmp_path, 3), "failed", "e", seconds=120))
    assert progress.lines() == (
        "Progress: 3/6 (50.0%)\nCompleted: 1, Failed: 1, Skipped: 1\nEstimated time remaining: 2.2 minutes"
    )


def test_the_estimate_is_of_the_runs_that_a_gpu_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight places two are used, and one after the first run ran out of memory; each run takes a minute."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    begun, estimates = [], []

    class Noted(Progress):
        def end(self, outcome: Outcome) -> None:
            super().end(outcome)
            estimates.append(self.estimate())

    async def attempt(self: Supervisor, job: Job, slot: Slot) -> Outcome:
        begun.append(job.index)
        while len(begun) < 2 or (job.index == 2 and not estimates):  # the first ends while the second goes on
            await asyncio.sleep(0.01)
        if job.index == 1:
            self._gpus.ran_out(slot)
        return Outcome(job, "completed", seconds=60)

    monkeypatch.setattr(Supervisor, "_attempt", attempt)
    config = OmegaConf.merge(CONFIG, {"trainer": {"devices": 1}})
    jobs = [replace(job(tmp_path, index), source=RunConfig(config)) for index in range(1, 9)]
    Supervisor(NoRoom(), Rules(n_jobs=8, runs_per_gpu=2), Noted(8, 8)).run(jobs)  # type: ignore[arg-type]
    assert estimates == [7 * 60 / 2, 6 * 60, 5 * 60, 4 * 60, 3 * 60, 2 * 60, 60, 0]


def test_places_share_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("sousa_bench.sweep.resources.usable_cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    [single] = slots(1)
    assert (single.threads, single.environment) == (8, {"OMP_NUM_THREADS": "8"})
    three = slots(3)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in three] == ["GPU-a", "GPU-b", "GPU-a"]
    assert [slot.threads for slot in three] == [2, 2, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert all("CUDA_VISIBLE_DEVICES" not in slot.environment and slot.threads == 1 for slot in slots(2))


def test_the_old_spelling_of_augmentation() -> None:
    words = ["x", "augmentation=true,False", "augmentation=on", "augmentation.name=true"]
    spell_augmentation(words)
    assert words == ["x", "augmentation=on,off", "augmentation=on", "augmentation.name=true"]


def test_a_record_that_cannot_be_opened_is_still_a_completed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors, the supervisor takes the run's own word that its record stands."""
    one = job(tmp_path)
    one.folder.mkdir()
    (one.folder / "result.json").write_text("{}")
    monkeypatch.setattr(record, "read", lambda folder: {})
    end = Exit(1, 0, end={"status": "completed", "recorded": True})
    assert conclude(one, end).status == "completed"
    (one.folder / "result.json").unlink()
    assert conclude(one, end).status == "failed"


def test_interrupted_runs_are_no_failed_ones(tmp_path: Path) -> None:
    progress = Progress(3, 1)
    for index, status in enumerate(("completed", "interrupted", "failed"), 1):
        progress.end(Outcome(job(tmp_path, index), status, seconds=1.0))
    assert "Completed: 1, Failed: 1, Skipped: 0, Interrupted: 1" in progress.lines()


@pytest.mark.parametrize("status", ["completed", "pruned", "interrupted", "failed"])
def test_the_counts_of_a_duplicate_add_up(tmp_path: Path, status: str) -> None:
    """A trial that drew the values of another shares its end, whatever that was, and counts once: as skipped."""
    progress = Progress(2, 1)
    progress.end(Outcome(job(tmp_path, 1), status, seconds=1.0))
    progress.end(Outcome(job(tmp_path, 2), status, reused=True))
    others = dict.fromkeys(("completed", "pruned", "interrupted", "failed"), 0)
    assert progress.counts() == others | {status: 1, "skipped": 1}


def test_a_rank_that_cannot_start_leaves_no_other_behind(tmp_path: Path) -> None:
    ended: list[int] = []

    class Starter:
        async def start(self, order: Any, fds: Any) -> int:
            if order.environment["RANK"] == "1":
                await asyncio.sleep(0.05)
                raise ServerError("no more processes")
            return subprocess.Popen(["sleep", "60"], process_group=0).pid

        def ended(self, pid: int) -> None:
            ended.append(pid)

    async def follow() -> None:
        ranks = Ranks(2, timeout=None, grace=1.0)
        order = Order(job=pickle.dumps(job(tmp_path)), target="x", supervisor=os.getpid())
        with pytest.raises(ServerError):
            await ranks.follow(Starter(), order, tmp_path / "run.log", None, None)
        [first, _] = ranks._watches
        assert first._exit.pid
        running.until(lambda: not running.alive(first._exit.pid))

    asyncio.run(asyncio.wait_for(follow(), 10))


def test_a_refused_sweep_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    fresh, used, queued = (tmp_path / day / "sweep" for day in ("day", "day2", "day3"))
    for folder in (fresh, used / "run", queued):
        folder.mkdir(parents=True)
    entry = {"fingerprint": "f", "slurm_job_id": "12_0"}
    (queued / "sweep.json").write_text(json.dumps({"jobs": [entry]}))
    (fresh / "sweep.json").write_text("{}")
    (used / "run" / "result.json").write_text("{}")
    withdraw(fresh), withdraw(used), withdraw(queued)
    assert not fresh.parent.exists()
    assert (used / "run" / "result.json").exists()
    assert (queued / "sweep.json").exists()
