"""AdaLoRA's budget is reached because it is driven, over the run's real length; a resumed run goes on exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import BATCH, choice, fit
from standins import build
from torch.nn.functional import cross_entropy

from sousa_bench.errors import ConfigError
from sousa_bench.peft import inject
from sousa_bench.peft.adalora import schedule
from sousa_bench.peft.injection import Injection


def prepare(steps: int, **overrides) -> Injection:
    torch.manual_seed(3)
    return inject(build("transformer", 10), choice("adalora", **overrides), steps)


def ranks(injection: Injection) -> int:
    """Counted in the weights themselves, not in what the allocator says."""
    weights = injection.model.backbone.named_parameters()
    return sum(int((weight != 0).sum()) for name, weight in weights if "lora_E" in name)


def test_ranks_shrink_to_the_budget():
    injection = prepare(40)
    fit(injection, steps=40)
    facts = injection.facts()["adalora"]
    assert facts["initial_rank"] == 18 * 12
    assert facts["target_rank"] == 18 * 8
    assert ranks(injection) == facts["final_rank"] == sum(facts["rank_pattern"].values()) == 18 * 8
    assert len(set(facts["rank_pattern"].values())) > 1  # shared out by importance, not evenly
    assert injection.final_warnings() == []


def test_without_the_schedule_they_do_not(monkeypatch):
    monkeypatch.setattr(Injection, "after_optimizer_step", lambda self, step: None)
    injection = prepare(40)
    fit(injection, steps=40)
    assert ranks(injection) == 18 * 12
    assert not injection.facts()["adalora"]["budget_reached"]
    assert "216 ranks, not the budget's 144" in injection.final_warnings()[0]


def test_an_earlier_best_epoch_brings_its_own_ranks_back():
    injection = prepare(40)
    state = injection.trainable_state()
    fit(injection, steps=40)
    fresh = prepare(40)
    fresh.load_trainable_state(state)
    assert fresh.facts()["adalora"]["final_rank"] == 18 * 12
    assert fresh.final_warnings()


@pytest.mark.parametrize("total", [1, 2, 3, 5, 10, 1000])
def test_the_schedule_fits_every_length(total):
    filled = schedule({"init_r": 12, "target_r": 8, "tinit": 0.1, "tfinal": 0.3, "deltaT": None}, total)
    assert filled["total_step"] == max(total, 2)
    assert filled["total_step"] - filled["tfinal"] >= 2
    assert 0 <= filled["tinit"] < filled["total_step"] - filled["tfinal"]
    assert filled["deltaT"] >= 1


def test_fractions_and_steps():
    asked = {"init_r": 12, "target_r": 8, "tinit": 200, "tfinal": 0.25, "deltaT": None}
    filled = schedule(asked, 1000)
    assert (filled["tinit"], filled["tfinal"], filled["deltaT"]) == (200, 250, 27)
    assert schedule({**asked, "deltaT": 5}, 1000)["deltaT"] == 5


@pytest.mark.parametrize("overrides", [{"target_r": 12}, {"target_r": 0}, {"tinit": -1}])
def test_an_impossible_budget_is_refused(overrides):
    with pytest.raises(ConfigError, match=f"peft.{next(iter(overrides))}="):
        prepare(40, **overrides)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_short_runs_reach_the_budget_too(steps):
    injection = prepare(steps)
    fit(injection, steps=steps)
    assert ranks(injection) == 18 * 8


def test_a_single_step_is_a_warning():
    assert "single optimizer step" in prepare(1).warnings[0]


def test_a_learning_rate_of_zero_at_first_prunes_nothing():
    injection = prepare(20, tinit=0, tfinal=5)
    features, mask = injection.model.features(BATCH)
    cross_entropy(injection.model.backbone(features, mask), torch.arange(len(BATCH)) % 10).backward()
    injection.after_optimizer_step(1)  # a warm-up's first step: the weights haven't moved
    assert injection.facts()["adalora"]["final_rank"] == 18 * 12


def test_the_extra_loss_is_the_one_that_peft_adds():
    injection = prepare(20)

    class Output:
        loss = torch.zeros(())

    class Inner(torch.nn.Module):
        def forward(self):
            return Output()

    tuner = injection.model.backbone.base_model
    original = tuner.model
    inner = Inner()
    inner.adapters = original
    tuner.model = inner
    expected = tuner.forward().loss
    tuner.model = original
    assert expected > 0.1
    torch.testing.assert_close(injection.extra_loss(), expected, rtol=1e-5, atol=0)
    assert prepare(20, orth_reg_weight=0.0).extra_loss() is None


@pytest.mark.slow
def test_a_resumed_run_goes_on_exactly():
    straight = prepare(24)
    train(straight, range(1, 25), adamw(straight))
    first = prepare(24)
    optimizer = adamw(first)
    train(first, range(1, 13), optimizer)
    saved = copy.deepcopy((first.model.state_dict(), first.state_dict(), optimizer.state_dict()))
    second = prepare(24)
    second.model.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    optimizer = adamw(second)
    optimizer.load_state_dict(saved[2])
    train(second, range(13, 25), optimizer)
    assert second.facts()["adalora"]["rank_pattern"] == straight.facts()["adalora"]["rank_pattern"]
    with torch.no_grad():
        assert torch.equal(second.model.eval()(BATCH), straight.model.eval()(BATCH))


def adamw(injection: Injection) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in injection.model.parameters() if p.requires_grad], lr=5e-3)


def train(injection: Injection, steps: range, optimizer: torch.optim.Optimizer) -> None:
    features, mask = injection.model.features(BATCH)
    for step in steps:
        torch.manual_seed(step)
        injection.train_mode()
        loss = cross_entropy(injection.model.backbone(features, mask), torch.arange(len(BATCH)) % 10)
        (loss + injection.extra_loss()).backward()
        optimizer.step()
        injection.after_optimizer_step(step)
        optimizer.zero_grad()
