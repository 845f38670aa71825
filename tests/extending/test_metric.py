"""A metric of the user's own: a function in a folder of theirs, declared in the command or in a config group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from sousa_bench.errors import ConfigError
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.results.metrics import own_metrics, split_metrics
from sousa_bench.results.result import read_result
from sousa_bench.system.python import python_path

FUNCTION = '''
import numpy as np


def confidence(probabilities, labels, power=1.0):
    """Mean probability of the right class."""
    assert probabilities.shape == (len(labels), 40) and np.allclose(probabilities.sum(axis=1), 1)
    return (probabilities[range(len(labels)), labels] ** power).mean()


def broken(probabilities, labels):
    raise KeyError("no such clip")


def undefined(probabilities, labels):
    return float("nan")
'''
GROUP = """
confidence:
  _target_: my_metrics.confidence
  label: Confidence
  format: .3f
surprise:
  _target_: my_metrics.confidence
  better: lower
  power: 2
"""
TINY = [
    "model=efficientat",
    "augmentation=off",
    "weights=random",
    "data.synthetic.clips=40",
    "data.synthetic.split_players=[20,10,10]",
    "trainer.max_epochs=2",
    "trainer.batch_size=4",
    "trainer.train_batches=2",
    "trainer.progress=false",
    "trainer.accelerator=cpu",
    "logger=none",
    "n_jobs=1",
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mine" / "metrics").mkdir(parents=True)
    (tmp_path / "mine" / "my_metrics.py").write_text(FUNCTION)
    (tmp_path / "mine" / "metrics" / "mine.yaml").write_text(GROUP)
    return tmp_path


def command(home: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {"PYTHONPATH": f"{home / 'mine'}{os.pathsep}{python_path()}", "OMP_NUM_THREADS": "1"}
    variables["SOUSA_BENCH_CACHE"] = str(home / "cache")
    return subprocess.run(
        [sys.executable, "-m", f"sousa_bench.{name}", *words],
        cwd=home,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_a_metric_stands_in_result_table_and_evaluation(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config-dir", str(home / "mine"), "+metrics=mine", "-m", "sweep=own", "peft=lora,head"]
    done = command(home, "train", *words, *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {path.parent: read_result(path) for path in home.glob("multirun/own/*/result.json")}
    assert len(results) == 2
    for folder, result in results.items():
        assert result["declared_metrics"] == {
            "confidence": {"label": "Confidence", "format": ".3f", "better": "higher"},
            "surprise": {"label": "surprise", "format": ".4f", "better": "lower"},
        }
        tested = result["history"][result["metrics"]["tested_epoch"] - 1]
        assert result["metrics"]["val_confidence"] == tested["val_confidence"]
        clips = pd.read_parquet(folder / "predictions.parquet")
        odds = softmax(np.stack(clips["logits"]).astype(float), axis=1)
        right = odds[np.arange(len(clips)), clips["label"]]
        assert result["metrics"]["test_confidence"] == pytest.approx(right.mean(), rel=1e-6)

    done = command(home, "analyze", "multirun/own", "--metric", "test_confidence", "--no-images")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "confidence" in done.stdout
    [table] = home.glob("**/comparison_table.csv")
    column = pd.read_csv(table)["test_confidence"]
    assert list(column) == sorted((r["metrics"]["test_confidence"] for r in results.values()), reverse=True)
    [summary] = home.glob("**/summary_report.md")
    assert "confidence" in summary.read_text()
    [page] = home.glob("**/report.html")
    assert "confidence" in page.read_text()

    monkeypatch.syspath_prepend(str(home / "mine"))
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(home / "cache"))
    output = ("--output-dir", str(home / "evaluated"))
    assert evaluate([str(next(iter(results))), "--split", "val", "--no-images", "--threads", "1", *output]) == 0
    assert "Confidence" in capsys.readouterr().out


def test_a_function_that_is_not_there_refuses_the_command(home: Path) -> None:
    done = command(home, "train", "+metrics.mine={_target_: my_metrics.nowhere}", *TINY)
    assert done.returncode == 2
    assert "metrics.mine._target_=my_metrics.nowhere: no such function" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_what_can_t_be_a_metric_is_one_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(home / "mine"))
    target = {"_target_": "my_metrics.confidence"}
    cases: dict[str, dict[str, object]] = {
        "metrics.mine._target_=nowhere.at_all: no such function": {"mine": {"_target_": "nowhere.at_all"}},
        "metrics.mine.better='bigger' can't be": {"mine": target | {"better": "bigger"}},
        "metrics.mine.format='nonsense' formats no number": {"mine": target | {"format": "nonsense"}},
        "metrics.acc: choose another name": {"acc": target},
        "metrics.mine: give its function as _target_": {"mine": {"label": "Mine"}},
    }
    for message, node in cases.items():
        with pytest.raises(ConfigError) as caught:
            own_metrics(node)
        assert message in str(caught.value)


def test_a_function_that_gives_no_number_is_one_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(home / "mine"))
    logits, labels = torch.eye(40)[:8], torch.arange(8)
    for name, message in {"broken": "failed: KeyError: 'no such clip'", "undefined": "returned nan"}.items():
        metrics = own_metrics({"mine": {"_target_": f"my_metrics.{name}"}})
        with pytest.raises(ConfigError, match=f"metrics.mine: its function {message}"):
            split_metrics("val", logits, labels, metrics)
        diverged = split_metrics("val", logits * float("nan"), labels, metrics)
        assert np.isnan(diverged["val_mine"])  # the loss says what is wrong
