"""From a sweep's best combinations to the command of the next sweep, and that command's runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sousa_bench.analysis.study import compare
from sousa_bench.analysis.table import collect
from sousa_bench.config.composing import composed
from sousa_bench.config.run_config import RunConfig
from sousa_bench.promote.__main__ import main
from sousa_bench.sweep.plan import Candidate
from tests.analysis.composed_runs import SHORT
from tests.analysis.synthetic import FOREIGN
from tests.sweep.running import Command

SWEEP = "multirun/2026-02-01/10-30-00"


@pytest.fixture
def asked(seeded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask for a command; its words, and what was said beside it."""
    monkeypatch.chdir(seeded)

    def ask(*words: str, code: int = 0) -> tuple[list[str], str]:
        assert main([*words, "--print"]) == code
        said = capsys.readouterr()
        return shlex.split(said.out), said.err

    return ask


def combinations(words: list[str]) -> list[dict[str, str]]:
    [listed] = [word for word in words if word.startswith("hydra.sweeper.combinations=")]
    rows = json.loads(listed.partition("=")[2])
    return [dict(word.split("=", 1) for word in row) for row in rows]


def test_the_best_by_validation_go_on_with_what_is_new(asked: Any, seeded: Path) -> None:
    words, said = asked(SWEEP, "--top", "3", "data=full", "trainer.max_epochs=50")
    assert words[:4] == ["python", "-m", "sousa_bench.train", "-m"]
    assert {"data=full", "trainer.max_epochs=50", "seed=1,2,3"} <= set(words)
    best = compare(collect([seeded / SWEEP]), "val_acc").combinations.head(3)
    shared = dict(word.split("=", 1) for word in words if word.startswith(("model=", "peft=", "augmentation=")))
    for row, (_, truth) in zip(combinations(words), best.iterrows(), strict=True):
        row = shared | row
        assert (row["model"], row["peft"]) == (truth["model"], truth["strategy"])
        assert row["augmentation"] == ("on" if truth["augmentation"] else "off")
        assert row["lineage.from"].count("10-30-00/") == 3
        assert f"{truth['val_acc']:.4f}  {truth['combination']} (3 runs)" in said
    assert 'lineage.command="python -m sousa_bench.promote ' in " ".join(words)
    assert "--print" not in " ".join(words)


def test_a_word_that_no_terminal_can_show_is_the_same_to_a_shell(
    seeded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "sweep=a\x1b[2J\x9b\n'\\é"
    assert main([str(seeded / SWEEP), "--top", "1", name, "--print"]) == 0
    line = capsys.readouterr().out
    assert not {"\x1b", "\x9b"} & set(line)
    assert line.count("\n") == 1
    script = f"printf '%s\\0' {line}"
    words = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")
    assert name in words
    assert words[:4] == ["python", "-m", "sousa_bench.train", "-m"]


def test_one_combination_needs_no_list(asked: Any) -> None:
    words, _ = asked(SWEEP, "--top", "1", "--seeds", "2")
    assert "seed=1,2" in words
    assert not any("combinations" in word for word in words)
    assert sum(word.startswith(("model=", "peft=", "augmentation=")) for word in words) == 3


def test_all_that_can_not_be_told_from_the_best(asked: Any, seeded: Path) -> None:
    words, _ = asked(SWEEP, "--undecided", "seed=7,8")
    study = compare(collect([seeded / SWEEP]), "val_acc")
    count = int(study.combinations["best_set"].sum())
    assert 1 < count < len(study.combinations)
    assert len(combinations(words)) == count
    assert "seed=7,8" in words


def test_what_was_not_tested_against_the_best_is_not_passed_over(
    seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(seeded, tmp_path, lambda result: None)
    for file in tmp_path.glob("multirun/**/predictions.parquet"):
        file.unlink()
    monkeypatch.chdir(tmp_path)
    assert main([SWEEP, "--undecided", "--print"]) == 1
    said = capsys.readouterr()
    assert "--undecided: " in said.err
    assert "combinations were not tested against the best one" in said.err
    assert said.out == ""
    assert main([SWEEP, "--top", "2", "--print"]) == 0


def test_a_filter_narrows_the_choice(asked: Any) -> None:
    words, _ = asked(SWEEP, "--top", "2", "--filter", "model=htsat", "data=full")
    assert "model=htsat" in words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((SWEEP, "--metric", "test_acc"), "choose by a validation metric"),
        ((SWEEP, "--metric", "val_nix"), "val_nix"),
        ((SWEEP, "--seeds", "2", "seed=1"), "say two things"),
        (("nowhere", "data=full"), "nowhere"),
        (("data=full",), "name the sweep"),
        ((SWEEP, "init_from=x"), "--warm"),
        ((SWEEP, "--warm"), "the trained weights"),
    ],
)
def test_what_can_not_be_promoted_is_one_message(asked: Any, words: tuple[str, ...], says: str) -> None:
    out, said = asked(*words, code=1)
    assert out == []
    assert said.startswith("error: ")
    assert says in said
    assert said.count("\n") == 1


def test_runs_that_are_not_comparable_are_not_ranked(
    seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(seeded / "multirun", tmp_path / "multirun")
    monkeypatch.chdir(tmp_path)
    for file in list(tmp_path.glob("multirun/**/result.json"))[:4]:
        result = json.loads(file.read_text())
        result["config"]["max_epochs"] = result["resolved_config"]["trainer"]["max_epochs"] = 5
        file.write_text(json.dumps(result))
    assert main(["multirun", "--print"]) == 1
    [such] = re.findall(r"such as --filter (max_epochs=\d+)", capsys.readouterr().err)
    assert main(["multirun", "--print", "--filter", such]) == 0


def edited(seeded: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A copy of the sweep below ``tmp_path``, each result changed."""
    shutil.copytree(seeded / "multirun", tmp_path / "multirun", dirs_exist_ok=True)
    for file in tmp_path.glob("multirun/**/result.json"):
        result = json.loads(file.read_text())
        change(result)
        file.write_text(json.dumps(result))


@pytest.fixture
def changed(
    seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[list[str], str]]:
    """What is asked for from a copy of the sweep whose results are changed."""
    monkeypatch.chdir(tmp_path)

    def ask(change: Callable[[dict[str, Any]], None], *words: str, code: int = 0) -> tuple[list[str], str]:
        edited(seeded, tmp_path, change)
        assert main(["multirun", "--print", *words]) == code
        said = capsys.readouterr()
        return shlex.split(said.out), said.err

    return ask


def test_what_a_run_began_with_is_left_out_and_said(changed: Any) -> None:
    def change(result: dict[str, Any]) -> None:
        result["overrides"] += ["init_from=multirun/zero/run", "n_jobs=2"]

    words, said = changed(change, "--top", "1")
    assert not any("init_from" in word or "n_jobs" in word for word in words)
    assert "Left out" in said
    assert "init_from=multirun/zero/run" in said


OF_A_START = ("peft.learning_rate=0.1", "trainer.learning_rate=0.2", "peft.batch_norm=train", "model.variant=tiny")


@pytest.mark.parametrize(
    ("new", "stays"),
    [
        ("weights=official", ["peft.r=4", "trainer.weight_decay=0.3"]),
        ("model=beats", ["peft.r=4", "trainer.weight_decay=0.3"]),
        ("weights=embedded", [*OF_A_START, "peft.r=4", "trainer.weight_decay=0.3"]),
        ("peft=ia3", ["model.variant=tiny", "trainer.weight_decay=0.3"]),
        ("model.weights=official", ["peft.r=4", "trainer.weight_decay=0.3"]),
    ],
)
def test_other_weights_another_model_or_method_have_their_own_defaults(
    changed: Any, seeded: Path, new: str, stays: list[str]
) -> None:
    given = (*OF_A_START, "peft.r=4", "trainer.weight_decay=0.3")

    def change(result: dict[str, Any]) -> None:
        result["overrides"] += given
        result["resolved_config"]["model"]["weights"] = "embedded"

    best = compare(collect([seeded / SWEEP]), "val_acc").combinations.iloc[0]
    for same in (f"model={best['model']}", f"peft={best['strategy']}"):
        assert set(given) <= set(changed(change, "--top", "1", same)[0])
    words, said = changed(change, "--top", "1", new)
    assert new in words
    assert [word for word in given if word in words] == [word for word in given if word in stays]
    assert all((word in said) == (word not in stays) for word in given)


def test_overrides_go_on_as_they_were_written(changed: Any) -> None:
    def change(result: dict[str, Any]) -> None:
        result["overrides"] += ["+peft.extra=1", "~logger", "++trainer.other='a b'", "data.root=../data"]

    words, _ = changed(change, "--top", "2")
    assert {"+peft.extra=1", "~logger", "++trainer.other='a b'", "data.root=../data"} <= set(words)


@pytest.mark.parametrize("override", FOREIGN)
def test_an_override_that_may_execute_code_is_named_and_its_run_not_promoted(changed: Any, override: str) -> None:
    def change(result: dict[str, Any]) -> None:
        if result["config"]["model"] == "ast":
            result["overrides"].append(override)

    words, said = changed(change, "--top", "9")
    assert "Not promoted: " in said
    assert repr(override) in said
    assert override not in " ".join(words)
    assert "model=htsat" in " ".join(words)


def test_where_no_run_may_be_promoted_that_is_the_message(changed: Any) -> None:
    def change(result: dict[str, Any]) -> None:
        result["overrides"] = ["experiment=../../evil"]

    words, said = changed(change, code=1)
    assert words == []
    assert "error: Not promoted: " in said


def test_an_experiments_limits_stay_behind_and_its_choices_go_on(changed: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "trial.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /trainer: smoke\n  - override /logger: csv\n"
        "gradient_checkpointing: true\n"
    )

    def change(result: dict[str, Any]) -> None:
        result["overrides"] = ["experiment=trial", *result["overrides"]]
        result["resolved_config"]["trainer"] |= {"train_batches": 3, "eval_batches": 2}

    words, said = changed(change, "--top", "1", "--config-dir", str(folder.parent))
    assert not any(word.startswith(("experiment", "trainer=", "trainer.train_batches")) for word in words)
    assert {"logger=csv", "gradient_checkpointing=true"} <= set(words)
    assert "trainer=smoke" in said


def test_a_list_of_an_experiment_goes_on_as_one(changed: Any, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\npeft: {targets: [attention, mlp]}\n")
    words = ["experiment=mine", "model=ast", "peft=lora", "augmentation=off", *SHORT]
    config = composed(words, own)

    def change(result: dict[str, Any]) -> None:
        result["overrides"], result["resolved_config"] = words, OmegaConf.to_container(config, resolve=True)

    printed, _ = changed(change, "--top", "1", "--config-dir", str(own), "seed=42")
    asked = [word for word in printed[printed.index("-m", 3) + 1 :] if not word.startswith("lineage.")]
    assert "peft.targets=[attention,mlp]" in asked
    assert Candidate.of(RunConfig(composed(asked)), asked).digest == Candidate.of(RunConfig(config), words).digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inside", "given", "new", "there"),
    [
        ({"r": 4, "lora_alpha": 32}, ["peft.budget=1%"], [], {"++peft.r=4", "peft.budget=1%"}),
        ({"budget": "1%"}, ["peft.budget=null", "peft.r=4"], [], {"peft.r=4", "peft.budget=null"}),
        ({"budget": "1%"}, [], [], {"peft.budget='1%'"}),
        ({"r": 4}, [], ["peft.budget=1%"], {"++peft.r=4", "peft.budget=1%"}),
        ({"budget": "1%"}, ["peft.lora_alpha=32"], ["peft.r=4"], {"peft.r=4", "peft.lora_alpha=32"}),
        ({}, ["peft=adalora", "peft.target_r=3"], ["peft.budget=1%"], {"++peft.target_r=3", "peft.budget=1%"}),
    ],
)
def test_a_size_and_a_budget_go_on_as_one_run(
    changed: Any, tmp_path: Path, inside: dict[str, Any], given: list[str], new: list[str], there: set[str]
) -> None:
    """Each run that a command names is the one that was, but for what is new: none is refused for holding both."""
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    experiment = {"defaults": [{"override /peft": "lora"}, {"override /augmentation": "off"}], "peft": inside}
    (own / "experiment" / "trial.yaml").write_text(f"# @package _global_\n{OmegaConf.to_yaml(experiment)}")
    words = ["experiment=trial", "model=ast", *SHORT, *given]
    config = composed(words, own)

    def change(result: dict[str, Any]) -> None:
        result["overrides"], result["resolved_config"] = words, OmegaConf.to_container(config)

    printed, _ = changed(change, "--top", "1", "--config-dir", str(own), "seed=42", *new)
    asked = [word for word in printed[printed.index("-m", 3) + 1 :] if not word.startswith("lineage.")]
    assert there <= set(asked)
    promoted = Candidate.of(RunConfig(composed(asked)), asked)
    assert promoted.refusal is None
    if not new:
        assert promoted.digest == Candidate.of(RunConfig(config), words).digest


def test_limits_of_another_trainer_are_lifted(changed: Any) -> None:
    def change(result: dict[str, Any]) -> None:
        result["overrides"] += ["trainer=mine"]
        result["resolved_config"]["trainer"]["eval_batches"] = 2

    words, said = changed(change, "--top", "1")
    assert {"trainer=mine", "trainer.eval_batches=null"} <= set(words)
    assert "trainer.eval_batches=2" in said


def test_where_one_seed_is_pinned_all_are(changed: Any, seeded: Path, tmp_path: Path) -> None:
    def change(result: dict[str, Any]) -> None:
        result["weights"] = {"kind": "random"}
        if result["config"]["strategy"] == "lora":
            result["resolved_config"]["peft"]["trains"] = "all"

    for file in seeded.glob("multirun/**/result.json"):
        (tmp_path / file.parent.relative_to(seeded) / "adapter").mkdir(parents=True)
    words, said = changed(change, "--top", "8", "--warm")
    assert not any(word.startswith("seed=") for word in words)
    rows = combinations(words)
    assert len(rows) == 8
    assert all(row["init_from"].split("_s")[-1].startswith(f"{row['seed']}_") for row in rows)
    assert "One seed each" in said


def test_what_only_some_remove_is_refused(changed: Any) -> None:
    def change(result: dict[str, Any]) -> None:
        result["overrides"] += ["~logger"] if result["config"]["strategy"] == "lora" else []

    assert "~logger: not all of these" in changed(change, "--top", "4", code=1)[1]


@pytest.mark.slow
def test_a_list_of_combinations_is_a_sweep(command: Command) -> None:
    listed = 'hydra.sweeper.combinations=[["model=alpha","peft.r=4"],["model=beta","peft.r=16","augmentation=off"]]'
    output = command("-m", "sweep=c", listed, "task.seconds=0.01", "seed=1,2")
    assert "4 of 4 runs completed" in output
    results = [json.loads(path.read_text()) for path in command.folder.glob("multirun/c/*/result.json")]
    done = {
        (r["config"]["model"], r["config"]["peft.r"], r["config"]["augmentation"], r["config"]["seed"]) for r in results
    }
    assert done == {("alpha", 4, True, 1), ("alpha", 4, True, 2), ("beta", 16, False, 1), ("beta", 16, False, 2)}
    assert all("combinations" not in result["command"] for result in results)  # a run's own command names one run
    assert "Completed already" in command(*shlex.split(results[0]["command"])[3:])
    assert "set both in" in command("-m", listed, "model=alpha", code=2)
    assert "sets model twice" in command("-m", "hydra.sweeper.combinations=[['model=alpha','model=beta']]", code=2)


@pytest.mark.slow
def test_the_lineage_stands_in_the_record_and_changes_no_identity(command: Command) -> None:
    command("-m", "sweep=a", "seed=1")
    [parent] = command.folder.glob("multirun/a/*/result.json")
    first = json.loads(parent.read_text())
    place = parent.parent.relative_to(command.folder)
    words = (
        "-m",
        "sweep=b",
        "seed=1,2",
        f"lineage.from=[{place},gone/with_s1_00000000]",
        "lineage.command='promote it'",
    )
    assert "Completed already" in command(*words)
    [path] = command.folder.glob("multirun/b/*/result.json")
    result = json.loads(path.read_text())
    assert result["lineage"] == {
        "command": "promote it",
        "from": [
            {
                "experiment_id": first["experiment_id"],
                "fingerprint": first["fingerprint"],
                "val_acc": first["metrics"]["val_acc"],
            },
            {"experiment_id": "with_s1_00000000", "fingerprint": None, "val_acc": None},
        ],
        "warm": False,
    }
    assert re.search(r"lineage", result["command"])
    assert "lineage" not in first
