"""What makes a run fast changes no number: each shortcut beside the plain path. (Frozen parts: test_prefix.py;
micro-batches: test_run.py; the cache's samples: tests/data/test_sources.py; attention kernels: tests/parity.)"""

from __future__ import annotations

import copy
from inspect import currentframe

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import open_dict
from torch import nn
from torch._inductor.exc import InductorError

from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.data.datamodule import FeatureMemory
from sousa_bench.data.rudiments import TASK
from sousa_bench.errors import ConfigError
from sousa_bench.training import hardware
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.recipe import build_model
from sousa_bench.training.run import run


def outcome(folder):
    return np.stack(pd.read_parquet(folder / "predictions.parquet").sort_values("sample_id")["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ast", "htsat", "beats", "efficientat"])
def test_remembered_features_are_the_computed_ones(config, tmp_path, model, monkeypatch):
    words = [f"model={model}", "peft=lora", "augmentation=off", "trainer.max_epochs=2"]
    asked = []
    get = FeatureMemory.get
    monkeypatch.setattr(FeatureMemory, "get", lambda self, *key: (asked.append(get(self, *key)), asked[-1])[1])
    remembered = run(config(*words), tmp_path / "remembered")["history"]
    assert any(rows is not None for rows in asked)
    asked.clear()
    computed = run(config(*words, "trainer.feature_memory_mb=0"), tmp_path / "computed")["history"]
    assert all(rows is None for rows in asked)
    for one, other in zip(remembered, computed, strict=True):
        assert {key: value for key, value in one.items() if "seconds" not in key} == {
            key: value for key, value in other.items() if "seconds" not in key
        }
    np.testing.assert_array_equal(outcome(tmp_path / "remembered"), outcome(tmp_path / "computed"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ast", "htsat", "beats", "efficientat"])
def test_a_test_clip_does_not_see_its_neighbours(config, tmp_path, model):
    """Clips of one length share a batch; alone they get the same logits."""
    words = [f"model={model}", "peft=ia3", "augmentation=off", "trainer.max_epochs=1", "trainer.train_batches=1"]
    run(config(*words), tmp_path / "together")
    run(config(*words, "trainer.eval_batch_size=1"), tmp_path / "alone")
    np.testing.assert_allclose(outcome(tmp_path / "together"), outcome(tmp_path / "alone"), atol=1e-4)


def test_channels_last_is_a_matter_of_memory(config):
    model = build_model(config("model=efficientat"), TASK).eval()
    plain = copy.deepcopy(model.backbone).to(memory_format=torch.contiguous_format)
    convolutions = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert convolutions
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    with torch.no_grad():
        features, _ = model.features(0.1 * torch.randn(2, 64_000, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(plain(features), model.backbone(features), rtol=1e-4, atol=1e-5)


def test_compiling_needs_what_it_needs(config, folder, monkeypatch):
    def broken(_):
        raise RuntimeError("InvalidCxxCompiler: no g++\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ConfigError, match=r"doesn't work here \(InvalidCxxCompiler: no g\+\+\).*leave it false"):
        run(config("trainer.compile=true", "trainer.accelerator=cpu"), folder)
    assert not (folder / "checkpoints").exists()


def test_training_and_validation_are_compiled_and_the_test_is_not(config, folder, monkeypatch):
    modes, compiled = [], []

    def compile_(network):
        compiled.append(network)
        return lambda *parts: (modes.append(getattr(network, "training", None)), network(*parts))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    evaluated = []
    original = Classifier.test_step
    monkeypatch.setattr(
        Classifier, "test_step", lambda self, *words: (evaluated.append(len(modes)), original(self, *words))[1]
    )
    run(config("model=ast", "augmentation=off", "trainer.compile=true", "trainer.max_epochs=1"), folder)
    assert len(compiled) == 2  # the look whether it works, and the network
    assert {True, False} <= set(modes[1:])
    assert evaluated
    assert set(evaluated) == {len(modes)}


def test_a_network_that_cannot_be_compiled_is_one_clear_error(config, folder, monkeypatch):
    """PyTorch 2.11 gives up on EfficientAT with BatchNorm in training and clips of several lengths."""

    def compile_(network):
        def refuse(*parts):
            raise InductorError(TypeError("cannot determine truth value of Relational: 1 < s65"), currentframe())

        return refuse if isinstance(network, torch.nn.Module) else network

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(ConfigError, match=r"can't compile this network \(TypeError: cannot determine.*leave it false"):
        run(config("model=efficientat", "peft=full", "trainer.compile=true"), folder)


def test_a_frozen_part_is_not_compiled_and_says_so(config, folder, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    words = ("model=ast", "peft=head", "augmentation=off", "trainer.max_epochs=1")
    assert "not compiled" in " ".join(run(config(*words, "trainer.compile=true"), folder)["warnings"])


def test_a_run_that_is_not_compiled_is_the_one_from_before_there_was_the_key(config):
    cfg = config()
    with open_dict(cfg):
        del cfg.trainer.compile
    assert fingerprint(cfg) == fingerprint(config()) != fingerprint(config("trainer.compile=true"))


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_numbers(config, tmp_path):
    try:
        hardware.check_compiler("cpu")
    except ConfigError as error:
        pytest.skip(str(error))
    words = ["model=ast", "model.variants.tiny.layers=1", "peft=lora", "augmentation=off", "trainer.max_epochs=2"]
    plain = run(config(*words), tmp_path / "plain")
    fast = run(config(*words, "trainer.compile=true"), tmp_path / "fast")
    for one, other in zip(plain["history"], fast["history"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)
    np.testing.assert_allclose(outcome(tmp_path / "plain"), outcome(tmp_path / "fast"), atol=1e-2)
