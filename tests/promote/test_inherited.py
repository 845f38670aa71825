"""Weights that have met a new run's clips are told, through every run they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from sousa_bench.results.finished import FinishedRun
from sousa_bench.results.result import read_result
from sousa_bench.training.evaluated_clips import SplitData
from sousa_bench.training.seen_before import inherited, met_before

FEW = "data.synthetic.split_players=[6,3,3]"  # several clips a player

Config = Callable[..., DictConfig]


def plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.fixture
def left(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The folder of a run as far as others look at it."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, *words: str) -> Path:
        folder = tmp_path / name
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "sousa.json").write_text("{}")
        keys = ("experiment_id", "config", "metrics", "efficiency", "timestamp", "git_commit")
        result = {key: {} for key in keys} | {
            "schema_version": 1, "experiment_id": name, "status": "completed", "error": None,
            "timestamp": "2026-02-01T10:30:00", "git_commit": "abc", "resolved_config": plain(config(FEW, *words)),
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make


@pytest.mark.slow
def test_another_fold_is_told_through_two_generations(config: Config, left: Callable[..., Path]) -> None:
    left("first", "data.fold=1/5")
    second = left("second", "data.fold=2/5", "init_from=first")
    told = inherited(plain(config(FEW, "data.fold=2/5", "init_from=second")))
    assert "the test split is not new" in " ".join(told), told
    assert any("the val split is not new" in text and "was trained on" in text for text in told), told
    data = SplitData.of("test", plain(config(FEW, "data.fold=2/5"))["data"])
    counts, said = met_before(FinishedRun(second, read_result(second)), data)
    assert counts["val"]["clips"] == len(data.chosen()) > 0
    assert "goes on from" in said[0]


def test_the_same_splits_are_no_fault(config: Config, left: Callable[..., Path]) -> None:
    left("first", "data.fold=1/5")
    assert inherited(plain(config(FEW, "data.fold=1/5", "init_from=first"))) == []
    assert inherited(plain(config(FEW, "data.fold=1/5", "data.clips.train=10", "init_from=first"))) == []


def test_a_teacher_that_knows_the_test_clips_is_told(config: Config, left: Callable[..., Path]) -> None:
    left("first", "data.fold=1/5")
    student = left("student", "data.fold=2/5", "teacher.run=first")
    told = inherited(plain(config(FEW, "data.fold=2/5", "teacher.run=first")))
    assert any(
        "the test split is not new to the teacher: it, or a run that it comes from, was" in text for text in told
    )
    assert inherited(plain(config(FEW, "data.fold=1/5", "teacher.run=first"))) == []
    data = SplitData.of("test", plain(config(FEW, "data.fold=1/5"))["data"])
    _, said = met_before(FinishedRun(student, read_result(student)), data)
    assert "goes on from or learns from" in said[0]


def test_lost_data_are_told(config: Config, left: Callable[..., Path]) -> None:
    left("first", "init_from=gone")
    [told] = inherited(plain(config(FEW, "init_from=first", "data.fold=1/5")))
    assert "can't be told" in told
