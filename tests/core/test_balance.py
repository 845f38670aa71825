"""Classes of unequal size: balanced sampling and class weights."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sousa_bench.data.datamodule import Clips, EpochBatches
from sousa_bench.errors import ConfigError
from sousa_bench.peft.precheck import precheck
from sousa_bench.task import Task
from sousa_bench.training.classifier import Classifier, class_weights
from sousa_bench.training.run import run
from tests.core.test_run import interrupt, numbers


def clips(labels, several=False):
    """A split with these labels, of which nothing is ever heard."""
    made = object.__new__(Clips)
    made.split, made.labels = "train", torch.tensor(labels)
    made.task = Task(tuple("abc"), several=several)
    made.padded = np.ones(len(labels), dtype=np.int64)
    made.keys = np.arange(len(labels)) + 7
    made.table = made.labels
    return made


UNEQUAL = [0] * 60 + [1] * 25 + [2] * 5


def test_an_epoch_holds_as_many_clips_of_each_class():
    split = clips(UNEQUAL)
    seen = []
    for epoch in range(3):
        batches = EpochBatches(split, 8, 1, epoch, balanced=True)
        index = np.concatenate([batch.index for batch in batches])
        assert len(index) == 90
        assert Counter(split.labels[index].tolist()) == {0: 30, 1: 30, 2: 30}
        times = Counter(index.tolist())
        assert {times[i] for i in range(85, 90)} == {6}  # 30 of 5
        assert {times[i] for i in range(60, 85)} <= {1, 2}
        assert {times[i] for i in range(60)} <= {0, 1}
        keys = np.concatenate([split.draw_keys(batch) for batch in batches])
        assert len(set(keys)) == 90  # copies of a clip are augmented each in their own way
        seen.append(index.tolist())
    again = EpochBatches(split, 8, 1, 2, balanced=True)
    assert [i for batch in again for i in batch.index] == seen[2]
    assert seen[0] != seen[1]
    rest = EpochBatches(split, 8, 1, 2, balanced=True, skip=4)
    assert [i for batch in rest for i in batch.index] == seen[2][32:]
    ranks = [EpochBatches(split, 8, 1, 2, balanced=True, rank=rank, world_size=2) for rank in range(2)]
    for whole, *parts in zip(again, *ranks, strict=True):
        assert sorted(np.concatenate([split.draw_keys(part) for part in parts])) == sorted(split.draw_keys(whole))


def test_of_several_labels_the_rarest_counts():
    labels = [[1, 0, 0]] * 20 + [[1, 1, 0]] * 6 + [[1, 0, 1]] * 2 + [[0, 0, 0]] * 2
    split = clips(labels, several=True)
    assert split.rarest.tolist() == [0] * 20 + [1] * 6 + [2] * 2 + [-1] * 2
    index = np.concatenate([batch.index for batch in EpochBatches(split, 4, 0, 0, balanced=True)])
    shares = Counter(split.rarest[index].tolist())
    assert sum(shares.values()) == 30
    assert all(abs(count - 7.5) <= 1 for count in shares.values())


def weighted(labels, several=False):
    split = clips(labels, several)
    module = SimpleNamespace(
        task=split.task,
        teacher=None,
        weights=class_weights(split),
        optimization=SimpleNamespace(seed=0, label_smoothing=0.1),
        inputs=SimpleNamespace(training=lambda batch, seed: (None, split.targets(range(len(labels))))),
    )
    _, targets, _ = Classifier.training_inputs(module, None)
    logits = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    return module.weights, logits, Classifier._losses(module, logits, targets)


def test_class_weights_make_classes_weigh_alike():
    weights, logits, losses = weighted(UNEQUAL)
    torch.testing.assert_close(weights, torch.tensor([90 / (3 * 60), 90 / (3 * 25), 90 / (3 * 5)]))
    own = torch.tensor(UNEQUAL)
    plain = cross_entropy(logits, own, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(losses, plain * weights[own])
    by_class = torch.stack([plain[own == number].mean() for number in range(3)])
    torch.testing.assert_close(losses.mean(), by_class.mean())


def test_class_weights_of_several_labels_are_positive_weights():
    labels = [[1, 0, 0]] * 6 + [[1, 1, 0]] * 2
    weights, logits, losses = weighted(labels, several=True)
    torch.testing.assert_close(weights, torch.tensor([1.0, 3.0, 1.0]))  # all have the first, and none the last
    held = torch.tensor(labels).float()
    plain = binary_cross_entropy_with_logits(logits, held * 0.9 + 0.05, reduction="none")
    torch.testing.assert_close(losses, torch.where(held > 0, weights * plain, plain).mean(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("trainer.sampling=balanced", "augmentation=on"), ("trainer.class_weights=balanced",)]
)
def test_a_run_with_balance_goes_on_where_it_was(config, tmp_path, monkeypatch, words):
    unequal = "data.synthetic.clips=140"  # 56 clips to train on, of 40 classes
    small = ("model=efficientat", "peft=lora", "trainer.max_epochs=2", "trainer.train_batches=3", unequal)
    cfg = config(*small, *words)
    whole = numbers(run(cfg, tmp_path / "whole"), tmp_path / "whole")
    interrupt(monkeypatch, cfg, tmp_path / "parts", 2)
    assert numbers(run(cfg, tmp_path / "parts"), tmp_path / "parts") == whole
    plain = config(*small, *words[1:])
    assert numbers(run(plain, tmp_path / "plain"), tmp_path / "plain") != whole


@pytest.mark.parametrize("key", ["sampling", "class_weights"])
def test_the_probe_takes_neither(config, folder, key):
    cfg = config("model=ast", "peft=probe", "augmentation=off", f"trainer.{key}=balanced")
    said = rf"peft=probe doesn't fit trainer\.{key}=balanced.*peft=head"
    assert precheck(cfg.model, cfg.peft, cfg.augmentation, cfg.trainer)
    with pytest.raises(ConfigError, match=said):
        run(cfg, folder)
