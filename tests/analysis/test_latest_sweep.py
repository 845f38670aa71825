"""Which sweep is analysed where none is named, and how much is printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sousa_bench.results.result import write_json
from sousa_bench.results.scan import latest_sweep
from tests.analysis.synthetic import write_sweep


def several_sweeps(home: Path) -> Path:
    """Below ``home/multirun`` two comparisons, a search over two keys, and a promotion, changed last."""
    root = home / "multirun"
    searched = {"peft.r": (4, 8, 16), "trainer.learning_rate": (0.00031622776601683794, 0.001)}
    kinds = {
        "first": {},
        "second": {"strategies": ("lora", "ia3"), "data": "mini"},
        "search": {"models": ("beats",), "strategies": ("lora",), "augmentations": (True,), "extra": searched},
        "promoted": {"models": ("beats", "ast"), "strategies": ("lora",), "seeds": (1, 2, 3), "max_epochs": 30},
    }
    root.mkdir()
    for number, (name, kind) in enumerate(kinds.items()):
        made = write_sweep(home / name, **kind)
        shutil.move(made, root / name)
        manifest = json.loads((root / name / "sweep.json").read_text())
        command = f"python -m sousa_bench.train -m sweep={name}"
        write_json(root / name / "sweep.json", manifest | {"name": name, "command": command})
        os.utime(root / name / "sweep.json", (1e9 + number, 1e9 + number))
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    several_sweeps(folder)
    return folder


def analyze(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sousa_bench.analyze", *words, "--no-images"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_without_a_folder_the_latest_sweep_is_analysed_in_few_lines(home: Path):
    done = analyze(home)
    assert latest_sweep(home / "multirun") == home / "multirun" / "promoted"
    said = [*done.stderr.splitlines(), *done.stdout.splitlines()]
    assert len(said) <= 40, said
    assert max(map(len, said)) <= 100, max(said, key=len)
    first = done.stdout.splitlines()[0]
    assert first.startswith("beats + lora, aug: ")
    *_, answer, counts = done.stderr.splitlines()
    assert answer == first
    assert counts == "12 total, 12 completed. Report: multirun/promoted/analysis/report.html"
    assert (home / "multirun" / "promoted" / "analysis" / "report.html").is_file()
    assert "multirun/promoted is the latest; 3 other sweeps lie below multirun" in done.stderr


@pytest.mark.slow
def test_where_nothing_was_trained_the_first_command_is_named(tmp_path: Path):
    for _ in range(2):
        command = [sys.executable, "-m", "sousa_bench.analyze"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: nothing has been trained yet: multirun/ and outputs/ hold no run; begin")
        (tmp_path / "multirun").mkdir(exist_ok=True)


@pytest.mark.slow
def test_single_runs_are_found_where_there_is_no_sweep(tmp_path: Path):
    shutil.move(write_sweep(tmp_path / "made"), tmp_path / "outputs")
    (tmp_path / "outputs" / "sweep.json").unlink()
    assert "Report: outputs/analysis/report.html" in analyze(tmp_path).stderr
    status = [sys.executable, "-m", "sousa_bench.status"]
    done = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("outputs: 24 completed")


def test_a_reader_who_has_enough_sees_no_traceback(home: Path, tmp_path: Path):
    words = [sys.executable, "-m", "sousa_bench.analyze", "--no-plots", "--output-dir", str(tmp_path)]
    with subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018
        process.stdout.close()
        said = process.stderr.read()
    assert "Traceback" not in said
    assert "Broken pipe" not in said


def test_only_a_regular_manifest_makes_a_sweep(tmp_path: Path):
    for name in ("linked", "folder", "sound"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "sweep.json").symlink_to(tmp_path / "gone.json")
    (tmp_path / "folder" / "sweep.json").mkdir()
    assert latest_sweep(tmp_path) is latest_sweep(tmp_path / "folder") is latest_sweep(tmp_path / "linked") is None
    (tmp_path / "sound" / "sweep.json").write_text("{}")
    assert latest_sweep(tmp_path) == tmp_path / "sound"


@pytest.mark.slow
def test_all_sweeps_get_an_answer_a_cohort_and_none_is_ranked_with_another(home: Path, tmp_path: Path):
    done = analyze(home, "multirun", "--output-dir", str(tmp_path))
    assert max(map(len, done.stdout.splitlines())) <= 100
    parts = done.stdout.split("\n\nCohort ")
    assert [part[0] for part in parts[1:]] == ["A", "B", "C"]
    assert [line[:3] for line in parts[0].splitlines() if line[1:3] == ": "] == ["A: ", "B: ", "C: "]
    for part in parts[1:]:
        places = [line.split()[0] for line in part.splitlines() if line.split()[0].isdigit()]
        assert places[:4] == ["1", "2", "3", "4"]
    page = (tmp_path / "report.html").read_text()
    assert all(f'id="figure-leaders_{letter}"' in page for letter in "ABC")
    assert page.count('class="verdict"') == 3


def test_without_a_sweep_all_results_are_analysed(tmp_path: Path):
    write_sweep(tmp_path / "multirun", models=("ast",), manifest=False)
    done = analyze(tmp_path, "--no-plots")
    assert done.stderr.splitlines()[-1] == "6 total, 6 completed. Report: multirun/analysis/summary_report.md"
