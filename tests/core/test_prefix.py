"""What the frozen lower part of a network gives is remembered, and nothing but the time changes."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.models.base import Divisible
from sousa_bench.training.frozen_part import GROUP, groups
from sousa_bench.training.run import run

MODELS = ("ast", "htsat", "beats", "efficientat")
FURTHER = ("ced", "dasheng", "eat", "passt", "openbeats", "hubert", "wavlm", "whisper")
LAST = {"ast": "last_2", "htsat": "last_2", "beats": "last_1", "efficientat": "last_3"}


@pytest.mark.parametrize("model", [*MODELS, *FURTHER])
def test_a_divided_network_is_the_whole_one(config, model):
    built = instantiate(config(f"model={model}", "weights=random").model, num_classes=40, _convert_="all").eval()
    backbone = built.backbone
    assert isinstance(backbone, Divisible)
    waveform = torch.randn(2, 3 * built.sample_rate, generator=torch.Generator().manual_seed(0)) * 0.1
    lengths = torch.tensor([3 * built.sample_rate, 2 * built.sample_rate])
    blocks = [name for name, _ in backbone.named_modules() if re.fullmatch(built.targets.blocks[0], name)]
    assert len(blocks) > 1
    with torch.no_grad():
        features, mask = built.features(waveform, lengths)
        whole = backbone(features, mask)
        for place in (None, blocks[0], blocks[-1]):
            state = backbone.until(place, features, mask)
            assert torch.equal(backbone.onward(place, state), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method"),
    [
        *itertools.product(MODELS, ["peft=head"]),
        *((name, f"peft=lora peft.layers={LAST[name]}") for name in MODELS),
    ],
)
def test_the_metrics_stay(config, tmp_path, model, method, monkeypatch):
    """Against the plain path, which a run without memory for features takes."""
    calls = count_prefixes(monkeypatch)
    words = [f"model={model}", *method.split(), "augmentation=off", "peft.learning_rate=0.01", "trainer.max_epochs=2"]
    remembered = run(config(*words), tmp_path / "remembered")
    computed = calls.pop("until")
    clips = sum(remembered["data"]["counts"].values())
    assert 0 < computed <= 3 * clips  # not once an epoch and length
    plain = run(config(*words, "trainer.feature_memory_mb=0"), tmp_path / "plain")
    assert calls.get("until", 0) <= 1  # to see how much memory it would take
    for one, other in zip(remembered["history"], plain["history"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    logits = [
        np.stack(pd.read_parquet(tmp_path / name / "predictions.parquet")["logits"]) for name in ("remembered", "plain")
    ]
    np.testing.assert_allclose(*logits, atol=1e-3)


def count_prefixes(monkeypatch):
    """Clips that went through a frozen part, by name of the method."""
    calls = {}

    def counted(original):
        def until(self, place, features, padding_mask=None):
            calls["until"] = calls.get("until", 0) + len(features)
            return original(self, place, features, padding_mask)

        return until

    for cls in Divisible.__subclasses__():
        monkeypatch.setattr(cls, "until", counted(cls.until))
    return calls


def test_groups_hold_one_length():
    padded = np.array([3, 1, 3, 2, 1] * 20)
    found = groups(padded)
    for number in np.unique(found):
        members = np.flatnonzero(found == number)
        assert len(members) <= GROUP
        assert len(np.unique(padded[members])) == 1


def test_nothing_is_remembered_where_dropout_or_training_comes_first(config, tmp_path, monkeypatch):
    calls = count_prefixes(monkeypatch)
    run(config("model=ast", "peft=lora", "augmentation=off", "trainer.max_epochs=1"), tmp_path / "all_layers")
    assert not calls


def test_the_look_at_its_size_keeps_no_features(config):
    """They would be on the device on which the model was built, not on that on which it trains."""
    setup = Setup.of(config("model=efficientat", "peft=head", "augmentation=off"))
    assert setup.module.inputs.prefix is not None
    assert setup.module.inputs.memory.held_bytes == 0
