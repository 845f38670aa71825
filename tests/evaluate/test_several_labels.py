"""Clips with several labels each, from the training command to the report: tones of which one, two or none sound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.metrics import average_precision_score

RATE = 8000
TONES = {"low": 300.0, "middle": 900.0, "high": 2700.0}


def write_tones(folder: Path) -> None:
    """Forty clips of a quarter second in each split, by ten speakers of its own."""
    rng = np.random.default_rng(0)
    time = np.arange(RATE // 4) / RATE
    rows = []
    for split in ("train", "val", "test"):
        for number in range(40):
            there = [name for name in TONES if rng.random() < 0.4] or ["low"]
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
    words += ["data=folder", "data.root=tones", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none"]
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


def test_the_score_of_a_run_is_that_of_its_predictions(home: Path):
    for strategy, result in results(home).items():
        assert result["status"] == "completed", result["error"]
        table = pd.read_parquet(run_folder(home, strategy) / "predictions.parquet")
        labels = np.array([np.isin(np.arange(3), each) for each in table["label"]])
        score = average_precision_score(labels, np.stack(table["logits"].tolist()), average="macro")
        assert result["metrics"]["test_map"] == pytest.approx(score, abs=1e-5)
    assert results(home)["probe"]["metrics"]["test_map"] > 0.6  # chance is 0.4


def test_the_report_ranks_by_mean_average_precision(home: Path):
    printed = command(home, "analyze", "multirun/tones", "--no-images")
    folder = home / "multirun" / "tones" / "analysis"
    assert "test mAP" in printed.splitlines()[0]
    report = (folder / "summary_report.md").read_text()
    assert "highest test mean average precision" in report
    assert "accuracy" not in report.split("## How these")[0].replace("Accuracy", "")
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


def test_status_and_promotion_take_what_ranks(home: Path):
    assert "val_map" in command(home, "status", "multirun/tones").splitlines()[1]
    said = command(home, "promote", "multirun/tones", "--top", "1", "--print")
    best = max(results(home).items(), key=lambda item: item[1]["metrics"]["val_map"])[0]
    assert f"peft={best}" in said


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


def test_predict_names_every_class_that_is_likely(home: Path):
    said = command(home, "predict", str(run_folder(home, "probe")), "tones/test_00.wav", "--json")
    [file] = json.loads(said)["files"]
    likely = [item["probability"] > 0.5 for item in file["top"]]
    assert all(likely) or not any(likely)
