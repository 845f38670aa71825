"""The recipe "A section of the report": the real command, with a module of the user's on PYTHONPATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.analysis.synthetic import write_sweep

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("runs") / "multirun", models=("ast", "beats"), strategies=("lora",))


def analyze(runs: Path, mine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sousa_bench.analyze", str(runs), "--no-images", "--output-dir", str(mine / "out")]
    environment = {**os.environ, "PYTHONPATH": str(mine)}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


@pytest.mark.slow
def test_the_recipes_section_stands_in_summary_and_page(runs: Path, tmp_path: Path):
    recipe = PAGE.read_text().split("## A section of the report")[1].split("```python\n")[1].split("```")[0]
    (tmp_path / "my_sections.py").write_text(recipe)
    done = analyze(runs, tmp_path, "--section", "my_sections:hours")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "summary_report.md").read_text()
    section = text.split("## Hours of training")[1].split("\n## ")[0]
    assert "| combination" in section
    assert "| beats + lora (with aug) |" in section
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<a href="#hours">Hours</a>' in page
    assert '<section id="hours"><h2>Hours of training</h2>' in page
    assert 'id="plot-hours_of_training"' in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:section", "No module named 'nowhere'"),
        ("my_sections:missing", "has no attribute 'missing'"),
        ("my_sections", "Write MODULE:FUNCTION"),
        ("my_sections:TITLE", "TITLE is no function"),
    ],
)
def test_a_section_that_is_not_there_is_one_message(runs: Path, tmp_path: Path, name: str, message: str):
    (tmp_path / "my_sections.py").write_text("TITLE = 'x'")
    done = analyze(runs, tmp_path, "--no-plots", "--section", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --section {name}: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
