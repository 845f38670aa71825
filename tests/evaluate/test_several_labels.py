"""Clips with several labels each, from the training command to the report: tones of which one, two or none sound."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.metrics import average_precision_score

from sousa_bench.analysis.report.html_page import plotly_library
from sousa_bench.inference.answer import Answer, stretch_text, timeline
from sousa_bench.inference.listener import Listener, Windows
from sousa_bench.inference.predictor import Predictor
from sousa_bench.predict.__main__ import main as predict
from sousa_bench.task import Task

RATE = 8000
FIGURE_NAMES = re.compile(r"accuracy_comparison|time_accuracy|accuracy_by_\w+")
TONES = {"low": 300.0, "middle": 900.0, "high": 2700.0}


def write_tones(folder: Path) -> None:
    """Forty clips of a quarter second in each split, by ten speakers of its own."""
    rng = np.random.default_rng(0)
    time = np.arange(RATE // 4) / RATE
    rows = []
    for split in ("train", "val", "test"):
        for number in range(40):
            there = [name for name in TONES if rng.random() < 0.4]
            sound = sum(np.sin(2 * np.pi * TONES[name] * time + rng.uniform(0, 6)) for name in there)
            file = f"{split}_{number:02d}.wav"
            soundfile.write(folder / file, 0.2 * sound + 0.05 * rng.normal(size=len(time)), RATE)
            speaker = f"{split}{number % 10}"
            rows.append({"file_name": file, "labels": ",".join(there), "split": split, "speaker": speaker})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a head and a probe were trained on the tones, in a sweep of the name `tones`."""
    home = tmp_path_factory.mktemp("several")
    (home / "tones").mkdir()
    write_tones(home / "tones")
    words = ["-m", "model=efficientat", "model.variant=tiny", "peft=probe,head", "augmentation=off", "sweep=tones"]
    words += ["data=folder", "data.root=tones", "trainer.max_epochs=12", "trainer.accelerator=cpu", "logger=none"]
    command(home, "train", *words)
    return home


def command(home: Path, name: str, *words: str) -> str:
    environment = os.environ | {"SOUSA_BENCH_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", f"sousa_bench.{name}", *words]
    done = subprocess.run(line, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def results(home: Path) -> dict[str, dict]:
    made = [json.loads(path.read_text()) for path in (home / "multirun" / "tones").glob("*/result.json")]
    return {result["config"]["strategy"]: result for result in made}


def run_folder(home: Path, strategy: str) -> Path:
    [folder] = (home / "multirun" / "tones").glob(f"*_{strategy}_*")
    return folder


@pytest.mark.slow
def test_the_score_of_a_run_is_that_of_its_predictions(home: Path):
    for strategy, result in results(home).items():
        assert result["status"] == "completed", result["error"]
        table = pd.read_parquet(run_folder(home, strategy) / "predictions.parquet")
        labels = np.array([np.isin(np.arange(3), each) for each in table["label"]])
        score = average_precision_score(labels, np.stack(table["logits"].tolist()), average="macro")
        assert result["metrics"]["test_map"] == pytest.approx(score, abs=1e-5)
    assert results(home)["probe"]["metrics"]["test_map"] > 0.6  # chance is 0.4


@pytest.mark.slow
def test_the_report_ranks_by_mean_average_precision(home: Path):
    printed = command(home, "analyze", "multirun/tones", "--no-images")
    folder = home / "multirun" / "tones" / "analysis"
    assert ": mAP " in printed.splitlines()[0]
    assert "test mAP" in printed
    report = (folder / "summary_report.md").read_text()
    assert "highest test mean average precision" in report
    assert "mean average precision on the logit scale" in report
    rows = pd.read_csv(folder / "combinations.csv").set_index("strategy")
    for strategy, result in results(home).items():
        row = rows.loc[strategy]
        assert row["test_map"] == pytest.approx(result["metrics"]["test_map"])
        assert 0 <= row["map_low"] <= row["pooled_map"] <= row["map_high"] <= 1
        assert row["pooled_map"] == pytest.approx(row["test_map"], abs=1e-4)
        assert (row["clips"], row["speakers"]) == (40, 10)
    assert not [name for name in rows if "acc" in name.split("_")]
    [pair] = pd.read_csv(folder / "comparisons.csv").to_dict("records")
    gain = rows.loc[pair["first"].split()[2], "test_map"] - rows.loc[pair["second"].split()[2], "test_map"]
    assert pair["difference"] == pytest.approx(gain, abs=1e-4)
    page = (folder / "report.html").read_text()
    assert "per_class_average_precision" in page
    assert "confusion_matrix_" not in page
    assert ">Mean average precision</h2>" in page
    for text in (printed, report, page.replace(plotly_library(), "")):
        assert not re.search("accuracy|accuracies|mcnemar|macro f1", FIGURE_NAMES.sub("", text), re.IGNORECASE)


@pytest.mark.slow
def test_status_and_promotion_take_what_ranks(home: Path):
    assert "val_map" in command(home, "status", "multirun/tones").splitlines()[1]
    said = command(home, "promote", "multirun/tones", "--top", "1", "--print")
    best = max(results(home).items(), key=lambda item: item[1]["metrics"]["val_map"])[0]
    assert f"peft={best}" in said


@pytest.mark.slow
def test_an_evaluation_gives_the_score_its_interval_and_a_row_a_class(home: Path):
    said = command(home, "evaluate", "multirun/tones", "--no-images", "--output-dir", "evaluated")
    result = json.loads((home / "evaluated" / "result.json").read_text())
    found = result["evaluation"]["map_interval"]
    assert found["low"] <= result["metrics"]["test_map"] <= found["high"]
    assert "each with the same prediction" in said
    table = pd.read_csv(home / "evaluated" / "per_class.csv")
    assert set(table["class"]) == set(TONES)
    assert table["average_precision"].mean() == pytest.approx(result["metrics"]["test_map"], abs=1e-5)
    assert (home / "evaluated" / "average_precision.html").is_file()


@pytest.mark.slow
def test_the_confident_answers_are_counted_on_the_predictions(home: Path):
    for kind, result in results(home).items():
        table = pd.read_parquet(run_folder(home, kind) / "predictions.parquet")
        logits, block = np.stack(table["logits"].tolist()), result["confidence"]
        right = np.array([[number in labels for number in range(len(TONES))] for labels in table["label"]])
        accepted = logits > 0
        above = accepted & (1 / (1 + np.exp(-logits)) >= (2 if block["threshold"] is None else block["threshold"]))
        precision = pytest.approx(right[above].mean()) if above.any() else None
        assert block["test"] == {"answers": accepted.sum(), "confident": above.sum(), "precision": precision}
        assert block["test"]["answers"] > 0
        assert block["validation"]["answers"] > 0


@pytest.fixture
def heard(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `predict` says of some clips of the test."""
    monkeypatch.chdir(home)

    def run(strategy: str, *words: str) -> str:
        assert predict([str(run_folder(home, strategy)), *CLIPS, *words]) == 0
        return capsys.readouterr().out

    return run


CLIPS = [f"tones/test_{number:02d}.wav" for number in range(16)]


@pytest.mark.slow
def test_predict_accepts_every_class_that_is_likely_and_says_none_where_none_is(home: Path, heard: Callable[..., str]):
    files = [file for kind in ("probe", "head") for file in json.loads(heard(kind, "--json"))["files"]]
    assert {file["status"] for file in files} == {"ok", "none"}
    assert {len(file["accepted"]) for file in files} >= {0, 1, 2}
    for file in files:
        assert len(file["top"]) == 3
        named = [{key: item[key] for key in item if key != "confident"} for item in file["accepted"]]
        assert named == [item for item in file["top"] if item["probability"] > 0.5]
        assert file["class"] == file["top"][0]["class"]
        assert (file["status"] == "none") == (file["accepted"] == [])
        assert file["reason"] in (None, "no class has a probability above 50 %")
    for kind, mine in (("probe", files[: len(CLIPS)]), ("head", files[len(CLIPS) :])):
        threshold = results(home)[kind]["confidence"]["threshold"]
        for item in (item for file in mine for item in file["accepted"]):
            assert item["confident"] is (threshold is not None and item["probability"] >= threshold)
        rows = pd.read_csv(io.StringIO(heard(kind, "--csv")))
        said = {name: rows[(rows["file"] == name) & rows["class"].notna()] for name in rows["file"].unique()}
        assert {name: dict(zip(of["class"], of["probability"], strict=True)) for name, of in said.items()} == {
            file["file"]: {item["class"]: item["probability"] for item in file["accepted"]} for file in mine
        }
        lines = {line.split()[0]: line for line in heard(kind, "--top", "1").splitlines() if ".wav" in line}
        for file in mine:
            line = lines[Path(file["file"]).name]
            best = file["top"][0]["name"]
            assert re.findall("low|middle|high", line) == [item["name"] for item in file["accepted"]] or [best]
            assert (f"none (most probable: {best} " in line) == (file["status"] == "none")


def test_a_long_recording_has_the_classes_of_each_stretch():
    task = Task(("a", "b", "c"), several=True)
    pieces = ([0.9, 0.8, 0.1], [0.7, 0.9, 0.3], [0.5, 0.5, 0.5], None)
    rows = [None if piece is None else np.array(piece, dtype=np.float32) for piece in pieces]
    stretches = timeline([0, 1, 2, 3], 1.0, 4.0, rows, several=True)
    parts = Answer("x", "ok", task, stretches=stretches).record(5)["timeline"]
    assert [(part["start"], part["end"]) for part in parts] == [(0, 2), (2, 3), (3, 4)]
    assert [item["class"] for item in parts[0]["accepted"]] == ["b", "a"]
    assert [item["probability"] for item in parts[0]["accepted"]] == pytest.approx([0.85, 0.8])
    assert [stretch_text(part, task)[1] for part in parts] == ["b 85 %, a 80 %", "none", "no sound"]
    assert [part["accepted"] for part in parts[1:]] == [[], None]


@pytest.mark.slow
def test_the_demo_marks_what_is_accepted(home: Path):
    web_page = pytest.importorskip("sousa_bench.demo.web_page")
    predictor = Predictor.open(run_folder(home, "probe"))
    listener = Listener(predictor, Windows.of(predictor, None, None), progress=False)
    mark = f"{web_page.MARK} "
    shown = json.dumps(web_page.build(listener).config["components"], default=str)
    assert "Which classes are heard?" in shown
    for name in CLIPS:
        words, chances, _ = web_page.answer(listener, str(home / name))
        assert len(chances) == 3
        for label, chance in chances.items():
            assert label.startswith(mark) == (chance > 0.5)
            assert (f"<strong>{label.removeprefix(mark)}</strong>" in words) == (chance > 0.5)
        assert "data-status" in words


@pytest.mark.slow
def test_neighbours_of_several_labels_vote(home: Path):
    words = ["-m", "model=efficientat", "model.variant=tiny", "peft=knn", "augmentation=off", "sweep=near"]
    words += ["data=folder", "data.root=tones", "trainer.accelerator=cpu", "logger=none"]
    command(home, "train", *words)
    [file] = (home / "multirun" / "near").glob("*/result.json")
    result = json.loads(file.read_text())
    assert result["metrics"]["test_map"] > 0.6  # chance is 0.4
    table = pd.read_parquet(file.parent / "predictions.parquet")
    said = command(home, "predict", str(file.parent), "tones/test_00.wav", "--json", "--top", "3")
    heard = {item["name"]: item["probability"] for item in json.loads(said)["files"][0]["top"]}
    [logits] = table.loc[table["sample_id"].str.contains("test_00"), "logits"]
    assert sorted(heard.values()) == pytest.approx(sorted(1 / (1 + np.exp(-logits))), abs=1e-3)
