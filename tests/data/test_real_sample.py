"""The piece of real SOUSA that lies beside the repository."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from noise_data import data

from sousa_bench.benchmark.cache_rate import compare
from sousa_bench.data.sources.generator_folder import GeneratorFolder


@pytest.mark.slow
def test_tiny_of_a_small_dataset_is_a_plain_fact(sample: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = data(sample / "generator")
    with caplog.at_level(logging.INFO, logger="sousa_bench.data"):
        made.prepare([16_000, 32_000])
    assert made.warnings == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("asks for more clips than there are" in record.getMessage() for record in caplog.records) == 1
    assert made.describe()["counts"] == {"train": 80, "val": 40, "test": 40}
    assert made.describe()["classes"] == {"train": 40, "val": 40, "test": 40}
    lengths = made.waveforms("test", 32_000).lengths
    assert lengths.min() >= 3 * 32_000
    assert lengths.max() == 5 * 32_000


def test_hub_and_folder_hold_the_same_sound(sample: Path) -> None:
    """The 40 clips of the hub's piece are among the 160 of the folder, sample for sample."""
    folder, hub = data(sample / "generator"), data(sample / "hub")
    folder.prepare([16_000])
    hub.prepare([16_000])
    compared = 0
    for split in ("train", "val", "test"):
        place = {name: i for i, name in enumerate(folder.rows(split)["sample_id"])}
        ours, theirs = folder.waveforms(split, 16_000), hub.waveforms(split, 16_000)
        for i, name in enumerate(hub.rows(split)["sample_id"]):
            if name in place:
                np.testing.assert_array_equal(theirs.read(i), ours.read(place[name]))
                compared += 1
    assert compared == 40


def test_folds_and_resplit_of_four_players(sample: Path) -> None:
    made = data(sample / "generator", resplit=True)
    made.prepare([16_000])
    assert made.describe()["players"] == {"train": 2, "val": 1, "test": 1}
    tested = set()
    for k in range(1, 5):
        fold = data(sample / "generator", fold=f"{k}/4")
        fold.prepare([16_000])
        tested |= set(fold.rows("test")["group"])
    assert len(tested) == 4


def test_the_cache_benchmark_measures_both_sides(sample: Path, tmp_path: Path) -> None:
    source = GeneratorFolder(sample / "generator")
    result = compare(source, source.table().head(12), folder=tmp_path, repeats=1)
    assert result["clips"] == 12
    assert result["bare_clips_per_second"] > 1
    assert result["ratio"] == result["cache_clips_per_second"] / result["bare_clips_per_second"] > 0
    assert not list(tmp_path.iterdir())
