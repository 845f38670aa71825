"""A report on other sounds than SOUSA's: the same statistics, in the words of their task."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.plots import all_plots
from sousa_bench.analysis.report.html_page import plotly_library
from sousa_bench.analysis.report.printed import render
from sousa_bench.analysis.study import compare
from sousa_bench.analysis.table import collect
from sousa_bench.analyze import main
from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.task import CLIP, Task
from tests.analysis.synthetic import write_folds, write_sweep

SOUSAS = re.compile("rudiment|player", re.IGNORECASE)
CLASSES = tuple(f"digit {number}" for number in range(len(RUDIMENTS)))
SPOKEN, LONE = Task(CLASSES, noun="digit", group="speaker"), Task(CLASSES)


def about(task: Task, root: Path) -> None:
    """Let the results below a folder be of another task: their predictions name its groups, or none."""
    for file in root.rglob("result.json"):
        result = json.loads(file.read_text())
        result["task"] = task.as_dict()
        result["per_class"] = dict(zip(task.classes, result["per_class"].values(), strict=False))
        result["data"]["groups"] = {"train": 50, "val": 10, "test": 19}
        file.write_text(json.dumps(result))
    for file in root.rglob("predictions.parquet"):
        table = pd.read_parquet(file).drop(columns=["rudiment", "skill_tier", "tempo_bpm", "soundfont"])
        names = table.pop("player").str.replace("player", "voice")
        groups = names if task.grouped else table["sample_id"]
        table.assign(group=groups).to_parquet(file)


def whole_comparison(root: Path) -> None:
    write_sweep(root, models=("ast", "beats"), strategies=("lora", "ia3"), seeds=(1, 2), statuses={3: "failed"})


def few_groups(root: Path) -> None:
    write_sweep(root, models=("ast",), strategies=("lora", "ia3"), players=5)


def no_predictions(root: Path) -> None:
    write_sweep(root, models=("ast",), strategies=("lora", "ia3"), predictions=False)


def folds(root: Path) -> None:
    write_folds(root, seeds=(1, 2))


def data_sets(root: Path) -> None:
    for seed, data in enumerate("uvxyz"):
        write_sweep(
            root / data, ("ast",), ("lora", "ia3"), (True,), per_player=20, data=f"set_{data}", seed=seed, players=10
        )


@pytest.mark.slow
@pytest.mark.parametrize("task", [SPOKEN, LONE], ids=["speakers", "clips"])
@pytest.mark.parametrize("write", [whole_comparison, few_groups, no_predictions, folds, data_sets])
def test_it_speaks_of_neither_rudiments_nor_players(
    write: Callable[[Path], None], task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "multirun")
    about(task, tmp_path)
    said, many = "", "19 speakers" if task is SPOKEN else "1,140 clips"
    for form in ("table", "json", "csv"):
        words = ["--no-images"] if form == "table" else ["--no-plots"]
        assert main([str(tmp_path / "multirun"), "--format", form, *words, "--output-dir", str(tmp_path / form)]) == 0
        said += "".join(capsys.readouterr())
    library = plotly_library()
    for file in (tmp_path / "table").iterdir():
        text = str(pd.read_parquet(file).columns) if file.suffix == ".parquet" else file.read_text()
        said += text.replace(library, "")
    assert [said[max(0, found.start() - 60) : found.end() + 40] for found in SOUSAS.finditer(said)] == []
    assert "passed over" not in said
    assert write is not whole_comparison or ("blocks of clips" in said) is (task is LONE)
    assert write is not whole_comparison or many in said
    assert task.group != CLIP or "speaker" not in said


def test_commands_keep_how_the_folder_is_read(tmp_path: Path) -> None:
    """The same clips again: no larger choice of SOUSA's, and nothing forgotten of what finds their labels."""
    write_sweep(tmp_path, models=("ast",), strategies=("lora", "ia3"), seeds=(1, 2), data="folder")
    about(SPOKEN, tmp_path)
    read = ("data.root=/d", "data.group_pattern=_([a-z]+)_", "data.columns.label=word", "data.classes=[no,yes]")
    for file in tmp_path.rglob("result.json"):
        made = json.loads(file.read_text())
        file.write_text(json.dumps(made | {"overrides": [*made["overrides"], *read, "data.clips.train=40"]}))
    steps = {step.title: step.commands for step in next_steps(compare(collect([tmp_path])), 3)}
    titles = {"The best 3 with more epochs", "Confirm on other speakers: the leader and its rivals, cross-validated"}
    assert titles <= {*steps}
    for command in (command for commands in steps.values() for command in commands):
        assert {*read, "data=folder", "data.clips.train=40"} <= {*shlex.split(command)}


def test_clips_of_one_group_decide_nothing(tmp_path: Path) -> None:
    """The first may be first by luck: it was tested no more than the others."""
    write_sweep(tmp_path, models=("ast",), strategies=("lora", "ia3"), players=1)
    about(SPOKEN, tmp_path)
    study = compare(collect([tmp_path]))
    [figure] = [plot for plot in all_plots(study, page=False) if plot.name == "pairwise_differences"]
    assert figure.caption.startswith("All test clips are by one speaker")
    assert render(study).count("not tested") == len(study.combinations)


@pytest.mark.slow
def test_columns_are_called_as_the_task_calls_its_groups(tmp_path: Path) -> None:
    whole_comparison(tmp_path / "multirun")
    about(SPOKEN, tmp_path)
    for task, own in ((SPOKEN, "speakers"), (Task(CLASSES, group="seed"), "groups")):
        for file in tmp_path.rglob("result.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"task": task.as_dict()}))
        assert main([str(tmp_path / "multirun"), "--no-plots", "--output-dir", str(tmp_path / own)]) == 0
        assert pd.read_csv(tmp_path / own / "combinations.csv")[own].unique().tolist() == [19]
        assert pd.read_csv(tmp_path / own / "comparisons.csv").columns[-1] in ("speakers", "seeds")
        assert pd.read_csv(tmp_path / own / "effects.csv")[task.groups].unique().tolist() == [19]
