"""The recipe for a data layout: one class in a module of one's own, named by `data.layout`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sousa_bench.results.result import read_result
from tests.extending import recipes


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Three players' recordings of two rudiments, two takes each."""
    rows = ["file,pattern,drummer,part"]
    for player, part in (("anna", "train"), ("bob", "val"), ("cleo", "test")):
        for pattern in ("Flam", "single-drag-tap"):
            for take in range(2):
                name = f"{player}_{pattern}_{take}.wav"
                rows.append(f"{name},{pattern},{player},{part}")
                (tmp_path / "takes").mkdir(exist_ok=True)
                noise = np.random.default_rng(len(rows)).uniform(-0.5, 0.5, 4_000)
                sf.write(tmp_path / "takes" / name, noise, 16_000)
    (tmp_path / "takes" / "takes.csv").write_text("\n".join(rows))
    return tmp_path / "takes"


@pytest.mark.slow
def test_it_trains_on_a_layout_of_ones_own(tmp_path: Path, takes: Path) -> None:
    recipes.write("A data layout", tmp_path)
    (tmp_path / "my_conf").mkdir()
    mine = ("data=tiny", f"data.root={takes}", "data.layout=my_layouts.Takes")
    small = ("model=efficientat", "trainer.max_epochs=1")
    done = recipes.train(tmp_path, "-m", "sweep=own", *mine, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("multirun/own/*/result.json")
    result = read_result(file.parent)
    assert result["status"] == "completed"
    assert result["data"]["source"] == "takes"
    assert result["data"]["counts"] == {"train": 4, "val": 4, "test": 4}
    assert result["data"]["players"] == {"train": 1, "val": 1, "test": 1}
    assert result["data"]["classes"]["test"] == 2
    assert list((tmp_path / "cache" / "clips").glob("takes-*"))


@pytest.mark.slow
def test_a_folder_that_it_does_not_read_is_one_message(tmp_path: Path, takes: Path) -> None:
    recipes.write("A data layout", tmp_path)
    (tmp_path / "my_conf").mkdir()
    done = recipes.train(tmp_path, "data=tiny", f"data.root={tmp_path}", "data.layout=my_layouts.Takes")
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert "holds nothing that data.layout=my_layouts.Takes reads. Looked for takes.csv" in said
    assert f"Did you mean {takes}?" in said
    assert "Traceback" not in said
