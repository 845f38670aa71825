"""Installed as a wheel, the package works as well as from a clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def call(*words: str, cwd: Path, **environment: str) -> str:
    """Run a command; its output, or a failure that shows it."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked as pip would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    call("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT), cwd=folder)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_config_travels_inside_the_package(installed):
    inside = {str(path.relative_to(installed / "sousa_bench" / "conf")) for path in installed.glob("**/*.yaml")}
    assert inside == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").glob("**/*.yaml")}
    assert not (installed / "tests").exists()


@pytest.mark.slow
def test_the_embedded_weights_travel_inside_the_package(installed):
    own, found = (
        {path.name: path.read_bytes() for path in (place / "sousa_bench" / "models" / "embedded").iterdir()}
        for place in (ROOT, installed)
    )
    assert found == own
    assert len(own) == 2 * 9  # with a card each


@pytest.mark.slow
def test_what_a_published_model_hears_travels_inside_the_package(installed):
    for file in ("models/audioset_labels.csv", "predict/recorded_tags.json"):
        assert (installed / "sousa_bench" / file).read_bytes() == (ROOT / "sousa_bench" / file).read_bytes()


@pytest.mark.slow
def test_a_users_own_experiment_runs_from_the_wheel(installed, tmp_path):
    own = tmp_path / "mine" / "experiment"
    own.mkdir(parents=True)
    (own / "ranks.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      peft.r: 2,4\n"
    )
    small = [
        "data.synthetic.clips=40",
        "data.synthetic.split_players=[20,10,20]",
        "trainer.max_epochs=1",
        "logger=none",
    ]
    code = "import sys, sousa_bench.train as t; print(t.__file__); sys.argv = ['train', *sys.argv[1:]]; t.main()"
    arguments = ["--config-dir", "mine", "experiment=ranks", "model=efficientat", "sweep=ranks", *small]
    output = call("-c", code, *arguments, cwd=tmp_path, PYTHONPATH=str(installed), OMP_NUM_THREADS="1")
    assert str(installed) in output
    assert "2 of 2 runs completed" in output
    assert len(list((tmp_path / "multirun" / "ranks").glob("*/result.json"))) == 2
