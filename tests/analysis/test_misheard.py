"""Clips that all mishear: which they are, and their sound where the data are at hand, from nowhere else."""

from __future__ import annotations

import base64
import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from sousa_bench.analyze import main
from sousa_bench.data.sources.source import FolderSource
from tests.analysis.heard_clips import mishear_owls, write_heard, write_sounds
from tests.trained import Trained, home, trained

AUDIO = re.compile(r'<audio controls preload="metadata" src="data:audio/flac;base64,([^"]*)">')


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("birds") / "sounds")


@pytest.fixture
def runs(tmp_path: Path, sounds: Path) -> Path:
    return write_heard(tmp_path / "runs", sounds, mishear_owls)


def heard(report: Path) -> list[tuple[np.ndarray, int]]:
    """Samples and rate of each sound of a page."""
    page = (report / "report.html").read_text()
    return [sf.read(BytesIO(base64.b64decode(each)), dtype="int16") for each in AUDIO.findall(page)]


def test_the_clips_that_all_mishear_and_what_is_heard_in_them(runs: Path):
    assert main([str(runs), "--no-plots"]) == 0
    table = pd.read_csv(runs / "analysis" / "misheard_clips.csv")
    shown = table.assign(clip=table["clip"].str.rpartition("/")[2].str.partition("_")[0])
    columns = ["clip", "true_class", "heard_as", "heard_runs", "wrong_runs", "runs", "wrong_combinations"]
    assert shown[columns].values.tolist() == [
        ["owl0", "owl", "wren", 9, 9, 9, 3],
        ["owl2", "owl", "finch", 6, 9, 9, 3],
        ["owl1", "owl", "wren", 5, 6, 9, 3],
    ]
    summary = (runs / "analysis" / "summary_report.md").read_text()
    assert "Of 15 test clips, 3 are recognised by no combination. A" in summary
    assert "6 of 9" in summary
    assert "report.html" not in summary.partition("all mishear")[2].partition("##")[0]


def test_where_some_combination_recognises_each_clip_there_is_no_such_section(tmp_path: Path, sounds: Path):
    runs = write_heard(tmp_path / "runs", sounds, mishear_owls)
    assert main([str(runs), "--no-plots"]) == 0
    right = write_heard(tmp_path / "runs", sounds, lambda model, seed, clips: clips["label"].to_numpy())
    assert main([str(right), "--no-plots"]) == 0
    assert "mishear" not in (right / "analysis" / "summary_report.md").read_text()
    assert not (right / "analysis" / "misheard_clips.csv").exists()


def test_runs_that_are_no_better_than_luck_do_not_count(runs: Path):
    for file in runs.glob("beats_*/result.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"warnings": ["test accuracy 0.4 is not above chance"]}))
    assert main([str(runs), "--no-plots"]) == 0
    table = pd.read_csv(runs / "analysis" / "misheard_clips.csv")
    names = table["clip"].str.rpartition("/")[2].str.partition("_")[0]
    assert dict(zip(names, table["heard_runs"], strict=True)) == {"owl0": 6, "owl1": 3, "owl2": 3}
    assert set(table["runs"]) == {6}
    assert set(table["combinations"]) == {2}


def test_their_sound_is_on_the_page_where_the_command_names_the_folder(runs: Path, sounds: Path):
    assert main([str(runs), "--no-images", "--data", str(sounds)]) == 0
    found = heard(runs / "analysis")
    names = pd.read_csv(runs / "analysis" / "misheard_clips.csv")["clip"]
    assert len(found) == len(names) == 3
    for (samples, rate), name in zip(found, names, strict=True):
        whole, _ = sf.read(sounds / name, dtype="int16")
        assert (rate, len(samples)) == (16_000, 5 * 16_000)
        assert np.array_equal(samples, whole[: len(samples)])
    assert "report.html holds their sound" in (runs / "analysis" / "summary_report.md").read_text()


def test_no_folder_is_read_because_a_result_names_it(runs: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(FolderSource, "_states", lambda self, table: asked.append(str(self.root)))
    assert main([str(runs), "--no-images"]) == 0
    assert asked == []
    assert heard(runs / "analysis") == []
    assert "with the option --data" in (runs / "analysis" / "report.html").read_text()


def test_other_sounds_of_the_same_names_are_not_taken(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sounds: Path
):
    other = write_sounds(tmp_path / "other", seed=1)
    assert {path.relative_to(other) for path in other.rglob("*.wav")} == {
        path.relative_to(sounds) for path in sounds.rglob("*.wav")
    }
    assert main([str(runs), "--no-images", "--data", str(other)]) == 0
    assert heard(runs / "analysis") == []
    assert "it holds other clips than those that were tested" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_is_not_there_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(runs), "--no-images", "--data", "nowhere"]) == 1
    assert (
        capsys.readouterr().err == "error: --data nowhere: there is no such folder; name the one that holds the clips\n"
    )
    assert not (runs / "analysis").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "node",
    [
        {"layout": "os.system"},
        {"root": "/etc", "hub_id": "someone/else", "cache_dir": "/etc"},
        {"table": "../../etc/passwd"},
        {"columns": {"label": ["x"]}},
        {"clips": "all", "fold": {"k": 1}},
        {"synthetic": {"clips": 10**9, "seed": "x"}},
        {"synthetic": "../.."},
        {"name": None, "max_duration": "long"},
        {"group_pattern": "(a{1,99999999999999})"},
        {"table": "\x1b[2Jx\x07"},
    ],
    ids=str,
)
def test_what_a_foreign_result_says_of_its_data_breaks_nothing(
    runs: Path, sounds: Path, node: dict, capsys: pytest.CaptureFixture[str]
):
    for file in runs.glob("*/result.json"):
        content = json.loads(file.read_text())
        content["resolved_config"]["data"] |= node
        file.write_text(json.dumps(content))
    assert main([str(runs), "--no-images", "--data", str(sounds)]) == 0
    assert not {"\x1b", "\x07"} & set(capsys.readouterr().err)
    chooses_a_place = {"layout", "root", "synthetic"} & set(node)  # not taken over, so all is as without it
    assert len(heard(runs / "analysis")) == (3 if chooses_a_place else 0)


@pytest.mark.parametrize("block", ["process", "data", "resolved_config"])
def test_a_result_that_the_table_takes_with_an_odd_block_breaks_nothing(runs: Path, sounds: Path, block: str):
    for file in runs.glob("*/result.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {block: "odd"}))
    assert main([str(runs), "--no-images", "--data", str(sounds)]) == 0
    assert heard(runs / "analysis") == []


@pytest.fixture
def learnt(tmp_path: Path) -> Path:
    """Two real runs; that they say of themselves that they learnt nothing is not what is told here."""
    for run in (trained("32-true"), trained("bf16-mixed")):
        shutil.copytree(run.folder, tmp_path / "runs" / run.folder.name)
    for file in (tmp_path / "runs").glob("*/result.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"warnings": []}))
    return tmp_path / "runs"


@pytest.mark.slow
def test_real_runs_on_synthetic_clips_have_the_sound_of_this_machines_cache(
    learnt: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run: Trained = trained("32-true")
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(home() / "cache"))
    assert main([str(learnt), "--no-images"]) == 0
    found, files = heard(learnt / "analysis"), run.audio()
    names = pd.read_csv(learnt / "analysis" / "misheard_clips.csv")["clip"]
    assert len(found) == min(12, len(names)) > 0
    for (samples, rate), name in zip(found, names, strict=False):
        assert len(samples) / rate == pytest.approx(min(5.0, sf.info(files[name]).duration), abs=1e-3)
    other = tmp_path / "other"
    shutil.copytree(learnt, other)
    for file in other.glob("*/result.json"):
        content = json.loads(file.read_text())
        content["data"]["test_fingerprint"] = "0" * 64
        file.write_text(json.dumps(content))
    assert main([str(other), "--no-images"]) == 0
    assert heard(other / "analysis") == []
    assert "--data" not in capsys.readouterr().err
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(tmp_path / "empty"))
    assert main([str(learnt), "--no-images"]) == 0
    assert heard(learnt / "analysis") == []
    assert not (tmp_path / "empty" / "synthetic").exists(), "nothing is written anew for its sound"
    dataset = next(iter(files.values())).parents[1]
    while not (dataset / "labels").is_dir():
        dataset = dataset.parent
    assert main([str(learnt), "--no-images", "--data", str(dataset)]) == 0
    assert len(heard(learnt / "analysis")) == len(found)
