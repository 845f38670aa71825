"""What happens to one run costs no other, the record names the true cause, and one resume completes the sweep.

Real processes, killed, hung and starved; stand-ins for the training, so that each takes moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sousa_bench.results.result import PHASES
from tests.machine import patience
from tests.sweep.running import Command, alive, finish, interrupt, running, until

pytestmark = pytest.mark.faults

SLOW = ("task.seconds=0.04", "task.steps=40")


def with_fault(command: Command, fault: str, *words: str, phase: str = "fit") -> tuple[list[str], Path]:
    healed = command.folder / "healed"
    task = (f"task.fault={fault}", f"task.phase={phase}", f"task.healed={healed}")
    return ["-m", "sweep=a", "seed=1,2,3", *task, *words], healed


def check_one_resume_completes(command: Command, words: list[str], healed: Path | None = None) -> str:
    """The others are complete, stay untouched, and one resume completes the rest."""
    before = command.bytes_of()
    if healed is not None:
        healed.touch()
    output = command(*words)
    assert set(command.statuses().values()) == {"completed"}
    assert len(command.bytes_of()) == len(list(command.folder.glob("multirun/**/result.json")))  # of one seed, too
    assert {path: path.read_bytes() for path in before} == before
    assert command.processes() == []
    return output


def check_no_torn_file(command: Command) -> None:
    for path in command.folder.glob("multirun/**/*.json"):
        json.loads(path.read_text())
    assert not list(command.folder.glob("multirun/**/.*.tmp"))


def by_choice(command: Command, key: str) -> dict[str, dict[str, Any]]:
    """The results of the victims by a choice that varied, each with its folder."""
    found = {}
    for path in command.folder.glob("multirun/a/*_s2_*/result.json"):
        result = json.loads(path.read_text())
        found[result["config"][key]] = result | {"folder": path.parent}
    return found


def healthy_are_complete(command: Command) -> bool:
    results = [json.loads(path.read_text()) for path in command.folder.glob("multirun/a/*_s1_*/result.json")]
    return bool(results) and all(result["status"] == "completed" for result in results)


def test_exception_in_each_phase(command: Command) -> None:
    healed = command.folder / "healed"
    words = ["-m", "sweep=a", "seed=1,2", f"task.phase={','.join(PHASES)}", "task.fault=raise", f"task.healed={healed}"]
    output = command(*words, code=1)
    assert healthy_are_complete(command)
    results = by_choice(command, "task.phase")
    assert sorted(results) == sorted(PHASES)
    for phase, failed in results.items():
        assert failed["status"] == "failed", phase
        assert failed["error"] == "RuntimeError: the task broke", phase
        assert failed["failure"] == {
            "type": "RuntimeError",
            "message": "the task broke",
            "phase": phase,
            "cause": "exception",
            "log": "error.log",
        }
        log = (failed["folder"] / "error.log").read_text()
        assert "Traceback (most recent call last)" in log, phase
        assert "misbehave" in log, phase
        assert f"FAILED: {failed['folder'].name}" in output
    check_one_resume_completes(command, words, healed)
    assert not list(command.folder.glob("multirun/a/*/error.log"))


def test_error_log_holds_the_last_200_lines(command: Command) -> None:
    words, _ = with_fault(command, "noise")
    command(*words, code=1)
    log = (command.of(2) / "error.log").read_text()
    assert "line 499\n" in log
    assert "line 200\n" not in log
    assert "Last 200 lines of output" in log


ENDS = {
    "kill": ("killed by signal 9 (SIGKILL)", "signal 9"),
    "segfault": ("killed by signal 11 (SIGSEGV)", "signal 11"),
    "exit": ("SystemExit: 7", "exception"),
    "os_exit": ("ended with exit code 9 without a message", "exit code 9"),
    "memory": ("MemoryError: no memory for 3 TiB", "oom"),
}


def test_a_run_that_dies(command: Command) -> None:
    healed = command.folder / "healed"
    words = ["-m", "sweep=a", "seed=1,2", f"task.fault={','.join(ENDS)}", f"task.healed={healed}"]
    command(*words, code=1)
    assert healthy_are_complete(command)
    results = by_choice(command, "task.fault")
    assert results.keys() == ENDS.keys()
    for fault, (error, cause) in ENDS.items():
        failed = results[fault]
        assert failed["status"] == "failed", fault
        assert error in failed["error"], fault
        assert failed["failure"]["cause"] == cause
        assert failed["failure"]["phase"] == "fit", fault
        assert f"fault: {fault}" in (failed["folder"] / "error.log").read_text()
    check_no_torn_file(command)
    check_one_resume_completes(command, words, healed)


def test_a_completed_run_with_an_empty_field_is_a_failed_run(command: Command) -> None:
    output = command("-m", "sweep=a", "seed=2", "task.fault=empty", code=1)
    assert command.results()[2]["error"].endswith("missing: metrics.val_acc")
    assert "FAILED" in output


def test_a_run_that_hangs_is_timed_out(command: Command) -> None:
    limit, healed = patience(1.5), command.folder / "healed"
    kinds = ["task.fault=hang,sleep", "task.phase=data,fit", f"timeout={limit}", "hydra.launcher.grace=0.5"]
    words = ["-m", "sweep=a", "seed=1,2", *kinds, f"task.healed={healed}"]
    command(*words, code=1)
    assert healthy_are_complete(command)
    victims = [path.parent for path in command.folder.glob("multirun/a/*_s2_*/result.json")]
    assert len(victims) == 4
    for folder in victims:
        failed = json.loads((folder / "result.json").read_text())
        phase = failed["config"]["task.phase"]
        assert failed["status"] == "timeout"
        assert failed["error"] == f"exceeded timeout of {limit:g} seconds"
        assert (failed["failure"]["cause"], failed["failure"]["phase"]) == ("timeout", phase)
        assert "misbehave" in (folder / "error.log").read_text()  # where it hung
    check_one_resume_completes(command, words, healed)


def test_a_timed_out_run_goes_on_from_its_checkpoint(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1", "task.seconds=0.1", "task.steps=25"]
    command(*words, "timeout=1", code=1)
    assert command.statuses() == {1: "timeout"}
    output = command(*words, "timeout=60")
    assert "from step 0" not in output
    assert command.results()[1]["attempts"] == 2
    command("-m", "sweep=undisturbed", "seed=1", "task.seconds=0.0", "task.steps=25", "force=true")
    undisturbed, resumed = (
        json.loads(next(command.folder.glob(f"multirun/{name}/*/result.json")).read_text())
        for name in ("undisturbed", "a")
    )
    assert undisturbed["metrics"] == resumed["metrics"]


def test_the_timeout_runs_from_the_end_of_the_data_phase(command: Command) -> None:
    command("-m", "sweep=a", "seed=2", "task.fault=slow_data", "timeout=8", "task.phase=data")
    assert command.statuses() == {2: "completed"}


def test_sigterm_to_a_run_interrupts_it_alone(command: Command) -> None:
    words, healed = with_fault(command, "term")
    command(*words, code=1)
    assert command.statuses() == {1: "completed", 2: "interrupted", 3: "completed"}
    check_one_resume_completes(command, words, healed)


def test_what_a_run_started_ends_with_it(command: Command) -> None:
    words, _ = with_fault(command, "descendant", "timeout=1", "hydra.launcher.grace=0.2")
    command(*words, code=1)
    assert (command.of(2) / "descendant").exists()
    until(lambda: not command.processes())


def test_sigkill_of_the_supervisor(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1,2,3", *SLOW]
    process = command.start(*words)
    run = running(command, 2)
    process.kill()
    process.wait()
    until(lambda: not command.processes())
    assert not alive(run)
    assert command.statuses()[1] == "completed"
    assert command.statuses()[2] == "running"  # by a process that is gone
    output = check_one_resume_completes(command, words)
    assert "from step 0" not in output.split("Experiment 3/3")[0]


def test_sigkill_of_the_supervisor_while_a_run_hangs_in_c(command: Command) -> None:
    words, healed = with_fault(command, "hang")
    process = command.start(*words)
    until(lambda: 2 in command.statuses() and "fault" in (command.of(2) / "run.log").read_text())
    process.kill()
    process.wait()
    until(lambda: not command.processes())
    check_one_resume_completes(command, words, healed)


def test_sigkill_of_supervisor_and_server_at_once(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1,2,3", *SLOW]
    process = command.start(*words)
    run = running(command, 2)
    for pid in command.processes():
        if pid != run:
            os.kill(pid, signal.SIGKILL)
    process.wait()
    until(lambda: not command.processes())
    check_one_resume_completes(command, words)


def test_sigkill_of_the_fork_server(command: Command) -> None:
    process = command.start("-m", "sweep=a", "seed=1,2,3", *SLOW)
    run = running(command, 2)
    [server] = [pid for pid in command.processes() if pid not in (run, process.pid)]
    os.kill(server, signal.SIGKILL)
    finish(process)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    assert all(result["attempts"] == 1 for result in command.results().values())
    assert command.processes() == []


def servers(command: Command, process: subprocess.Popen[str]) -> list[int]:
    """The fork server: of the command's children the one that holds a socket."""
    return [pid for pid in command.processes() if pid != process.pid and holds_socket(pid)]


def holds_socket(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(str(fd.readlink()).startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_sigkill_of_the_fork_server_while_several_runs_end(command: Command) -> None:
    seeds = ",".join(map(str, range(1, 13)))
    words = ["-m", "sweep=a", f"seed={seeds}", "n_jobs=3", "task.seconds=0.05", "task.steps=8"]
    process = command.start(*words)
    for count in (1, 3, 6):
        until(lambda: list(command.statuses().values()).count("completed") >= count)  # noqa: B023
        for server in servers(command, process):
            os.kill(server, signal.SIGKILL)
    finish(process)
    assert set(command.statuses().values()) == {"completed"}
    assert all(result["attempts"] == 1 for result in command.results().values())


def test_a_fork_server_that_cannot_start_again_costs_no_run_that_goes_on(command: Command, tmp_path: Path) -> None:
    (tmp_path / "fickle.py").write_text("import os\nassert not os.path.exists('broken')\n")
    script = tmp_path / "app.py"
    script.write_text(
        "import sys\nfrom tests.standin import app\nfrom sousa_bench.sweep import command_line\n"
        "command_line(app.job, target='tests.standin.training.run', modules=['fickle', 'tests.standin.training'])\n"
    )
    command.program = ["env", f"PYTHONPATH={tmp_path}:{command.environment['PYTHONPATH']}", sys.executable, str(script)]
    words = ["-m", "sweep=a", "seed=1,2,3,4", "n_jobs=2", "task.seconds=0.1", "task.steps=40"]
    process = command.start(*words)
    running(command, 1)
    running(command, 2)
    (tmp_path / "broken").touch()
    for server in servers(command, process):
        os.kill(server, signal.SIGKILL)
    output = finish(process, 1)
    statuses = command.statuses()
    assert statuses[1] == statuses[2] == "completed", output
    assert "failed" in statuses.values(), output
    assert "the code of a run can't be imported" in output
    assert "2 of 4 runs completed" in output
    (tmp_path / "broken").unlink()
    check_one_resume_completes(command, words)


def test_a_screen_that_nobody_reads_stops_no_timeout(command: Command) -> None:
    settings = (f"timeout={patience(2)}", "hydra.launcher.grace=0.5", "task.noise=200000")
    words, healed = with_fault(command, "hang", *settings, phase="fit")
    process = command.start(*words, "n_jobs=1")
    until(lambda: command.statuses() == {1: "completed", 2: "timeout", 3: "completed"}, 20)
    assert process.poll() is None  # it waits for its reader, with everything done
    output = finish(process, 1)
    assert "2 of 3 runs completed" in output
    check_one_resume_completes(command, words, healed)


def test_ctrl_c_with_a_screen_that_nobody_reads(command: Command) -> None:
    process = command.start("-m", "sweep=a", "seed=1,2", "task.noise=200000", *SLOW)
    running(command, 1)
    interrupt(process)
    process.wait(patience(10))
    process.stdout.close()
    assert process.returncode == 130
    assert command.statuses() == {1: "interrupted"}


def test_two_sweeps_do_one_run_once(command: Command) -> None:
    words = ["task.seconds=0.05", "task.steps=20"]
    processes = [
        command.start("-m", "sweep=a", "seed=1,2,3", *words),
        command.start("-m", "sweep=b", "seed=3,2,1", *words),
        command.start("seed=2", *words),
    ]
    for process in processes:
        finish(process)
    records = [json.loads(path.read_text()) for path in command.folder.glob("*/**/result.json")]
    assert sorted(record["config"]["seed"] for record in records) == [1, 2, 3]
    assert all(record["attempts"] == 1 for record in records)
    for name in ("a", "b"):
        sweep = command.folder / "multirun" / name
        for entry in json.loads((sweep / "sweep.json").read_text())["jobs"]:
            assert (sweep / (entry["result"] or f"{entry['folder']}/result.json")).is_file()


def test_a_sweep_keeps_the_checkpoint_of_another_that_was_interrupted_meanwhile(command: Command) -> None:
    """Planned when the run had failed, begun when another sweep had done half of it."""
    # The second sweep starts while the first one does seed 7, which must outlast that start.
    words, healed = with_fault(command, "raise", "task.seconds=0.12", "task.steps=40")
    command(*words, code=1)
    healed.touch()
    slow = [*words[:2], "seed=7,2", *words[3:]]
    late = command.start(*slow)
    running(command, 7)
    early = command.start(*words[:2], "seed=2", *words[3:])
    running(command, 2, step=20)
    interrupt(early)
    finish(early, 130)
    output = finish(late)
    assert output.count("from step 0") == 1, output
    assert command.results()[2]["attempts"] == 2


def test_a_symlinked_results_root(command: Command, tmp_path: Path) -> None:
    elsewhere = tmp_path / "deep" / "down" / "scratch"
    elsewhere.mkdir(parents=True)
    (tmp_path / "multirun").symlink_to(elsewhere)
    command("-m", "sweep=a", "seed=1")
    command("-m", "sweep=b", "seed=1,2")
    for name in ("a", "b"):
        sweep = tmp_path / "multirun" / name
        for entry in json.loads((sweep / "sweep.json").read_text())["jobs"]:
            assert (sweep / (entry["result"] or f"{entry['folder']}/result.json")).is_file(), entry
    assert "Completed already" in command("-m", "sweep=a", "seed=1")


def test_sigkill_of_the_whole_process_group(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1,2,3,4", "n_jobs=2", *SLOW]
    process = command.start(*words)
    running(command, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not command.processes())
    check_one_resume_completes(command, words)


def test_ctrl_c_saves_and_says_so(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1,2,3", *SLOW]
    process = command.start(*words)
    running(command, 2, step=5)
    interrupt(process)
    output = finish(process, 130)
    assert command.statuses() == {1: "completed", 2: "interrupted"}
    assert "1 of 3 runs completed" in output
    assert "Not run: 1" in output
    assert "Traceback" not in output
    assert command.processes() == []
    check_one_resume_completes(command, words)
    assert command.results()[2]["attempts"] == 2


def test_ctrl_c_twice_ends_at_once(command: Command) -> None:
    words, healed = with_fault(command, "hang")
    process = command.start(*words)
    until(lambda: 2 in command.statuses() and "fault" in (command.of(2) / "run.log").read_text())
    interrupt(process)
    time.sleep(0.3)
    assert process.poll() is None  # it waits for a run that can't hear
    interrupt(process)
    finish(process, 130, timeout=10)  # the run itself would be waited for much longer
    assert command.statuses() == {1: "completed", 2: "interrupted"}
    assert command.results()[2]["error"] == "interrupted, and killed before it had saved its state"
    assert command.processes() == []
    check_one_resume_completes(command, words, healed)


def test_ctrl_c_before_anything_runs(command: Command) -> None:
    process = command.start("-m", "sweep=a", "seed=1,2,3")
    until(lambda: servers(command, process))  # from here on the command is in charge of its signals
    interrupt(process)
    finish(process, 130)
    until(lambda: not command.processes())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_to_the_supervisor(command: Command, number: signal.Signals) -> None:
    words = ["-m", "sweep=a", "seed=1,2", *SLOW]
    process = command.start(*words)
    running(command, 1)
    process.send_signal(number)
    finish(process, 128 + number)
    assert command.statuses() == {1: "interrupted"}
    check_one_resume_completes(command, words)


def test_ctrl_c_of_a_single_run(command: Command) -> None:
    process = command.start("seed=1", *SLOW)
    until(lambda: list(command.folder.glob("outputs/*/checkpoints/last.json")))
    interrupt(process)
    finish(process, 130)
    [path] = command.folder.glob("outputs/*/result.json")
    assert json.loads(path.read_text())["status"] == "interrupted"
    assert "from step 0" not in command("seed=1", *SLOW)


def test_a_new_sweep_goes_on_with_what_an_older_one_left(command: Command) -> None:
    process = command.start("-m", "sweep=a", "seed=1", *SLOW)
    running(command, 1, step=5)
    process.kill()
    process.wait()
    output = command("-m", "sweep=b", "seed=1", *SLOW)
    assert "from step 0" not in output
    assert command.statuses() == {1: "completed"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "multirun"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small tmpfs")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("can't mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(command: Command, small_disk: Path) -> None:
    words, healed = with_fault(command, "disk")
    command(*words, code=1)
    assert command.statuses() == {1: "completed", 2: "failed", 3: "completed"}
    failed = command.results()[2]
    assert "No space left on device" in failed["error"]
    assert failed["failure"]["cause"] == "disk full"
    check_no_torn_file(command)
    check_one_resume_completes(command, words, healed)


def test_disk_that_stays_full(command: Command, small_disk: Path) -> None:
    words = ["-m", "sweep=a", "seed=1,2", *SLOW]
    process = command.start(*words)
    running(command, 1, step=5)
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    finish(process, 1)
    assert command.results()[1]["status"] == "failed"
    assert "No space left on device" in command.results()[1]["error"]
    check_no_torn_file(command)
    (small_disk / "filler").unlink()
    check_one_resume_completes(command, words)


def test_torn_result(command: Command) -> None:
    contents = [b"", b'{"status": "comp', b"[1, 2]", b"\xff\xfe", b"[" * 100_000]
    words = ["-m", "sweep=a", "seed=1,2,3,4,5,6"]
    command(*words)
    torn = [command.of(seed) / "result.json" for seed in range(2, 7)]
    for path, content in zip(torn, contents, strict=True):
        path.write_bytes(content)
    output = command(*words)
    assert output.count("counts as not done") == len(contents)
    for path in torn:
        assert str(path.relative_to(command.folder)) in output
    assert command.statuses() == dict.fromkeys(range(1, 7), "completed")
    assert output.count("Experiment ") == len(contents)


def test_torn_manifest(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1,2"]
    command(*words)
    for content in (b"", b'{"jobs": [1', b'{"jobs": 3}'):
        (command.folder / "multirun" / "a" / "sweep.json").write_bytes(content)
        command(*words)
        assert len(json.loads((command.folder / "multirun" / "a" / "sweep.json").read_text())["jobs"]) == 2


def test_a_record_of_another_process_with_the_same_pid_is_dead(command: Command) -> None:
    words = ["-m", "sweep=a", "seed=1"]
    command(*words)
    path = command.of(1) / "result.json"
    result = json.loads(path.read_text())
    result["status"] = "running"
    result["process"] |= {"pid": os.getpid(), "start_time": result["process"]["start_time"] - 3600}
    path.write_text(json.dumps(result))
    command(*words)
    assert command.statuses() == {1: "completed"}


def test_editing_configs_during_a_sweep_changes_no_later_run(command: Command, tmp_path: Path) -> None:
    extra = tmp_path / "conf" / "task_set"
    extra.mkdir(parents=True)
    (extra / "mine.yaml").write_text("# @package task\nsteps: 40\nseconds: 0.05\n")
    process = command.start("--config-dir", str(extra.parent), "-m", "sweep=a", "seed=1,2", "+task_set=mine")
    running(command, 1)
    (extra / "mine.yaml").write_text("# @package task\nsteps: 1\n")
    finish(process)
    assert [result["resolved_config"]["task"]["steps"] for result in command.results().values()] == [40, 40]
