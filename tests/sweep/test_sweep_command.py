"""The command line of a sweep: plan, folders, skipping, errors, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sousa_bench.results.finished import finished_runs
from sousa_bench.system.cores import usable_cores
from tests.sweep.running import APP, ROOT, Command, finish, interrupt, running, until


def manifest(command: Command, name: str) -> dict:
    return json.loads((command.folder / "multirun" / name / "sweep.json").read_text())


def test_completes_and_says_how_far_it_is(command: Command) -> None:
    output = command("-m", "sweep=a", "seed=1,2,3")
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    name = command.of(2).name
    assert re.fullmatch(r"alpha_lora_aug_none_s2_[0-9a-f]{8}", name)
    assert f"Experiment 2/3: {name}\n" in output
    assert "Progress: 2/3 (66.7%)\nCompleted: 2, Failed: 0, Skipped: 0\nEstimated time remaining: 0." in output
    assert re.search(rf"^Completed: {name}: test_acc=\d\.\d{{4}}$", output, re.M)
    assert re.search(rf"^2 +{name} +completed +\d\.\d{{4}} +0:\d\d$", output, re.M)
    assert "3 of 3 runs completed" in output


@pytest.mark.slow
def test_the_record_holds_the_fixed_block(command: Command) -> None:
    command("-m", "sweep=a", "seed=1", "peft.r=4,16")
    results = [json.loads(path.read_text()) for path in command.folder.glob("multirun/a/*/result.json")]
    assert sorted(result["config"]["peft.r"] for result in results) == [4, 16]
    for result in results:
        digest = result["fingerprint"]
        assert re.fullmatch(rf"alpha_lora_aug_none_s1_{digest[:8]}_\d{{8}}_\d{{6}}", result["experiment_id"])
        assert result["config"]["strategy"] == "lora"
        assert result["config"]["augmentation"] is True
        assert result["sweep"]["name"] == "a"
        assert result["sweep"]["total"] == 2
        assert result["command"].startswith("python -m sousa_bench.train -m sweep=a seed=1 peft.r=")
        assert result["resolved_config"]["peft"]["r"] == result["config"]["peft.r"]
        assert result["process"]["pid"] > 0
        assert result["error"] is None


def test_completed_runs_are_never_done_twice(command: Command) -> None:
    command("-m", "sweep=a", "seed=1,2")
    assert re.search(r"^test_acc=\d\.\d{4}$", command("seed=3"), re.M)
    before = command.bytes_of()
    output = command("-m", "sweep=b", "seed=1,2,3,4")
    assert {path: path.read_bytes() for path in before} == before
    assert output.count("Completed already") == 3
    assert output.count("Experiment ") == 1
    jobs = manifest(command, "b")["jobs"]
    assert [job["status"] for job in jobs] == ["reused", "reused", "reused", "pending"]
    for job in jobs[:3]:
        assert (command.folder / "multirun" / "b" / job["result"]).resolve().is_file()
    assert "outputs" in jobs[2]["result"]


ODD_FIELDS = {
    "fingerprint": ["a"],
    "timestamp": 3,
    "experiment_id": 4,
    "status": 5,
    "error": 1e400,
    "process": {"pid": "x"},
    "metrics": {"val_acc": "abc"},
    "efficiency": {"training_time_seconds": 1e400},
    "history": "none",
    "attempts": "many",
    "failure": ["cause"],
    "warnings": json.loads("[" * 500 + "]" * 500),
}


@pytest.mark.slow
def test_odd_files_below_the_results_root_are_named_and_harm_nothing(command: Command) -> None:
    command("-m", "sweep=a", "seed=1")
    good = json.loads((command.of(1) / "result.json").read_text())
    texts = [json.dumps({**good, key: value}).replace("Infinity", "1e400") for key, value in ODD_FIELDS.items()]
    for number, text in enumerate([*texts, "[" * 10_000 + "]" * 10_000]):
        folder = command.folder / "multirun" / "odd" / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(text)
        (folder / "progress.json").write_text('{"epoch": [1], "step": "x", "updated": 1e400}')
        jobs = [{"fingerprint": "f" * 64, "index": "x"}, {"fingerprint": ["x"]}, {"fingerprint": "e" * 64, "folder": 3}]
        (folder.parent / f"sweep{number}").mkdir()
        (folder.parent / f"sweep{number}" / "sweep.json").write_text(json.dumps({"jobs": jobs, "name": number}))
    output = command("-m", "sweep=b", "seed=1,2")
    for number in range(len(ODD_FIELDS) + 1):
        assert len(re.findall(rf"Warning: .*/odd/{number}\b.*: can't be read as", output)) == 1, output
    assert "2 of 2 runs completed" in output
    for words in (["status", "multirun/odd"], ["status"], ["analyze", "--no-plots"]):
        python = [sys.executable, "-m", f"sousa_bench.{words[0]}", *words[1:]]
        told = subprocess.run(python, cwd=command.folder, env=command.environment, capture_output=True, text=True)
        assert "Traceback" not in told.stderr, told.stderr
        assert told.returncode == 0, told.stderr
    [run] = finished_runs([command.folder / "multirun" / "a", command.folder / "multirun" / "odd"])
    assert run.folder == command.of(1)


@pytest.mark.slow
def test_duplicates_are_dropped(command: Command) -> None:
    output = command("-m", "sweep=a", "peft.r=8,8.0,4", "task.steps=1")
    assert output.count("Experiment ") == 2
    assert [job["status"] for job in manifest(command, "a")["jobs"]] == ["pending", "duplicate", "pending"]


@pytest.mark.slow
def test_what_does_not_change_the_outcome_does_not_change_the_run(command: Command) -> None:
    command("-m", "sweep=a", "seed=1")
    assert "Completed already" in command("-m", "sweep=b", "seed=1", "timeout=99", "on_error=stop", "n_jobs=2")


@pytest.mark.slow
def test_force_runs_again_and_loses_nothing(command: Command) -> None:
    command("-m", "sweep=a", "seed=1")
    before = command.bytes_of()
    command("-m", "sweep=a", "seed=1", "force=true")
    assert before.items() < command.bytes_of().items()
    command("seed=5")
    command("seed=5", "force=true")
    assert len(list(command.folder.glob("outputs/*_s5_*/result.json"))) == 2


def test_resume_failed_runs_only_what_failed(command: Command) -> None:
    healed = command.folder / "healed"
    words = ["-m", "sweep=a", "seed=1,2", "task.fault=raise", f"task.healed={healed}"]
    command(*words, code=1)
    healed.touch()
    output = command(*words, "resume=failed")
    assert output.count("Experiment ") == 1
    words[2] = "seed=1,2,7"
    output = command(*words, "resume=failed", code=1)
    assert "Experiment " not in output
    assert "Skipped 3/3" in output


@pytest.mark.slow
def test_a_failed_run_is_named_with_the_command_that_runs_it_again(command: Command) -> None:
    healed = command.folder / "healed"
    output = command("-m", "sweep=a", "seed=1,2,3", "task.fault=raise", f"task.healed={healed}", code=1)
    name = command.of(2).name
    assert output.count(f"FAILED: {name}: RuntimeError: the task broke") == 2  # when it fails, and at the end
    [again] = re.findall(r"run it again: python -m sousa_bench\.train (.*)", output)
    assert again == f"-m sweep=a seed=2 task.fault=raise task.healed={healed}"
    healed.touch()
    command(*again.split())
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}
    assert len(manifest(command, "a")["jobs"]) == 3
    assert "Experiment" not in command("-m", "sweep=a", "seed=1,2,3", "task.fault=raise", f"task.healed={healed}")


@pytest.mark.slow
def test_what_fails_for_one_reason_is_said_once(command: Command) -> None:
    output = command("-m", "sweep=a", "seed=1,2,3", "task.fault=raise", "task.victim=${seed}", "n_jobs=1", code=1)
    first, second, third = (command.of(seed).name for seed in (1, 2, 3))
    assert re.findall(r"^FAILED: (.*)", output, re.M) == [
        f"{first}: RuntimeError: the task broke",
        f"{second}: for the same reason as {first}",
        f"{third}: for the same reason as {first}",
        f"3 runs ({first}, {second}, {third}): RuntimeError: the task broke",
    ]
    assert "run it again" not in output  # each; the command for all of them stands at the end
    assert re.search(r"^Go on with what is not completed: .*sweep=a", output, re.M)


def test_on_error_stop_starts_nothing_more(command: Command) -> None:
    output = command("-m", "sweep=a", "seed=1,2,3,4", "task.fault=raise", "on_error=stop", code=1)
    assert command.statuses() == {1: "completed", 2: "failed"}
    assert "Not run: 2" in output


@pytest.mark.slow
def test_a_key_that_only_the_varied_choices_have_reaches_each_run(command: Command) -> None:
    own = command.folder / "own" / "peft"
    own.mkdir(parents=True)
    for name in ("one", "two"):
        (own / f"{name}.yaml").write_text(
            f"_target_: peft.VeraConfig\nname: {name}\nlearning_rate: 1e-3\nprojection_prng_key: 1\n"
        )
    words = ["--config-dir", str(own.parent), "-m", "sweep=a", "peft=one,two", "peft.projection_prng_key=3"]
    output = command(*words)
    results = [json.loads(path.read_text()) for path in command.folder.glob("multirun/**/result.json")]
    given = [f"sweep=a peft={name} peft.projection_prng_key=3" for name in ("one", "two")]
    assert sorted(" ".join(result["overrides"]) for result in results) == given, output
    assert "2 of them earlier" in command(*words)
    assert "peft.prng: there is no such key. Did you mean peft.proj" in command(*words[:-1], "peft.prng=3", code=2)


@pytest.mark.slow
def test_a_single_run_lands_below_outputs_and_is_not_repeated(command: Command) -> None:
    output = command("seed=4")
    [result] = command.folder.glob("outputs/alpha_lora_aug_none_s4_*/result.json")
    assert f"Result: {result.relative_to(command.folder)}" in output
    assert json.loads(result.read_text())["sweep"] is None
    assert "Completed already" in command("seed=4")
    assert not (command.folder / "multirun").exists()


@pytest.mark.slow
def test_a_single_run_fails_with_one_message(command: Command) -> None:
    output = command("seed=2", "task.fault=raise", code=1)
    assert output.count("FAILED") == 1
    assert "run it again: python -m sousa_bench.train seed=2 task.fault=raise" in output


@pytest.mark.slow
def test_mistakes_get_one_message_and_start_nothing(command: Command) -> None:
    cases = {
        ("modle=alpha",): "modle: there is no such key. Did you mean model?",
        ("model=alhpa",): "model=alhpa: there is no such choice. Did you mean model=alpha? Choices: alpha,",
        ("-m", "seed=1,2", "model=alpha,alhpa"): "Did you mean model=alpha?",
        ("-m", "seed=1,2", "task.stepz=3"): "task.stepz: there is no such key. Did you mean task.steps",
        ("steps=3",): "Did you mean task.steps",
        ("n_jobs=0",): "n_jobs=0: it is the number of runs at the same time",
        ("n_jobs=100000000000",): "n_jobs=100000000000: it is the number of runs at the same time, 1 to",
        ("-m", "n_jobs=1,2"): "belong to the sweep",
        ("-m", "hydra.launcher.runs_per_gpu=0"): "hydra.launcher.runs_per_gpu=0: it is the most runs on a GPU",
        ("-m", "hydra.launcher.runs_per_gpu=many"): "hydra.launcher.runs_per_gpu=many: it is the most runs on a GPU",
        ("-m", "hydra.launcher.runs_per_gpu=auto", "+trainer.devices=2"): "auto measures runs of one GPU, and "
        "trainer.devices=2: give a number",
        ("seed=-1",): "seed=-1 can't be: it must be a whole number from 0 to 4294967295",
        ("-m", "seed=2**40"): "seed='2**40' can't be",
        ("-m", "sweep='a b'"): "sweep=a b: a sweep's name is a folder below multirun/",
        ("-m", "sweep='🥁'"): "sweep=🥁: a sweep's name is a folder below multirun/",
        ("-m", "sweep=../x"): "sweep=../x: a sweep's name is a folder below multirun/",
        ("-m", "sweep=wandb"): "sweep=wandb: readers of results enter no folder named wandb",
        ("-m", "sweep=x/.hidden"): "sweep=x/.hidden: readers of results enter no folder named .hidden",
        ("-m", "seed=range(0,0)"): "the sweep holds no run",
        ("resume=maybe",): "resume=maybe: it can be true, false or failed",
        ("timeout=-1",): "timeout=-1: it is a number of seconds",
        ("augmentation=true,false",): "augmentation=on,off: several values are a sweep, which needs -m",
        ("seed=[1",): "this is no override",
        ("model=1.5",): "must be a name, and one of them is a float",
        ("model=[1,2]",): "must be a name, and one of them is a list of numbers",
        ("peft.r=\x9b",): "peft.r= : this is no override",
    }
    for words, message in cases.items():
        output = command(*words, code=2)
        assert message in output, (words, output)
        assert output.count("\n") == 1, output
    assert not (command.folder / "multirun").exists()
    assert not (command.folder / "outputs").exists()


def test_an_unexpected_error_of_the_planning_is_told_as_it_is(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "planless_app.py"
    script.write_text(
        "import runpy\nfrom sousa_bench.sweep import session\n"
        "def plan(*_, **__): raise ValueError('the plan went wrong')\nsession.plan = plan\n"
        f"runpy.run_path({str(ROOT / 'tests/standin/app.py')!r}, run_name='__main__')\n"
    )
    command.program = [sys.executable, str(script)]
    assert command("seed=1", code=2) == "Error: ValueError: the plan went wrong\n"


@pytest.mark.slow
def test_odd_surroundings_are_borne_or_told_in_one_message(command: Command) -> None:
    odd = {
        "OMP_NUM_THREADS": "0",
        "TMPDIR": "/nowhere",
        "PYTHONOPTIMIZE": "1",
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
    }
    command.environment |= odd
    del command.environment["HOME"]
    command.program = ["sh", "-c", 'ulimit -n 64; exec "$@" <&- >&-', "sh", *APP]
    assert command("-m", "sweep=a", "seed=1,1,1") == ""
    [result] = command.results().values()
    assert (result["status"], result["environment"]["threads"] > "0") == ("completed", True)
    command.program = APP
    shutil.rmtree(command.folder / "multirun")
    (command.folder / "multirun").symlink_to("multirun")
    output = command("-m", "sweep=a", "seed=1", code=2)
    assert output.startswith("Error: ")
    assert output.count("\n") == 1


def stop_server(command: Command, process: subprocess.Popen[str]) -> None:
    """Halt the fork server while a run goes on: of the command's children the one that is no session of a run's."""
    run = running(command, 1)
    for pid in command.processes():
        if pid not in (process.pid, run) and os.getsid(pid) != run:
            os.kill(pid, signal.SIGSTOP)


@pytest.mark.slow
def test_a_fork_server_that_stands_still_is_started_anew(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "impatient_app.py"
    script.write_text(
        "import runpy\nfrom sousa_bench.sweep import spawner\nspawner.ANSWER_SECONDS = 3\n"
        f"runpy.run_path({str(ROOT / 'tests/standin/app.py')!r}, run_name='__main__')\n"
    )
    command.program = [sys.executable, str(script)]
    process = command.start("-m", "sweep=a", "seed=1,2", "task.seconds=0.3", "task.steps=5")
    stop_server(command, process)
    finish(process, timeout=60)
    assert command.statuses() == {1: "completed", 2: "completed"}


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_whose_fork_server_stands_still(command: Command) -> None:
    process = command.start("-m", "sweep=a", "seed=1,2", "task.seconds=0.3", "task.steps=5")
    stop_server(command, process)
    until(lambda: command.statuses() == {1: "completed"})
    interrupt(process)
    finish(process, 130)
    assert command.statuses().get(2, "interrupted") == "interrupted"


def test_the_old_spelling_of_augmentation_works(command: Command) -> None:
    command("-m", "sweep=a", "augmentation=true,false")
    names = sorted(path.name.split("_")[2] for path in command.folder.glob("multirun/a/alpha*"))
    assert names == ["aug", "noaug"]


@pytest.mark.slow
def test_two_sweeps_of_one_second_get_two_folders(command: Command) -> None:
    processes = [command.start("-m", f"seed={seed}") for seed in (1, 2, 3)]
    for process in processes:
        finish(process)
    assert len(list(command.folder.glob("multirun/*/*/sweep.json"))) == 3
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed"}


@pytest.mark.slow
def test_two_sweeps_into_one_folder_do_each_run_once(command: Command) -> None:
    words = ["-m", "sweep=a", "task.seconds=0.1", "task.steps=5"]
    processes = [command.start(*words, "seed=1,2,3"), command.start(*words, "seed=3,2,1,4")]
    for process in processes:
        finish(process)
    assert command.statuses() == {1: "completed", 2: "completed", 3: "completed", 4: "completed"}
    assert all(result["attempts"] == 1 for result in command.results().values())
    assert len(manifest(command, "a")["jobs"]) == 4


def test_what_takes_no_steps_is_done_first_and_numbers_are_those_of_the_plan(command: Command) -> None:
    rows = 'hydra.sweeper.combinations=[["peft=lora"],["peft=lora"],["peft=knn","peft.reads=last"]]'
    output = command("-m", "sweep=a", rows, "augmentation=off", "task.seconds=0.01")
    assert "Left out 2/3: " in output
    begun = re.findall(r"^Experiment (\d)/3: ", output, re.M)
    assert begun == ["3", "1"]
    assert "Progress: 2/2" in output


@pytest.mark.slow
def test_n_jobs_run_side_by_side_with_their_share_of_the_machine(command: Command) -> None:
    command.environment["CUDA_VISIBLE_DEVICES"] = "3,7"
    command.environment.pop("OMP_NUM_THREADS", None)
    output = command("-m", "sweep=a", "n_jobs=3", "seed=1,2,3", "task.seconds=0.3")
    assert output.index("Experiment 3/3") < output.index("Progress: 1/3")
    assert re.search(r"^\[2\] run of alpha, seed 2", output, re.M)
    assert "\x1b" not in output  # no line is redrawn where there is no terminal
    environments = [result["environment"] for result in command.results().values()]
    assert sorted(environment["gpus"] for environment in environments) == ["3", "3", "7"]
    assert {environment["threads"] for environment in environments} == {"1"}
    assert {environment["cores"] for environment in environments} == {usable_cores()}


@pytest.mark.slow
def test_submitit_s_local_launcher_is_this_machine_s(command: Command) -> None:
    """Its name and its ``timeout_min`` (here 3 s), whose end the supervisor sees to."""
    hang = ["task.fault=hang", "hydra.launcher.timeout_min=0.05", "hydra.launcher.grace=1"]
    command("-m", "sweep=a", "hydra/launcher=submitit_local", "timeout=600", "seed=1,2", *hang, code=1)
    assert command.statuses() == {1: "completed", 2: "timeout"}
    assert command.results()[2]["error"] == "exceeded timeout of 3 seconds"
    refused = command("-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=0", code=2)
    assert "hydra.launcher.timeout_min=0: it must be" in refused


@pytest.mark.slow
def test_another_launcher_of_hydra_is_supervised_too(command: Command) -> None:
    output = command("-m", "sweep=a", "hydra/launcher=basic", "seed=1,2", "task.fault=kill", code=1)
    assert command.statuses() == {1: "completed", 2: "failed"}
    assert "killed by signal 9" in output


def test_run_log_holds_the_output(command: Command) -> None:
    command("-m", "sweep=a", "seed=1")
    assert "run of alpha, seed 1, from step 0" in (command.of(1) / "run.log").read_text()


@pytest.mark.slow
def test_help_starts_no_server(command: Command) -> None:
    assert "== Config ==" in command("--help")
    assert "name: alpha" in command("--cfg", "job")


def test_a_single_run_of_which_nothing_failed_says_so(command: Command) -> None:
    output = command("seed=1", "resume=failed", code=1)
    assert re.search(r"^Not run: alpha_lora_aug_none_s1_\w+: resume=failed runs only what failed$", output, re.M)
    assert command.results() == {}


@pytest.mark.slow
def test_status_shows_a_sweep(command: Command) -> None:
    command("-m", "sweep=a", "seed=1,2,3", "task.fault=raise", "on_error=stop", code=1)
    shown = subprocess.run(
        [sys.executable, "-m", "sousa_bench.status"],
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split() for line in shown.splitlines()[2:5]]
    assert [row[2] for row in rows] == ["completed", "failed", "pending"]
    assert "RuntimeError: the task broke" in shown
    assert "go on with: python -m sousa_bench.train -m" in shown


@pytest.mark.slow
def test_other_interpreters_do_where_nothing_can_be_forked(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "spawn_app.py"
    script.write_text(
        "import runpy\nfrom sousa_bench.sweep import session\nsession.can_fork = lambda: False\n"
        f"runpy.run_path({str(ROOT / 'tests/standin/app.py')!r}, run_name='__main__')\n"
    )
    command.program = [sys.executable, str(script)]
    output = command("-m", "sweep=a", "seed=1,2,3", "task.fault=segfault", code=1)
    assert command.statuses() == {1: "completed", 2: "failed", 3: "completed"}
    assert "SIGSEGV" in output


def test_code_that_cannot_be_imported_is_one_error(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "broken_app.py"
    script.write_text(
        "import sys\nfrom tests.standin import app\nfrom sousa_bench.sweep import command_line\n"
        "command_line(app.job, target='tests.standin.training.run', modules=['tests.sweep.no_such_module'])\n"
    )
    command.program = [sys.executable, str(script)]
    output = command("-m", "sweep=a", "seed=1,2", code=2)
    assert "Error: the code of a run can't be imported: ModuleNotFoundError: No module named 'tests.sweep." in output
    assert not list(command.folder.glob("multirun/a/*/result.json"))
