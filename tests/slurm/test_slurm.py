"""Sweeps on a real one-node Slurm: all but the victim complete, its record says why, one resume does the rest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster
from tests.sweep.running import ROOT, Command, finish, interrupt, running, until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

SWEEP = ["-m", "sweep=s", "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.poll=0.5"]
SMALL = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=0.5"]
TRIO = [*SWEEP, *SMALL, "seed=1,2,3"]
LONG = ["task.steps=60", "task.seconds=0.1"]


WITHOUT_ACCOUNTING = pytest.mark.parametrize("cluster", [False], ids=["no-accounting"], indirect=True)
"""For what Slurm's accounting has no part in: done once, without it."""


def manifest(command: Command) -> dict[str, Any]:
    return json.loads((command.folder / "multirun" / "s" / "sweep.json").read_text())


def job_of(command: Command, seed: int) -> str:
    """Slurm's id of the run with a seed."""

    def job_id() -> str | None:
        entries = manifest(command)["jobs"] if list(command.folder.glob("multirun/s/sweep.json")) else []
        return next((entry.get("slurm_job_id") for entry in entries if f"_s{seed}_" in entry["name"]), None)

    return until(job_id)


def step_of(command: Command, seed: int) -> int:
    return json.loads((command.of(seed) / "progress.json").read_text()).get("step", 0)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def resumed(command: Command, *words: str) -> None:
    """One resume ends with every run completed, and touches no completed result."""
    before = command.bytes_of()
    output = command(*TRIO, *words, timeout=90)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}, output
    after = command.bytes_of()
    assert all(after[path] == data for path, data in before.items())


def test_a_sweep_is_one_array(cluster: Cluster, command: Command) -> None:
    output = command(*TRIO)
    assert "Sweep ended: 3 of 3 runs completed" in output
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    ids = {seed: result["process"]["slurm_job_id"] for seed, result in command.results().items()}
    arrays, tasks = zip(*(job_id.split("_") for job_id in ids.values()), strict=True)
    assert len(set(arrays)) == 1
    assert sorted(tasks) == ["0", "1", "2"]
    assert "TimeLimit=02:15:00" in cluster.command("scontrol", "show", "job", ids[1]).stdout  # 7200 s and the margin
    again = command(*SWEEP, *SMALL, "seed=1,2,3,4")
    assert again.count("Completed already") == 3
    assert "Submitted 1 run as" in again
    assert json.loads((command.of(4) / "result.json").read_text())["attempts"] == 1


@WITHOUT_ACCOUNTING
def test_the_front_end_imports_no_torch(cluster: Cluster, command: Command) -> None:
    output = subprocess.run(
        [sys.executable, "-X", "importtime", *command.program[1:], *SWEEP, *SMALL, "seed=1"],
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert output.returncode == 0, output.stdout
    assert "sousa_bench.sweep.slurm.job_array" in output.stderr
    assert not {"torch", "pytorch_lightning"} & {line.split("|")[-1].strip() for line in output.stderr.splitlines()}


@pytest.mark.parametrize("way", ["scancel", "kill"])
def test_a_job_that_is_killed(cluster: Cluster, command: Command, way: str) -> None:
    """Without a warning: by Slurm at somebody's order, or by a signal to the job's own supervisor."""
    process = command.start(*TRIO, *LONG)
    run = running(command, 2, 8)
    if way == "scancel":
        assert cluster.command("scancel", "--signal=KILL", job_of(command, 2)).returncode == 0
    else:
        os.kill(parent(run), signal.SIGKILL)
    output = finish(process, 1, timeout=90)
    killed, words = {"scancel": ("interrupted", "was cancelled"), "kill": ("failed", "signal 9")}[way]
    assert command.statuses() == {1: "completed", 2: killed, 3: "completed"}
    result = command.results()[2]
    assert words in result["error"]
    assert result["failure"]["cause"] == {"scancel": "slurm CANCELLED", "kill": "signal 9"}[way]
    assert result["failure"]["phase"] == "fit"
    assert {"scancel": "go on with it", "kill": "run it again"}[way] in output
    resumed(command, *LONG)
    assert command.results()[2]["metrics"] == undisturbed(command)


@WITHOUT_ACCOUNTING
def test_its_own_timeout_comes_first(cluster: Cluster, command: Command) -> None:
    healed = command.folder / "healed"
    words = ["task.fault=hang", f"task.healed={healed}", "hydra.launcher.grace=1"]
    output = command(*TRIO, *words, "timeout=4", code=1)
    assert command.statuses() == {1: "completed", 2: "timeout", 3: "completed"}, output
    assert command.results()[2]["error"] == "exceeded timeout of 4 seconds"
    healed.touch()
    resumed(command, *words)


def test_slurm_s_time_limit(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """A minute is the shortest limit, so both sweeps have it at once.

    One's victim hears no signal, its supervisor waits for it, and Slurm kills both. The other's is slow, hears Slurm's
    warning and saves its state; that asks no accounting, and is done without it.
    """
    healed = command.folder / "healed"
    hang = ["task.fault=hang", f"task.healed={healed}"]
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=1", "hydra.launcher.grace=300"]
    slow = ["task.steps=250", "task.fault=slow", f"task.healed={healed}"]
    warning = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=10"]
    warned = Command(tmp_path / "warned", **{**command.environment, "SWEEP_TEST": command.mark})
    warned.folder.mkdir()
    killed = command.start(*TRIO, *hang, *limit)
    if not cluster.accounting:
        saved = warned.start(*TRIO, *slow, *warning)
        output = finish(saved, 1, timeout=150)
        assert warned.statuses() == {1: "completed", 2: "timeout", 3: "completed"}, output
        result = warned.results()[2]
        assert "told to save its state" in result["error"]
        assert result["failure"]["cause"] == "slurm TIMEOUT"
    output = finish(killed, 1, timeout=150)
    assert command.statuses() == {1: "completed", 2: "timeout", 3: "completed"}, output
    result = command.results()[2]
    assert "reached Slurm's time limit" in result["error"]
    assert "DUE TO TIME LIMIT" in result["error"]
    assert result["failure"]["cause"] == "slurm TIMEOUT"
    healed.touch()
    resumed(command, *hang)
    if not cluster.accounting:
        steps = step_of(warned, 2)
        resumed(warned, *slow)
        assert f"from step {steps}" in (warned.of(2) / "run.log").read_text()


def test_out_of_memory(cluster: Cluster, command: Command) -> None:
    """Slurm watches the memory of a job's processes and kills the step that takes more than it asked for."""
    healed = command.folder / "healed"
    words = ["task.fault=hoard", f"task.healed={healed}"]
    output = command(*TRIO, *words, code=1, timeout=90)
    assert command.statuses() == {1: "completed", 2: "failed", 3: "completed"}, output
    result = command.results()[2]
    assert result["failure"]["cause"] == "oom"
    assert "memory" in result["error"]
    healed.touch()
    resumed(command, *words)


def test_a_requeued_job_goes_on(cluster: Cluster, command: Command) -> None:
    process = command.start(*TRIO, *LONG)
    running(command, 2, 8)
    job = job_of(command, 2)
    assert cluster.command("scontrol", "requeue", job).returncode == 0
    finish(process, 0, timeout=90)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    result = command.results()[2]
    assert result["attempts"] == 2
    assert result["process"]["slurm_job_id"] == job
    starts = [line for line in (command.of(2) / "run.log").read_text().splitlines() if "from step" in line]
    assert len(starts) == 2
    assert int(starts[1].rpartition(" ")[2]) >= 8
    assert result["metrics"] == undisturbed(command)


@WITHOUT_ACCOUNTING
def test_several_runs_share_a_task(cluster: Cluster, command: Command) -> None:
    """Three tasks carry twelve runs, two at a time; the requeue of one costs none of its runs."""
    shared = ["hydra.launcher.runs_per_task=4", "hydra.launcher.runs_at_once=2", "seed=range(1,13)", *LONG]
    process = command.start(*SWEEP, *SMALL, *shared)
    running(command, 2, 8)
    job = job_of(command, 2)
    assert {job_of(command, seed) for seed in (1, 3, 4)} == {job}
    details = cluster.command("scontrol", "show", "job", job).stdout
    assert "TimeLimit=04:15:00" in details  # two turns of 7200 s and the margin
    assert "NumCPUs=2" in details
    assert cluster.command("scontrol", "requeue", job).returncode == 0
    assert re.search("waiting|queued", status(command))
    output = finish(process, 0, timeout=120)
    assert "Submitted 12 runs as Slurm job" in output
    assert "in 3 tasks, 255 minutes each" in output
    results = command.results()
    assert command.statuses() == dict.fromkeys(range(1, 13), "completed")
    assert len({result["process"]["slurm_job_id"] for result in results.values()}) == 3
    assert results[2]["attempts"] == 2
    assert {results[seed]["attempts"] for seed in (3, 4, *range(5, 13))} == {1}
    assert results[2]["metrics"] == undisturbed(command)


@WITHOUT_ACCOUNTING
def test_a_task_of_several_runs_is_killed(cluster: Cluster, command: Command) -> None:
    """The run that was going on says so; the one whose turn had not come has no record, and resume does both."""
    shared = ["hydra.launcher.runs_per_task=2", *LONG]
    process = command.start(*TRIO, *shared)
    os.kill(parent(running(command, 1, 8)), signal.SIGKILL)
    finish(process, 1, timeout=90)
    assert command.statuses() == {1: "failed", 3: "completed"}
    shown = status(command)
    assert "1 completed, 1 failed, 1 pending" in shown
    resumed(command, *shared)
    assert command.results()[2]["attempts"] == 1


@WITHOUT_ACCOUNTING
def test_on_error_stop_within_a_task(cluster: Cluster, command: Command) -> None:
    """Neither the failed run's task nor another, whose first run goes on, starts any more."""
    words = ["task.fault=raise", "on_error=stop", "hydra.launcher.runs_per_task=3", *LONG]
    output = finish(command.start(*SWEEP, *SMALL, "seed=2,3,4,5,6,7", *words), 1, timeout=90)
    assert "on_error=stop" in output
    assert command.statuses() == {2: "failed", 5: "completed"}
    for word in ("runs_at_once=2", "runs_per_task=abc", "runs_per_task=1.5", "exclusive=maybe"):
        assert f"hydra.launcher.{word.split('=')[0]}=" in command(*TRIO, f"hydra.launcher.{word}", code=2)


@WITHOUT_ACCOUNTING
def test_a_shared_task_that_cannot_even_start(cluster: Cluster, command: Command) -> None:
    """Each of its runs failed with Slurm's words; where their task then dies, theirs are no news."""
    shared = ["hydra.launcher.runs_per_task=3", *LONG]
    command(*TRIO, *shared, "hydra.launcher.setup=[exit 3]", code=1)
    assert command.statuses() == {1: "failed", 2: "failed", 3: "failed"}
    assert {result["failure"]["cause"] for result in command.results().values()} == {"slurm FAILED"}
    process = command.start(*TRIO, *shared)
    os.kill(parent(running(command, 1, 4)), signal.SIGKILL)
    output = finish(process, 1, timeout=90)
    assert "Completed: 0, Failed: 1, Skipped: 0" in output
    resumed(command, *shared)


@WITHOUT_ACCOUNTING
def test_a_preempted_job_asks_for_its_restart(cluster: Cluster, command: Command) -> None:
    """A job of higher priority takes the node; after it, the run goes on from its checkpoint."""
    process = command.start(*SWEEP, "hydra.launcher.cpus_per_task=4", "hydra.launcher.mem_gb=0.5", "seed=2", *LONG)
    running(command, 2, 8)
    asked = ["sbatch", "--partition=urgent", "--cpus-per-task=4", "--mem=100M", "--output=/dev/null", "--wrap=sleep 2"]
    assert cluster.command(*asked).returncode == 0
    finish(process, 0, timeout=90)
    assert command.statuses() == {2: "completed"}
    assert command.results()[2]["attempts"] == 2
    assert command.results()[2]["metrics"] == undisturbed(command)


@WITHOUT_ACCOUNTING
def test_the_warning_signal_preempts(cluster: Cluster, command: Command) -> None:
    """A site that announces preemption with SIGUSR2: the job saves its state and asks to be requeued."""
    process = command.start(*TRIO, *LONG)
    running(command, 2, 8)
    assert cluster.command("scancel", "--signal=USR2", job_of(command, 2)).returncode == 0
    finish(process, 0, timeout=90)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    assert command.results()[2]["attempts"] == 2
    assert command.results()[2]["metrics"] == undisturbed(command)


def test_the_submitter_is_killed(cluster: Cluster, command: Command) -> None:
    """The jobs go on, status shows them, and the same command adopts them without starting any again."""
    longer = ["task.steps=60", "task.seconds=0.2"]
    process = command.start(*TRIO, *longer)
    running(command, 2, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "goes on in Slurm" in status(command)
    again = command.start(*TRIO, *longer)
    until(lambda: "running" in status(command))
    output = finish(again, 0, timeout=90)
    assert "Slurm has 3 of the runs already" in output
    assert "Submitted" not in output
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    assert {result["attempts"] for result in command.results().values()} == {1}


def test_a_job_dies_while_nobody_watches(cluster: Cluster, command: Command) -> None:
    process = command.start(*TRIO, *LONG)
    run = running(command, 2, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.kill(parent(run), signal.SIGKILL)
    until(lambda: not cluster.command("squeue", "--noheader").stdout.strip(), timeout=30)
    shown = status(command)
    assert "2 completed, 1 failed" in shown
    assert "signal 9" in shown
    assert command.results()[2]["failure"]["cause"] == "signal 9"
    resumed(command, *LONG)


@WITHOUT_ACCOUNTING
def test_ctrl_c_leaves_the_jobs(cluster: Cluster, command: Command) -> None:
    process = command.start(*TRIO, *LONG)
    running(command, 2, 2)
    interrupt(process)
    output = finish(process, 130, timeout=90)
    assert "Slurm goes on with 3 runs" in output
    assert "scancel" in output
    resumed(command, *LONG)
    assert {result["attempts"] for result in command.results().values()} == {1}


def test_scancel_interrupts(cluster: Cluster, command: Command) -> None:
    process = command.start(*TRIO, *LONG)
    running(command, 2, 8)
    assert cluster.command("scancel", job_of(command, 2)).returncode == 0
    finish(process, 1, timeout=90)
    assert command.statuses() == {1: "completed", 2: "interrupted", 3: "completed"}
    resumed(command, *LONG)
    assert command.results()[2]["metrics"] == undisturbed(command)


@WITHOUT_ACCOUNTING
def test_on_error_stop(cluster: Cluster, command: Command) -> None:
    words = ["task.fault=raise", "on_error=stop", "hydra.launcher.array_parallelism=1", *LONG]
    output = finish(command.start(*SWEEP, *SMALL, "seed=2,3,4", *words), 1, timeout=90)
    assert command.results()[2]["failure"]["message"] == "the task broke"
    assert "on_error=stop" in output
    assert "completed" not in command.statuses().values() or len(command.statuses()) < 3


@WITHOUT_ACCOUNTING
def test_a_refused_sweep(cluster: Cluster, command: Command) -> None:
    output = command(*TRIO, "hydra.launcher.partition=nowhere", code=2)
    assert "Slurm does not take the sweep" in output
    assert "partition" in output
    assert "hydra/launcher=slurm submits a sweep" in command("hydra/launcher=slurm", code=2)
    assert "margin_min=0 can't be" in command(*TRIO, "hydra.launcher.margin_min=0", code=2)


def test_a_job_that_cannot_even_start(cluster: Cluster, command: Command) -> None:
    output = command(*SWEEP, *SMALL, "seed=1,2", "hydra.launcher.setup=[exit 3]", code=1)
    assert command.statuses() == {1: "failed", 2: "failed"}, output
    assert {result["failure"]["cause"] for result in command.results().values()} == {"slurm FAILED"}
    command(*TRIO)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}


def status(command: Command) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sousa_bench.status", "multirun/s"],
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def undisturbed(command: Command) -> dict[str, Any]:
    """The metrics of the run with seed 2 and ``LONG``, done at one go."""
    value = 2.0
    for _ in range(60):
        value = (value * 1.1 + 1) % 7.3
    height = 0.9 - 0.2 - 0.04
    metrics = {"val_acc": height, "val_loss": 1 - height, "best_epoch": 4, "final_train_loss": 0.1}
    return metrics | dict.fromkeys(("val_f1_macro", "test_acc", "test_f1_macro"), value / 10) | {"final_val_loss": 0.1}


@WITHOUT_ACCOUNTING
@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "models", "devices"),
    [("slurm", "efficientat,beats", 1), ("slurm", "efficientat", 2), ("submitit_slurm", "efficientat", 1)],
)
def test_real_training(
    cluster: Cluster, command: Command, tmp_path: Path, launcher: str, models: str, devices: int
) -> None:
    """The real command line, trained and tested on Slurm: two models, one over two processes, Hydra's own preset."""
    words = [f"model={models}", "peft=lora", "data.synthetic.clips=40", "data.synthetic.split_players=[20,10,20]"]
    words += ["trainer.max_epochs=1", "logger=none", "trainer.accelerator=cpu", f"trainer.devices={devices}"]
    words += ["hydra.launcher.cpus_per_task=2", "hydra.launcher.mem_gb=2.8", "hydra.launcher.poll=1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sousa_bench.train", *SWEEP[:2], f"hydra/launcher={launcher}"),
            *(*words, f"data.cache_dir={tmp_path / 'cache'}"),
        ],
        cwd=command.folder,
        env={**command.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in command.folder.glob("multirun/s/*/result.json")]
    assert {result["config"]["model"] for result in results} == set(models.split(","))
    assert {result["status"] for result in results} == {"completed"}
    logs = list(command.folder.glob("multirun/s/*/run_rank1.log"))
    assert len(logs) == devices - 1
