"""Machines that are poor, stand still, or lie about the time: the sweep ends as ever, or one message says why not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sousa_bench.results.result import read_result
from tests.faults.test_faults import SLOW, check_one_resume_completes
from tests.faults.test_training_faults import SMALL
from tests.machine import patience
from tests.sweep.running import APP, ROOT, Command, finish, running, until

pytestmark = pytest.mark.faults

NOBODY = 65534
TRAIN = [sys.executable, "-O", "-m", "sousa_bench.train"]
POOR = """
mount -t tmpfs -o size=64k tmpfs /dev/shm
ulimit -n 64
export LC_ALL=C PYTHONCOERCECLOCALE=0
unset HOME TMPDIR
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set -all,+dac_read_search \
    --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search "$@"
"""
"""Someone who may read everything and write nothing, without a home, with hardly any shared memory and few files."""


@pytest.fixture
def poor() -> list[str]:
    """What a command is started by to live so."""
    words = ["unshare", "-m", "sh", "-c", POOR, "sh"]
    if os.geteuid() != 0 or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, unshare and setpriv to become nobody with a small /dev/shm")
    return words


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder that is nobody's."""
    with tempfile.TemporaryDirectory(prefix="nobodys_") as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def test_nobody_on_a_poor_machine_trains_analyses_and_predicts(poor: list[str], own_folder: Path) -> None:
    """Not root, on an installation that can't be written, `python -O`, and no home for the cache."""
    command = Command(own_folder, [*poor, *TRAIN])
    words = ["-m", "sweep=a", *SMALL, "data.synthetic.clips=60", "trainer.max_epochs=1", "seed=1,2", "n_jobs=2"]
    said = command(*words, code=1, timeout=300)
    homeless = "can't be made (Permission denied): choose another with data.cache_dir=FOLDER or the variable SOUSA_"
    assert said.count(f"DataError: The cache folder /nonexistent/.cache/sousa_bench {homeless}") >= 2
    assert "Traceback" not in said
    command.environment["SOUSA_BENCH_CACHE"] = str(own_folder / "cache")
    command(*words, "logger=wandb", timeout=300)
    results = [read_result(path) for path in own_folder.glob("multirun/a/*/result.json")]
    assert [result["status"] for result in results] == ["completed"] * 2
    assert {path.stat().st_uid for path in own_folder.glob("multirun/**/*")} == {NOBODY}
    run = next(path for path in (own_folder / "multirun" / "a").iterdir() if path.is_dir())
    clip = next(own_folder.glob("cache/synthetic/*/**/*.flac"))
    for rest in (["analyze", "--no-images"], ["status"], ["predict", str(run), str(clip)]):
        command.program = [*poor, sys.executable, "-O", "-m", f"sousa_bench.{rest[0]}"]
        said = command(*rest[1:], timeout=120)
        assert "Traceback" not in said


def test_a_read_only_folder_is_one_message(poor: list[str], tmp_path: Path) -> None:
    command = Command(tmp_path, [*poor, *APP])
    for words in (["seed=1"], ["-m", "sweep=a", "seed=1,2"]):
        said = command(*words, code=2)
        assert said.startswith("Error: "), said
        assert "Permission denied" in said
        assert said.count("\n") == 1, said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group whose processes share 600 MB."""
    for root, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        folder = Path("/sys/fs/cgroup", root, f"sousa_bench_{os.getpid()}")
        try:
            folder.mkdir()
            (folder / limit).write_text("600M")
            break
        except OSError:
            if folder.is_dir():
                folder.rmdir()
    else:
        pytest.skip("can't make a control group for memory here")
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


def check_hoarding(command: Command) -> None:
    healed = command.folder / "healed"
    words = ["-m", "sweep=a", "seed=1,2,3", "task.fault=hoard", f"task.healed={healed}"]
    command(*words, code=1)
    assert command.statuses() == {1: "completed", 2: "failed", 3: "completed"}
    assert command.results()[2]["failure"]["cause"] == "oom"
    check_one_resume_completes(command, words, healed)


def test_a_limit_of_memory_by_control_group_costs_the_run_that_meets_it(command: Command, memory_group: Path) -> None:
    command.program = ["sh", "-c", f'echo $$ > {memory_group}/cgroup.procs; exec "$@"', "sh", *APP]
    check_hoarding(command)


def test_a_limit_of_address_space_costs_the_run_that_meets_it(command: Command) -> None:
    command.program = ["sh", "-c", 'ulimit -v 1500000; exec "$@"', "sh", *APP]
    check_hoarding(command)


def test_a_sweep_that_stood_still_goes_on(command: Command, tmp_path: Path) -> None:
    """All of it, for longer than a run or an answer may take; then the supervisor alone, as Ctrl-Z does."""
    script = tmp_path / "stopped_app.py"
    script.write_text(
        "import runpy\nfrom sousa_bench.sweep import spawner\nspawner.ANSWER_SECONDS = 3\n"
        f"runpy.run_path({str(ROOT / 'tests/standin/app.py')!r}, run_name='__main__')\n"
    )
    command.program = [sys.executable, str(script)]
    limit = patience(3)
    process = command.start("-m", "sweep=a", "seed=1,2,3", f"timeout={limit}", *SLOW)
    running(command, 1)
    everyone = command.processes()
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(limit + 1)
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    running(command, 2)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(limit + 1)
    assert command.statuses() == {1: "completed", 2: "completed"}  # a run closes its own record
    os.kill(process.pid, signal.SIGCONT)
    finish(process)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    assert all(result["attempts"] == 1 for result in command.results().values())


@pytest.fixture
def clock(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file that holds how far off a command's clock is, and the environment that makes it believe so."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler to make a clock that is wrong")
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    offset.write_text("0")
    return offset, {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}


def test_a_clock_that_jumps_a_day_back_and_forth(clock: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    offset, environment = clock
    command = Command(tmp_path, **environment)
    status = Command(tmp_path, [sys.executable, "-m", "sousa_bench.status"], **environment)
    words = ["-m", "sweep=a", "seed=1,2,3,4", f"timeout={patience(30)}", *SLOW]
    process = command.start(*words)
    for seed, seconds in ((1, 86_400), (2, -86_400), (3, 0)):
        running(command, seed)
        offset.write_text(str(seconds))
        [row] = [line for line in status().splitlines() if f"_s{seed}_" in line or " running " in line]
        assert " running " in row
    offset.write_text("-86400")
    process.kill()  # what it left is resumed with a clock that went back
    process.wait()
    until(lambda: not command.processes())
    check_one_resume_completes(command, words)
    assert sorted(result["attempts"] for result in command.results().values()) == [1, 1, 1, 2]
    text = json.dumps([result["phases"] for result in command.results().values()])
    assert "-" not in text.replace("e-", ""), text  # no phase took less than no time


def test_two_sweeps_of_one_folder_from_two_places_one_of_them_killed(command: Command, tmp_path: Path) -> None:
    shared = tmp_path / "multirun"
    shared.mkdir()
    commands = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        commands.append(Command(tmp_path / name))
    words = ["-m", f"hydra.sweep.dir={shared}", "sweep=a", *SLOW]
    doomed = commands[0].start(*words, "seed=1,2,3")
    running(command, 1)
    other = commands[1].start(*words, "seed=3,2,1,4")
    run = running(command, 2)
    by = [each for each in commands if run in each.processes()]
    if by == [commands[0]]:
        doomed.kill()
        doomed.wait()
        finish(other)
    else:
        other.kill()
        other.wait()
        finish(doomed)
        commands[1](*words, "seed=3,2,1,4")
    assert command.statuses() == dict.fromkeys(range(1, 5), "completed")
    until(lambda: not any(each.processes() for each in commands))
    jobs = json.loads((shared / "a" / "sweep.json").read_text())["jobs"]
    assert len(jobs) == 4
    assert all((shared / "a" / (job["result"] or f"{job['folder']}/result.json")).is_file() for job in jobs)
