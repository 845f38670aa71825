"""The training recipe: schedule, targets, decay, clipping. A wrong one shows in no traceback."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sousa_bench.config.instantiate import build
from sousa_bench.data.datamodule import Batch, EpochBatches, EvalBatches
from sousa_bench.data.rudiments import TASK
from sousa_bench.errors import ConfigError
from sousa_bench.peft import inject
from sousa_bench.training.classifier import Classifier, Optimization
from sousa_bench.training.recipe import build_model, learning_rates
from sousa_bench.training.run import run
from tests.cases import check_each


def optimization(**changes):
    plain = {
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-3,
        "weight_decay": 0.1,
        "warmup_fraction": 0.1,
        "label_smoothing": 0.1,
        "gradient_clip": 1.0,
        "total_steps": 100,
        "seed": 0,
    }
    return Optimization(**{**plain, **changes})


def test_the_rate_rises_and_falls_as_a_cosine():
    factor = optimization().factor
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(10) == pytest.approx(1.0)
    assert factor(55) == pytest.approx(0.5)
    assert factor(99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize(
    ("model", "peft"), [("efficientat", "lora"), ("ast", "ia3"), ("beats", "full"), ("htsat", "head"), ("ast", "full")]
)
def test_the_head_has_a_rate_of_its_own(model, peft, first_step):
    module, _ = first_step(f"model={model}", f"peft={peft}", "trainer.head_learning_rate=0.02")
    peaks = {id(p): group["peak"] for group in module.configure_optimizers().param_groups for p in group["params"]}
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert peaks.keys() == {id(p) for p in trained.values()}
    head = f"{module.injection.head_name}."
    new = {"ast": "dense."}.get(model, "")
    own = {name: peaks[id(p)] for name, p in trained.items() if head in name and new in name}
    others = {name: peaks[id(p)] for name, p in trained.items() if name not in own}
    assert own
    assert set(own.values()) == {0.02}
    assert set(others.values()) == (set() if peft == "head" else {module.optimization.learning_rate})
    assert peft == "head" or module.optimization.learning_rate < 0.02


@pytest.mark.parametrize(
    ("model", "peft", "expected"),
    [
        ("ast", "lora", 1 / 96),
        ("beats", "ia3", 1 / 96),
        ("htsat", "adalora", 1 / 128),
        ("efficientat", "full", 1 / 320),
        ("efficientat", "head", 5e-3),
    ],
)
def test_without_a_rate_of_its_own_a_new_head_has_that_of_its_width(model, peft, expected, first_step):
    module, _ = first_step(f"model={model}", f"peft={peft}")
    assert module.optimization.head_learning_rate == pytest.approx(expected)


def test_a_rate_given_to_all_leaves_the_new_head_its_own(first_step):
    module, _ = first_step("model=ast", "peft=lora", "trainer.learning_rate=0.5")
    assert (module.optimization.learning_rate, module.optimization.head_learning_rate) == (0.5, pytest.approx(1 / 96))


@pytest.mark.parametrize("key", ["learning_rate", "head_learning_rate"])
def test_a_linear_probe_has_one_rate_whichever_key_gives_it(key, first_step):
    module, _ = first_step("model=ast", "peft=head", f"trainer.{key}=0.25")
    assert (module.optimization.learning_rate, module.optimization.head_learning_rate) == (0.25, 0.25)


def test_a_head_that_the_weights_fill_has_the_rate_of_the_method(config):
    cfg = config("model=ast", "peft=lora")
    injection = inject(build_model(cfg, TASK), cfg.peft, 10)
    settings = build(cfg.trainer)
    assert learning_rates(cfg, settings, injection) == (1e-3, pytest.approx(1 / 96))
    injection.model.fresh = ()
    assert learning_rates(cfg, settings, injection) == (1e-3, 1e-3)
    assert sum(p.numel() for p in injection.head_parameters()) == 40 * 96 + 40 + 2 * 96  # and the norm before it


def test_a_head_without_a_width_wants_a_rate(config):
    cfg = config("model=ast", "peft=lora")
    injection = inject(build_model(cfg, TASK), cfg.peft, 10)
    injection.model.fresh = (f"{injection.model.head_name}.layernorm",)
    with pytest.raises(ConfigError, match=r"holds 0 matrices.*give trainer\.head_learning_rate"):
        learning_rates(cfg, build(cfg.trainer), injection)


def test_a_head_that_was_trained_before_has_the_rate_of_the_method(config, tmp_path, first_step):
    earlier = tmp_path / "earlier"
    run(config("model=ast", "peft=lora", "augmentation=off", "trainer.max_epochs=1"), earlier)
    module, _ = first_step("model=ast", "peft=lora", f"init_from={earlier}")
    assert module.optimization.head_learning_rate == module.optimization.learning_rate == 1e-3


def test_the_rate_of_a_step_is_that_share_of_its_peak(config, folder, monkeypatch):
    rates = []
    original = torch.optim.AdamW.step

    def step(self, *words, **named):
        rates.append({group["peak"]: group["lr"] for group in self.param_groups})
        return original(self, *words, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run(config("model=ast", "augmentation=off", "trainer.head_learning_rate=0.02", "trainer.max_epochs=1"), folder)
    assert len(rates) > 2
    for number, found in enumerate(rates):
        share = optimization(total_steps=len(rates)).factor(number)
        assert found == pytest.approx({peak: peak * share for peak in (0.001, 0.02)})


class SeenError(Exception):
    """Ends a run once a test has what it wants."""


@pytest.fixture
def first_step(config, folder, monkeypatch):
    """Run up to the first training step and give the module and batch that it would take."""

    def catch(*overrides):
        found = {}

        def step(self, batch, batch_idx):
            found.update(module=self, batch=batch)
            raise SeenError

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "training_step", step)
            with pytest.raises(SeenError):
                run(config(*overrides), folder)
        return found["module"], found["batch"]

    return catch


def test_targets_are_smoothed_and_mixed(first_step):
    module, batch = first_step(
        "model=efficientat", "augmentation.mixup.probability=1", "augmentation.mixup.alpha=1", "trainer.batch_size=8"
    )
    _, targets, _ = module.training_inputs(batch)
    clips = module.clips["train"]
    draws = module.augmentation.draw(module.optimization.seed, batch.epoch, clips.keys[batch.index])
    partners, _ = draws.partners(batch.index, batch.members)
    for row, (own, other, weight) in enumerate(zip(batch.index, partners, draws.partner_weight, strict=True)):
        expected = torch.full((40,), 0.1 / 40)
        expected[clips.labels[own]] += 0.9 * (1 - weight)
        expected[clips.labels[other]] += 0.9 * weight
        torch.testing.assert_close(targets[row], expected)


def test_without_augmentation_the_targets_are_smoothed_alike(first_step):
    module, batch = first_step("model=efficientat", "augmentation=off")
    _, targets, _ = module.training_inputs(batch)
    own = targets[torch.arange(len(targets)), module.clips["train"].labels[batch.index]]
    torch.testing.assert_close(own, torch.full_like(own, 0.9 + 0.1 / 40))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(targets)))


SCALES_AND_TOKENS = (
    "ia3_l",
    "lora_E",
    "lora_magnitude_vector",
    "cls_token",
    "distillation_token",
    "grep_a",
    "original0",
)
"""In the names of vectors that are stored with more than one dimension."""


@pytest.mark.slow
def test_matrices_decay_and_vectors_do_not(config):
    """A matrix is one with a single row or column too, such as LoRA's of rank 1."""

    def check(model, method, *words):
        cfg = config(f"model={model}", f"peft={method}", "trainer.weight_decay=0.1", *words)
        injection = inject(build_model(cfg, TASK), cfg.peft, 10)
        decaying = {id(parameter) for parameter in injection.decaying_parameters()}
        for name, parameter in injection.model.backbone.named_parameters():
            vector = parameter.ndim == 1 or any(part in name for part in SCALES_AND_TOKENS)
            assert (id(parameter) in decaying) == (parameter.requires_grad and not vector), name
        assert decaying

    low_rank = ("lora", "dora", "hira", "hra", "loha", "lokr")
    check_each(
        [
            *(("ast", method) for method in ("lora", "adalora", "ia3", "full", "bitfit", "oft", "randlora")),
            *(("beats", "full"), ("htsat", "randlora"), ("efficientat", "oft"), ("efficientat", "ia3")),
            *(("efficientat", method, "peft.r=1") for method in low_rank),
            *(("ast", method, "peft.r=1") for method in ("lora", "dora", "miss", "randlora")),
        ],
        check,
    )


def test_the_optimizer_lets_matrices_decay(first_step):
    module, _ = first_step("model=ast", "peft=lora", "peft.r=1", "trainer.weight_decay=0.1")
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in module.configure_optimizers().param_groups
        for parameter in group["params"]
    }
    assert set(decay) == {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert {value for name, value in decay.items() if "lora_" in name or name.endswith("dense.weight")} <= {0.1}
    assert {value for name, value in decay.items() if name.endswith("bias")} == {0.0}


def test_gradients_are_clipped_and_the_rate_follows_the_schedule(config, folder, monkeypatch):
    norms, rates = [], []

    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    overrides = ["trainer.gradient_clip=0.01", "trainer.max_epochs=2", "trainer.learning_rate=0.5"]
    run(config("model=efficientat", "peft=head", *overrides), folder)
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
    expected = optimization(total_steps=len(rates)).factor
    assert rates == pytest.approx([0.5 * expected(step) for step in range(len(rates))])


class FewClips:
    """Lengths of a split, without audio."""

    split = "train"

    def __init__(self, padded):
        self.padded = np.asarray(padded)
        self.pieces = self

    def __len__(self):
        return len(self.padded)


def test_a_limited_run_takes_a_batch_with_the_longest_clips():
    clips = FewClips([2] * 20 + [5] * 3 + [3] * 20)
    assert clips.padded[EvalBatches(clips, 4, limit=1).batches[0].members].max() == 5
    assert clips.padded[EpochBatches(clips, 4, 0, 0, limit=1).batches[0].members].max() == 5


def test_every_process_gets_as_many_batches():
    clips = FewClips([2] * 5)
    ranks = [EvalBatches(clips, 4, rank=rank, world_size=3) for rank in range(3)]
    assert [len(rank) for rank in ranks] == [1, 1, 1]
    assert sorted(i for rank in ranks for batch in rank for i in batch.index) == [0, 1, 2, 3, 4]
    assert isinstance(next(iter(ranks[2])), Batch)


def test_an_epoch_holds_every_clip_once():
    clips = FewClips([2, 3, 5] * 11)
    for epoch in (0, 1):
        seen = [i for batch in EpochBatches(clips, 4, 7, epoch) for i in batch.members]
        assert sorted(seen) == list(range(33))
