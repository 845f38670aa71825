"""What frozen networks make of clips is kept between runs: the same bits, and never those of something else."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch

from sousa_bench.models.beats_network import BeatsBackbone
from sousa_bench.training.run import run
from tests.cases import check_each

CLIPS = 40
"""Of all splits."""


@pytest.fixture
def passes(monkeypatch):
    """Clips that went through a network, counted."""
    counted = [0]

    def counting(original):
        def until(self, place, features, padding_mask=None):
            counted[0] += len(features)
            return original(self, place, features, padding_mask)

        return until

    monkeypatch.setattr(BeatsBackbone, "until", counting(BeatsBackbone.until))
    return counted


@pytest.fixture
def small(config, tmp_path):
    """A config whose clips have a cache of their own."""

    def build(*words):
        return config("model=beats", "augmentation=off", f"data.cache_dir={tmp_path / 'cache'}", *words)

    return build


def kept(tmp_path: Path) -> set[Path]:
    return set((tmp_path / "cache" / "clips").glob("*/features/*"))


def outcome(folder: Path, blocks):
    logits = pd.read_parquet(folder / "predictions.parquet")["logits"].tolist()
    return blocks["metrics"], [list(row) for row in logits]


def test_a_later_run_reads_what_an_earlier_one_computed_and_has_its_bits(small, tmp_path, passes, caplog):
    first = outcome(tmp_path / "1", run(small("peft=probe"), tmp_path / "1"))
    computed, passes[0] = passes[0], 0
    files = kept(tmp_path)
    assert len(files) == 3
    assert computed >= CLIPS
    assert outcome(tmp_path / "2", run(small("peft=probe"), tmp_path / "2")) == first
    run(small("peft=knn"), tmp_path / "3")
    run(small("peft=head", "trainer.max_epochs=1"), tmp_path / "4")
    assert passes[0] <= 3 * 3  # of each run one clip for the size, two for the identity
    assert kept(tmp_path) == files
    damaged = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert outcome(tmp_path / "5", run(small("peft=probe"), tmp_path / "5")) == first
    assert f"{damaged} is damaged (its checksum is wrong)" in caplog.text
    assert damaged.read_bytes() != bytes(content)


def test_what_may_change_a_bit_has_files_of_its_own(small, tmp_path, passes):
    run(small("peft=knn"), tmp_path / "first")
    before = kept(tmp_path)

    def check(name, *words):
        passes[0] = 0
        run(small("peft=knn", *words), tmp_path / name)
        assert passes[0] >= CLIPS

    check_each(
        [
            ("weights", "seed=1"),
            ("length", "data.max_duration=1.5"),
            ("precision", "trainer.precision=bf16-mixed"),
        ],
        check,
    )
    files = kept(tmp_path)
    assert len(files) == 4 * len(before)
    torch.set_num_threads(2)
    check("threads")
    assert len(kept(tmp_path)) == len(files) + len(before)


def test_nothing_is_kept_beyond_the_cap(small, tmp_path, caplog):
    run(small("peft=knn", "trainer.feature_memory_mb=0"), tmp_path / "1")
    assert not kept(tmp_path)
    with caplog.at_level(logging.INFO):
        run(small("peft=knn", "data.cache_limit_gb=0.0001"), tmp_path / "2")
    assert "No room in" in caplog.text
    assert not kept(tmp_path)
