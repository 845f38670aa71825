"""The command line of a search: the baseline, killing and resuming, pruning, failures, refusals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.sweep.running import Command, finish, until

optuna.logging.set_verbosity(optuna.logging.WARNING)
SEARCH = ("search=lora", "sweep=s")
UNPRUNED = "hydra.sweeper.pruner=null"


def trials(command: Command, name: str = "s") -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{command.folder / 'multirun' / name / 'study.db'}"
    return optuna.load_study(study_name="search", storage=url).get_trials(deepcopy=False)


def states(command: Command) -> list[str]:
    return [trial.state.name for trial in trials(command)]


def results(command: Command) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in command.folder.glob("multirun/s/*/result.json")]
    return sorted(found, key=lambda result: result["sweep"].get("trial", 0))


@pytest.mark.slow
def test_a_method_of_ones_own_brings_its_space(command: Command) -> None:
    """From a folder of the user's; the space is no part of a run, and its command starts no search."""
    method = command.folder / "mine" / "peft" / "own.yaml"
    method.parent.mkdir(parents=True)
    method.write_text(
        "_target_: peft.LoraConfig\nname: own\nlearning_rate: 1e-3\nr: 8\nsearch: {peft.r: 'choice(4,8)'}\n"
    )
    command("--config-dir", "mine", "search=own", "sweep=s", "hydra.sweeper.n_trials=2", UNPRUNED)
    assert {trial.params["peft.r"] for trial in trials(command)} <= {"4", "8"}
    first = results(command)[0]
    assert first["config"]["strategy"] == "own"
    assert first["resolved_config"]["peft"] == {
        "_target_": "peft.LoraConfig",
        "name": "own",
        "learning_rate": 1e-3,
        "r": 8,
    }
    assert "--config-dir mine -m sweep=s peft=own" in first["command"]


def finished(command: Command) -> int:
    return len(command.bytes_of())


@pytest.mark.slow
def test_the_baseline_comes_first_and_the_best_is_named_with_its_command(command: Command) -> None:
    output = command("-m", "hydra/sweeper=optuna", "+search=lora", "sweep=s", "hydra.sweeper.n_trials=5", UNPRUNED)
    done = trials(command)
    assert states(command) == ["COMPLETE"] * 5
    assert done[0].params == {"peft.learning_rate": 1e-3, "peft.r": "8"}
    assert [result["sweep"]["trial"] for result in results(command)] == [0, 1, 2, 3, 4]
    assert [result["metrics"]["val_acc"] for result in results(command)] == [trial.value for trial in done]
    assert [len(trial.intermediate_values) for trial in done] == [4] * 5
    manifest = json.loads((command.folder / "multirun/s/sweep.json").read_text())
    assert [job["index"] for job in manifest["jobs"]] == [1, 2, 3, 4, 5]
    assert len({Path(job["folder"]).name for job in manifest["jobs"]}) == 5
    best = max(done, key=lambda trial: trial.value)
    assert f"Best: trial {best.number}, val_acc={best.value:.4f} (baseline {done[0].value:.4f})" in output
    table = re.findall(r"^(\d) +([\d.e-]+) +(\d+) +completed +(0\.\d{4}) +0:\d\d$", output, re.MULTILINE)
    assert re.search(r"^trial +learning_rate +r +status +val_acc +time$", output, re.MULTILINE)
    assert table == [
        (str(trial.number), f"{trial.params['peft.learning_rate']:.3g}", trial.params["peft.r"], f"{trial.value:.4f}")
        for trial in done
    ]
    assert re.search(r"^Study: multirun/s/study\.db ", output, re.MULTILINE)
    [again] = re.findall(r"Run it: python -m sousa_bench\.train (.*)", output)
    assert "search" not in again
    assert "Completed already" in command(*shlex.split(again))


@pytest.mark.slow
def test_a_killed_search_goes_on_and_loses_nothing(command: Command) -> None:
    words = (*SEARCH, "n_jobs=2", "hydra.sweeper.n_trials=20", UNPRUNED, "task.seconds=0.05")
    process = command.start(*words)
    until(lambda: finished(command) >= 9, timeout=45)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not command.processes())
    before, kept = trials(command), command.bytes_of()
    assert 9 <= len(before) < 20
    output = command(*words)
    after = trials(command)
    assert [trial.number for trial in after] == list(range(20))
    assert states(command) == ["COMPLETE"] * 20
    for old in before:  # whatever it had drawn stands
        assert after[old.number].params.items() >= old.params.items()
        if old.state.name == "COMPLETE":
            assert after[old.number].value == old.value
    now = command.bytes_of()
    assert {path: now[path] for path in kept} == kept  # what was completed was not done again
    assert len(now) == 20 - (20 - len({trial.params["peft.learning_rate"] for trial in after}))
    assert "Search ended: 20 of 20 trials: 20 completed" in output
    assert "Experiment" not in command(*words)
    more = command(*words[:3], "hydra.sweeper.n_trials=22", *words[4:])
    assert more.count("Experiment ") == 2
    assert states(command) == ["COMPLETE"] * 22


@pytest.mark.slow
def test_ctrl_c_leaves_a_trial_for_the_next_time(command: Command) -> None:
    words = (*SEARCH, "hydra.sweeper.n_trials=3", UNPRUNED, "task.seconds=0.2")
    process = command.start(*words)
    until(lambda: finished(command) >= 1, timeout=30)
    until(lambda: len(list(command.folder.glob("multirun/s/*/history.json"))) >= 2, timeout=30)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process, 130)
    assert "1 not ended" in output
    [again] = re.findall(r"Go on with the trials that are left: python -m sousa_bench\.train (.*)", output)
    output += command(*shlex.split(again))
    assert states(command) == ["COMPLETE"] * 3, output
    assert results(command)[1]["attempts"] == 2


@pytest.mark.slow
def test_a_run_that_lags_behind_is_given_up_and_says_so(command: Command) -> None:
    space = "peft.learning_rate=tag(log,interval(1e-6,1e-4))"
    words = ("-m", "hydra/sweeper=optuna", space, "sweep=s", "hydra.sweeper.n_trials=3", "trainer.max_epochs=12")
    words = (*words, "hydra/sweeper/pruner=threshold", "hydra.sweeper.poll=0.05", "task.seconds=0.15")
    output = command(*words)  # exit code 0
    given_up = [trial for trial in trials(command) if trial.state.name == "PRUNED"]
    assert given_up
    assert [trial.number for trial in given_up] == [1, 2]  # the baseline, though it lies outside, is not
    records = [result for result in results(command) if result["status"] != "completed"]
    assert records
    for record in records:
        assert record["status"] == "interrupted"
        assert record["failure"]["cause"] == "pruned"
        assert "given up by the search's ThresholdPruner after epoch" in record["error"]
        assert record["metrics"] == {}
        assert 3 <= len(record["history"]) < 12
    assert re.search(r"^PRUNED: \w+: given up by the search's ThresholdPruner after epoch", output, re.MULTILINE)
    assert re.search(r"Search ended: 3 of 3 trials: 1 completed, 2 pruned", output)
    assert "Experiment" not in command(*words)
    command(*shlex.split(records[0]["command"])[3:])  # it goes on to its end when somebody asks for it
    assert [result["status"] for result in results(command)].count("completed") == 2


@pytest.mark.slow
def test_a_failed_trial_is_told_and_stops_nothing(command: Command) -> None:
    words = (*SEARCH, "hydra.sweeper.n_trials=4", UNPRUNED, "task.unstable=5e-3", "n_jobs=2")
    output = command(*words, code=1)
    failed = [trial for trial in trials(command) if trial.state.name == "FAIL"]
    assert 0 < len(failed) < 4
    assert all(trial.params["peft.learning_rate"] >= 5e-3 for trial in failed)
    assert len(trials(command)) == 4
    assert len(re.findall(r"^FAIL: trial \d+ \(peft.learning_rate=.*RuntimeError", output, re.MULTILINE)) == len(failed)


UNREADABLE = """
import runpy
from sousa_bench.search import search

tell = search._Search._tell

def blind(self, asked, job, outcome):
    read = search.record.read
    search.record.read = (lambda folder: {}) if asked.number == 1 else read
    tell(self, asked, job, outcome)
    search.record.read = read

search._Search._tell = blind
"""


@pytest.mark.slow
def test_a_completed_trial_whose_result_can_not_be_read_is_no_failed_one(command: Command) -> None:
    """As when descriptors run out: the trial is left for the next command, which takes the result as it stands."""
    real = command.program
    blind = command.folder / "blind.py"
    blind.write_text(f'{UNREADABLE}runpy.run_path({real[-1]!r}, run_name="__main__")\n')
    command.program = [real[0], str(blind)]
    words = (*SEARCH, "hydra.sweeper.n_trials=2", UNPRUNED)
    output = command(*words)
    assert "Warning: trial 1 is completed, but" in output
    assert states(command) == ["COMPLETE", "RUNNING"]
    kept = command.bytes_of()
    command.program = real
    command(*words)
    assert states(command) == ["COMPLETE"] * 2
    assert trials(command)[1].value == results(command)[1]["metrics"]["val_acc"]
    assert command.bytes_of() == kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search=lora", "peft.learning_rat=interval(1,2)"], "Did you mean peft.learning_rate"),
        (["-m", "peft.learning_rate=interval(1e-4,1e-2)"], "hydra/sweeper=optuna"),
    ],
)
def test_what_can_not_be_searched_is_refused_before_anything_starts(
    command: Command, words: list[str], says: str
) -> None:
    output = command(*words, code=2)
    assert output.startswith("Error: ")
    assert says in output
    assert not (command.folder / "multirun").exists()


@pytest.mark.slow
def test_trials_that_draw_the_same_values_are_run_once(command: Command) -> None:
    words = ("-m", "hydra/sweeper=optuna", "sweep=s", "peft.r=8,16", "hydra.sweeper.n_trials=6", "n_jobs=3", UNPRUNED)
    output = command(*words)
    assert states(command) == ["COMPLETE"] * 6
    assert len(results(command)) == output.count("Experiment ") == 2
    assert "Progress: 6/6 (100.0%)" in output or "Completed already 6/6" in output
    values = {(trial.params["peft.r"], trial.value) for trial in trials(command)}
    assert len(values) == 2
