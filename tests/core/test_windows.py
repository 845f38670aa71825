"""Clips longer than what the network takes at a time: a stretch in training, the mean of windows in evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

from sousa_bench.data.datamodule import Clips, Pieces
from sousa_bench.peft import load_run_model
from sousa_bench.training.run import run
from tests.core.test_run import interrupt, numbers
from tests.trained import command, home, trained

WINDOWS = ("data.max_duration=1.0", "data.windows=all")
FEW = ("model=efficientat", "trainer.max_epochs=2", "trainer.train_batches=3")


def pieces(lengths, windows, most=100):
    lengths = np.array(lengths)
    made = Pieces.of(lengths, most, np.minimum(lengths, most), windows)
    return list(zip(made.clip.tolist(), made.start.tolist(), strict=True))


def test_windows_cover_a_clip_evenly():
    assert pieces([50, 100, 101, 250, 1000], "all")[:6] == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (3, 75)]
    assert pieces([250], "all") == [(0, 0), (0, 75), (0, 150)]
    assert pieces([1000], "all") == [(0, start) for start in range(0, 1000, 100)]
    assert pieces([1000, 150, 60], 3) == [(0, 0), (0, 450), (0, 900), (1, 0), (1, 50), (2, 0)]
    assert pieces([1000, 60], 1) == [(0, 450), (1, 0)]
    assert pieces([1000, 60], None) == [(0, 0), (1, 0)]


def test_the_mean_does_not_depend_on_the_order_of_the_pieces():
    made = Pieces.of(np.array([100, 300, 250]), 100, np.full(3, 100), "all")
    values = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    clips, means = made.mean(np.arange(7), values)
    assert clips.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(means[0], values[0])
    np.testing.assert_allclose(means[1], values[1:4].mean(axis=0), rtol=1e-6)
    shuffled = np.random.default_rng(1).permutation(7)
    np.testing.assert_array_equal(made.mean(shuffled, values[shuffled])[1], means)
    part, some = made.mean(np.array([5, 4]), values[[5, 4]])
    assert part.tolist() == [2]
    np.testing.assert_allclose(some[0], values[4:6].mean(axis=0), rtol=1e-6)


def by_hand(model, clip, most, grid, count):
    """The mean of the logits of evenly spread windows, one after the other."""
    count = min(count, -(-len(clip) // most))
    starts = np.rint(np.linspace(0, max(len(clip) - most, 0), count)).astype(int)
    logits = []
    for start in starts:
        window = torch.from_numpy(clip[start : start + most].astype(np.float32) / 32768)
        padded = torch.nn.functional.pad(window, (0, -len(window) % grid))
        with torch.no_grad():
            logits.append(model(padded[None], torch.tensor([len(window)]))[0])
    return torch.stack(logits).mean(dim=0)


@pytest.mark.slow
@pytest.mark.parametrize(("peft", "windows"), [("lora", "all"), ("lora", "2"), ("probe", "all"), ("head", "all")])
def test_the_tested_logits_are_the_mean_over_windows(config, folder, peft, windows):
    cfg = config(*FEW, f"peft={peft}", "augmentation=off", "data.max_duration=1.0", f"data.windows={windows}")
    blocks = run(cfg, folder)
    assert blocks["data"]["counts"]["test"] == len(pd.read_parquet(folder / "predictions.parquet"))
    model = load_run_model(folder)
    data = instantiate(cfg.data)
    data.prepare((model.sample_rate,))
    store = data.waveforms("test", model.sample_rate)
    assert store.lengths.max() > 2.5 * model.sample_rate
    frame = pd.read_parquet(folder / "predictions.parquet").set_index("sample_id")
    count = 1000 if windows == "all" else int(windows)
    names = list(data.rows("test")["sample_id"])
    for row in range(3):
        expected = by_hand(model, store.read(row), model.sample_rate, model.sample_rate // 2, count)
        np.testing.assert_allclose(frame.loc[names[row], "logits"], expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("peft", "augmentation"), [("lora", "on"), ("full", "off"), ("head", "off")])
def test_interruptions_change_no_number(config, tmp_path, monkeypatch, peft, augmentation):
    cfg = config(*FEW, f"peft={peft}", f"augmentation={augmentation}", *WINDOWS)
    whole = numbers(run(cfg, tmp_path / "whole"), tmp_path / "whole")
    interrupt(monkeypatch, cfg, tmp_path / "parts", 4)
    state = torch.load(tmp_path / "parts" / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 1)
    assert numbers(run(cfg, tmp_path / "parts"), tmp_path / "parts") == whole


def test_a_stretch_comes_from_seed_epoch_and_clip(config):
    data = instantiate(config("data.max_duration=1.0", "data.windows=3").data)
    data.prepare((16_000, 32_000))
    low, high = (Clips(data, "train", rate, 0.5) for rate in (16_000, 32_000))
    assert low.cut
    assert set(low.padded) == {16_000}
    index = np.arange(len(low))
    first = low.stretches(index, 1, 0, low.keys)
    assert (first[::-1] == low.stretches(index[::-1], 1, 0, low.keys[::-1])).all()
    assert (first <= low.slack).all()
    assert (np.abs(high.stretches(index, 1, 0, high.keys) / 2 - first) <= 1).all()  # the same part at any rate
    for other in (low.stretches(index, 2, 0, low.keys), low.stretches(index, 1, 1, low.keys)):
        assert (other != first).mean() > 0.9
    heard = low.waveform(index[:2], starts=first[:2])
    np.testing.assert_array_equal(heard[1], low.store.read(1)[first[1] : first[1] + 16_000])
    whole = instantiate(config("data.max_duration=60", "data.windows=all").data)
    whole.prepare((16_000,))
    assert not Clips(whole, "train", 16_000, 0.5).cut


@pytest.mark.slow
def test_evaluate_hears_windows_too(tmp_path):
    run_folder = trained().folder
    done = command("evaluate", str(run_folder), *WINDOWS, "--no-images", "--output-dir", str(tmp_path / "windows"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "These are the clips of the run's own test" in done.stdout
    model = load_run_model(run_folder)
    node = {**trained().result["resolved_config"]["data"], "max_duration": 1.0, "windows": "all"}
    data = instantiate(node | {"cache_dir": str(home() / "cache")})
    data.prepare((model.sample_rate,))
    store, names = data.waveforms("test", model.sample_rate), list(data.rows("test")["sample_id"])
    frame = pd.read_parquet(tmp_path / "windows" / "predictions.parquet").set_index("sample_id")
    for row in range(3):
        expected = by_hand(model, store.read(row), model.sample_rate, model.sample_rate // 2, 1000)
        np.testing.assert_allclose(frame.loc[names[row], "logits"], expected, atol=2e-4)
