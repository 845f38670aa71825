"""The size that `peft.budget` chooses: nearest to what was asked, made as it was reckoned, and said in the result."""

from __future__ import annotations

import copy
import json
import re
from itertools import product

import pytest
from helpers import CONF, choice, methods
from omegaconf import OmegaConf
from test_methods import MODELS, build, check_budgets, layer_sizes, model_node

from sousa_bench.config.run_config import RunConfig
from sousa_bench.errors import ConfigError
from sousa_bench.peft import inject, precheck
from sousa_bench.peft.method_sizes import Budget, Layer, declared_size, size_of
from sousa_bench.sweep.plan import Candidate
from tests.analysis.composed_runs import SHORT, configs_of
from tests.cases import check_each
from tests.trained import SMALL, command, home

SIZED = [method for method in methods() if declared_size(choice(method))]


@pytest.fixture(scope="module")
def fresh():
    return {name: build(model_node(name)) for name in MODELS}


def test_every_choice_has_the_key():
    assert {choice(method)["budget"] for method in methods()} == {None}


@pytest.mark.slow
def test_each_pair_comes_as_near_to_each_budget_as_it_can(fresh):
    def check(name, method):
        model, made = fresh[name], copy.deepcopy(fresh[name])
        injection = inject(made, choice(method, budget="0.3%"), 10)  # refuses another count than was reckoned
        reached = injection.facts()["budget"]
        there = injection.parameters["trainable"] - injection.parameters["head"]
        assert (reached["asked"], reached["reached_params"]) == ("0.3%", there)
        assert reached["reached"] == there / injection.parameters["backbone"]
        assert abs(reached["reached"] / 0.003 - 1) <= 0.1 or f"{there:,} trainable" in injection.warnings[0]
        assert injection.node.items() >= reached["chosen"].items()
        check_budgets(model, injection, layer_sizes(model.backbone))

    pairs = [(n, m) for n in MODELS for m in SIZED if not precheck(model_node(n), choice(m))]
    check_each(pairs, check)


def test_a_number_of_parameters_and_norms_that_train(fresh):
    injection = inject(copy.deepcopy(fresh["efficientat"]), choice("lora", budget=30_000, batch_norm="train"), 10)
    facts, norms = injection.facts()["budget"], injection.parameters["adapter"] - _of_lora(injection)
    assert (facts["asked"], facts["asked_params"]) == ("30000", 30_000)
    assert norms > 1_000
    assert facts["reached_params"] == injection.parameters["adapter"] == pytest.approx(30_000, rel=0.1)


def _of_lora(injection):
    return sum(p.numel() for name, p in injection.model.backbone.named_parameters() if ".lora_" in name)


@pytest.mark.parametrize(
    ("method", "options", "chosen"),
    [
        ("lora", {}, {"r": 3, "lora_alpha": 6}),
        ("lora", {"use_rslora": True}, {"r": 3, "lora_alpha": 16}),
        ("lora", {"lora_alpha": 8}, {"r": 3, "lora_alpha": 3}),
        ("loha", {}, {"r": 1, "alpha": 2}),
        ("adalora", {}, {"init_r": 3, "target_r": 2, "lora_alpha": 8}),
        ("bottleneck", {}, {"width": 25}),
        ("prefix", {}, {"length": 26}),
        ("prompt", {}, {"length": 52}),
        ("prompt", {"depth": "shallow"}, {"length": 208}),
    ],
)
def test_what_scales_the_update_keeps_its_ratio_to_the_size(fresh, method, options, chosen):
    injection = inject(copy.deepcopy(fresh["ast"]), choice(method, budget=20_000, **options), 10)
    assert injection.node.items() >= chosen.items()


def test_a_size_of_oft_divides_the_inputs_of_a_layer():
    sizes = size_of(choice("oft", budget="1%")).sizes([Layer(96, 96), Layer(40, 10)])
    assert list(sizes) == [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 96]


@pytest.mark.parametrize("target", ["peft.tuners.lora.LoraConfig", "sousa_bench.peft.added_options.PromptConfig"])
def test_a_method_has_its_size_wherever_its_class_is_taken_from(target):
    assert declared_size({"_target_": target})


def test_one_budget_has_one_spelling():
    assert {Budget.of(text).text for text in ("0.3%", "0.30%", ".3%", " 0.3 %")} == {"0.3%"}
    assert [Budget.of(text).text for text in ("100%", "1.0%", "0.00001%")] == ["100%", "1%", "0.00001%"]


def test_a_sweep_holds_methods_without_a_size_beside_a_budget():
    """Each is refused by itself; ``null`` changes nothing of any, and spellings of one budget are one run."""
    words = ("model=ast", "augmentation=off", *SHORT)
    configs = configs_of((*words, "peft=lora,head,probe", "peft.budget=0.3%,.30%,null"))
    made = [Candidate.of(RunConfig(config), []) for config in configs]
    assert [bool(each.refusal) for each in made] == [False] * 3 + [True, True, False] * 2
    assert "peft=head has no size that peft.budget could choose" in str(made[3].refusal)
    assert made[0].digest == made[1].digest != made[2].digest
    plain = [Candidate.of(RunConfig(config), []).digest for config in configs_of((*words, "peft=lora,head,probe"))]
    assert [each.digest for each in made[2::3]] == plain


@pytest.mark.parametrize("value", ["0.3", 0.3, "0%", "101%", 0, -5, True, "much", "1e3%", [1]])
def test_what_is_no_budget_is_refused(value):
    with pytest.raises(ConfigError, match=r"such as 0\.3%, above 0 % and up to 100 %, or a whole number"):
        Budget.of(value)


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("lora", {"bias": "all"}, r"peft\.bias=all: peft\.budget doesn't reckon with it"),
        ("lora", {"rank_pattern": {"x": 3}}, r"peft\.rank_pattern=.*or choose peft\.r yourself"),
        ("lora", {"lora_alpha": None}, r"peft\.lora_alpha=None: must be a number above 0"),
        ("lora", {"r": "many"}, r"peft\.r=many: must be a number above 0"),
        ("lokr", {"decompose_both": True}, r"peft\.decompose_both=True"),
        *((method, {}, f"peft={method} has no size") for method in methods() if method not in SIZED),
    ],
)
def test_what_a_budget_cannot_reckon_with_is_refused_before_a_sweep(method, options, says):
    assert re.search(says, precheck(model_node("ast"), choice(method, budget="0.3%", **options)))


@pytest.mark.slow
def test_the_experiment_holds_every_method_that_has_a_size():
    params = OmegaConf.load(CONF / "experiment" / "budget.yaml").hydra.sweeper.params
    budgets = params["peft.budget"].split(",")
    assert sorted(params.peft.split(",")) == SIZED
    asked = product(params.model.split(","), SIZED, budgets)
    refusals = [precheck(model_node(model), choice(method, budget=budget)) for model, method, budget in asked]
    assert (len(refusals), refusals.count(None)) == (216, 177)
    assert all("doesn't fit model=" in reason for reason in refusals if reason)
    configs = configs_of(("-m", "experiment=budget", "model=efficientat", "peft=lora,vera", *SHORT))
    assert [(config.peft.name, config.peft.budget) for config in configs] == [*product(("lora", "vera"), budgets)]
    assert {config.augmentation.name for config in configs} == {"off"}


@pytest.mark.slow
def test_the_command_line():
    """A sweep over budgets: two runs, each with what it reached."""
    words = [word for word in SMALL if not word.startswith(("peft=", "trainer.precision="))] + ["peft=bottleneck"]
    done = command("train", "-m", "sweep=budgets", *words, "peft.budget=0.1%,1%")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "peft.budget=0.1%: with peft=bottleneck on model=ast (tiny), peft.width=1 makes 1,156" in done.stdout
    results = [json.loads(file.read_text()) for file in (home() / "multirun" / "budgets").glob("*/result.json")]
    small, large = sorted(results, key=lambda result: result["parameters"]["adapter"])
    assert [small["config"]["peft.budget"], large["config"]["peft.budget"]] == ["0.1%", "1%"]
    assert small["fingerprint"] != large["fingerprint"]
    assert large["peft"]["budget"]["chosen"] == {"width": 6}
    assert large["parameters"]["adapter"] == large["peft"]["budget"]["reached_params"] == 5_016
    assert ["no other size" in " ".join(result["warnings"]) for result in (small, large)] == [True, False]
