"""From a finished sweep to a student of its best run, and to a report that shows both."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.config import conf_folder
from sousa_bench.promote.__main__ import EXAMPLES, main
from sousa_bench.sweep.plan import refusal
from tests.promote.test_promote_command import SWEEP
from tests.trained import command, trained

STUDENT = ["model=efficientat", "model.variant=mn01", "weights=random", "trainer.max_epochs=1"]


@pytest.fixture
def asked(seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask for a student of the synthetic sweep's best run, in whose folder there are weights."""
    shutil.copytree(seeded / "multirun", tmp_path / "multirun")
    for file in tmp_path.glob("multirun/**/result.json"):
        (file.parent / "adapter").mkdir()
        result = json.loads(file.read_text())
        result["overrides"] += ["data.fold=1/5", "trainer.max_epochs=9", "peft.r=4", "augmentation.mixup.alpha=0.2"]
        file.write_text(json.dumps(result))
    monkeypatch.chdir(tmp_path)

    def ask(*words: str, code: int = 0) -> tuple[list[str], str]:
        assert main([SWEEP, "--distil", *words, "--print"]) == code
        said = capsys.readouterr()
        return shlex.split(said.out), said.err

    return ask


def test_a_student_has_its_teachers_clips_and_nothing_else_of_it(asked: Any, tmp_path: Path) -> None:
    words, said = asked("model=efficientat", "seed=7")
    best = compare(collect([tmp_path / SWEEP]), "val_acc")
    row = best.combinations.iloc[0]
    augmentation = f"augmentation={'on' if row['augmentation'] else 'off'}"
    assert {"model=efficientat", "data.fold=1/5", "augmentation.mixup.alpha=0.2", augmentation, "seed=7"} <= set(words)
    assert not any(word.startswith(("peft", "trainer", "lineage.from", "init_from")) for word in words)
    [teacher] = [word.removeprefix("teacher.run=") for word in words if word.startswith("teacher.")]
    scores = best.table.iloc[list(row["rows"])].set_index("folder")["val_acc"]
    assert Path(teacher).resolve() == Path(scores.idxmax()).resolve()
    assert said.startswith("The teacher of ")
    assert row["combination"] in said
    assert not any(word.startswith("data.fold") for word in asked("model=efficientat", "data=full")[0])
    words, said = asked("model=efficientat", "augmentation=off")
    assert "augmentation=off" in words
    assert not any(word.startswith("augmentation.") for word in words)
    assert "augmentation.mixup.alpha=0.2" in said


def test_a_student_from_random_weights_trains_all_of_them(asked: Any) -> None:
    words, said = asked(*STUDENT)
    assert "peft=full" in words
    assert "all its weights (peft=full)" in said
    assert "What a teacher was worth" not in said  # it has epochs of its own
    assert "What a teacher was worth" in asked(*STUDENT[:-1])[1]
    assert "What a teacher was worth" not in asked("model=cnn", "weights=random")[1]
    assert not any(word.startswith("peft") for word in asked("model=efficientat", "weights=official")[0])
    words, _ = asked(*STUDENT, "peft=lora")
    assert [word for word in words if word.startswith("peft")] == ["peft=lora"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say which model the student is"),
        (("model=ast", "--warm"), "--distil and --warm"),
        (("model=ast", "teacher.run=x"), "teacher.run: --distil sets this itself"),
        (("model=ast", "teacher.weight=0.5"), None),
    ],
)
def test_what_is_no_student_is_one_message(asked: Any, words: tuple[str, ...], says: str | None) -> None:
    out, said = asked(*words, code=0 if says is None else 1)
    if says is None:
        assert "teacher.weight=0.5" in out
    else:
        assert said.startswith("error: ")
        assert says in said
        assert said.count("\n") == 1


def test_a_student_that_is_named_as_an_example_can_be_trained(asked: Any) -> None:
    shown = [line.split("--distil ")[-1] for line in f"{asked(code=1)[1]}{EXAMPLES}".splitlines()]
    examples = [line.split() for line in shown if line.startswith("model=")]
    assert len(examples) == 2
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        assert [refusal(compose("config", example)) for example in examples] == [None, None]


@pytest.mark.slow
def test_a_student_stands_beside_its_teacher(tmp_path: Path) -> None:
    teacher = trained()
    done = command(
        "promote", "multirun/tiny", "--filter", "trainer.precision=32-true", "--distil", *STUDENT, "seed=1",
        "sweep=students", "trainer.train_batches=2", "trainer.batch_size=4", "logger=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = (teacher.home / "multirun" / "students").glob("*/result.json")
    result, name = json.loads(file.read_text()), teacher.result["experiment_id"]
    taught_by = result["lineage"]["teacher"]
    assert result["lineage"]["command"].startswith("python -m sousa_bench.promote")
    assert result["lineage"]["from"] == []
    assert taught_by["experiment_id"] == name
    assert taught_by["test_acc"] == teacher.result["metrics"]["test_acc"]
    assert result["resolved_config"]["data"]["synthetic"]["clips"] == 40
    assert not any("teacher.run" in warning for warning in result["warnings"])

    done = command("analyze", "multirun/students", "--no-images", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "summary_report.md").read_text()
    section = report.split("## Students and teachers")[1].split("\n## ")[0]
    [row] = [line for line in section.splitlines() if name in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert f"{result['metrics']['test_acc']:.4f}" in cells
    assert f"{teacher.result['metrics']['test_acc']:.4f}" in cells
    assert f"learnt from {name}" in report.split("## Where these runs come from")[1]
    table = pd.read_csv(tmp_path / "comparison_table.csv")
    assert table["lineage.teacher_params"].tolist() == [teacher.result["efficiency"]["total_params"]]

    study = compare(collect([file.parent]))
    commands = [command for step in next_steps(study, 5) for command in step.commands]
    kept = [line for line in commands if "teacher.run=" in line]
    assert kept
    assert not any("peft=probe" in line or "data.fold" in line for line in kept)
