"""Keys, groups, layers and refusals: what a user can get wrong, and what he is told."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

import pytest
from helpers import CONF, choice, methods, refused
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from standins import build

from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.peft import inject, oversized_rank, precheck
from sousa_bench.peft.options import Options, plain, read
from sousa_bench.peft.precheck import block_count, declared_fields
from sousa_bench.peft.targets import block_names
from sousa_bench.sweep.plan import refusal as planned

ADAPTED = sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - {"cnn"})
"""All our models but the one that has no layers to adapt."""


def check_config(node) -> Options:
    return read(plain(node), declared_fields(node["_target_"]))


@pytest.mark.parametrize("method", methods())
def test_every_choice_opens_with_its_command_and_has_no_unknown_key(method):
    assert (CONF / "peft" / f"{method}.yaml").read_text().startswith(f"# python -m sousa_bench.train peft={method}")
    options = check_config(choice(method))
    assert options.name == method
    assert options.learning_rate is None if method in ("probe", "knn") else 0 < options.learning_rate < 0.1


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no key 'lora_alhpa'; did you mean lora_alpha"):
        check_config(choice("lora", lora_alhpa=3))


def test_an_unknown_class_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no such class; near it: peft\.LoraConfig"):
        check_config(choice("lora", _target_="peft.LoroConfig"))
    with pytest.raises(ConfigError, match=r"no such class; near it: sousa_bench\.peft\.LocalConfig"):
        check_config(choice("full", _target_="sousa_bench.peft.LocalConfg"))


@pytest.mark.parametrize("key", ["target_modules", "modules_to_save", "task_type"])
def test_what_we_set_ourselves_cannot_be_set(key):
    with pytest.raises(ConfigError, match="is set by sousa_bench"):
        check_config(choice("lora", **{key: "x"}))


@pytest.mark.parametrize("overrides", [{"layers": "last"}, {"batch_norm": "off"}, {"learning_rate": 0}])
def test_impossible_values_are_refused(overrides):
    with pytest.raises(ConfigError, match=f"peft.{next(iter(overrides))}="):
        check_config(choice("lora", **overrides))


def test_an_impossible_value_of_the_class_itself_is_a_config_error():
    with pytest.raises(ConfigError, match="peft=oft"):
        inject(build("transformer", 10), choice("oft", r=3), 10)


def test_a_misspelt_group_names_the_groups():
    with pytest.raises(PeftError, match=r"'atention'.*groups: attention, mlp, norm; near it: attention"):
        inject(build("transformer", 10), choice("lora", targets=["atention"]), 10)


def test_a_pattern_that_matches_nothing_names_near_modules():
    with pytest.raises(PeftError, match=r"near it: .*blocks\.0\.attention\.query"):
        inject(build("transformer", 10), choice("lora", targets=[r"blocks\.0\.attention\.querry"]), 10)


def test_a_pattern_of_the_model_that_matches_nothing_is_an_error():
    model = build("transformer", 10)
    model.targets.groups["mlp"] = [r"blocks\.\d+\.mlp\.fc[12]", r"blocks\.\d+\.ffn"]
    with pytest.raises(PeftError, match="ffn"):
        inject(model, choice("lora"), 10)


def test_groups_that_the_model_lacks_are_passed_over_but_not_all_of_them():
    injection = inject(build("cnn", 10), choice("lora"), 10)
    assert injection.groups == ["pointwise", "squeeze_excitation"]
    with pytest.raises(PeftError, match="its groups are pointwise, squeeze_excitation, depthwise, norm"):
        inject(build("cnn", 10), choice("lora", targets=["attention"]), 10)


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [("last_1", ["blocks.2"]), ("first_2", ["blocks.0", "blocks.1"]), ("last_3", ["blocks.0", "blocks.1", "blocks.2"])],
)
@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "ln_tuning"])
def test_layers_restrict_what_trains(method, layers, blocks):
    injection = inject(build("transformer", 10), choice(method, layers=layers), 10)
    names = [name for name, p in injection.model.backbone.named_parameters() if p.requires_grad]
    in_blocks = {f"blocks.{name.split('blocks.')[1].split('.')[0]}" for name in names if "blocks." in name}
    outside = [name for name in names if "blocks." not in name]
    assert sorted(in_blocks) == blocks
    assert all("head" in name for name in outside)


def test_more_layers_than_there_are_is_an_error():
    with pytest.raises(PeftError, match="has 3 blocks"):
        inject(build("transformer", 10), choice("lora", layers="last_4"), 10)


@pytest.mark.parametrize("method", ["vera", "road", "miss", "fourierft", "randlora"])
def test_linear_only_methods_are_refused_for_the_cnn_before_anything_is_built(method):
    reason = precheck(model_node("efficientat"), choice(method))
    assert f"peft={method} doesn't fit model=efficientat" in reason
    assert "use lora" in reason
    assert precheck(model_node("ast"), choice(method)) is None
    with pytest.raises(PeftError, match=f"peft={method} doesn't fit model=cnn: PEFT has this method for Linear layers"):
        inject(build("cnn", 10), choice(method), 10)


def test_precheck_imports_neither_torch_nor_peft():
    code = (
        "import sys; from omegaconf import OmegaConf; from sousa_bench.peft import precheck;"
        "model, method = map(OmegaConf.load, sys.argv[1:]); method.nosuchkey = 1;"
        "assert 'nosuchkey' in precheck(model, method); assert not {'torch', 'peft'} & {*sys.modules}"
    )
    nodes = [str(CONF / "model" / "ast.yaml"), str(CONF / "peft" / "lora.yaml")]
    subprocess.run([sys.executable, "-c", code, *nodes], check=True, timeout=60)


def model_node(file, /, **changes):
    root = OmegaConf.create({"seed": 1, "weights": "random", "model": OmegaConf.load(CONF / "model" / f"{file}.yaml")})
    root.model = OmegaConf.merge(root.model, changes)
    return root.model


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTED)
def test_every_pair_of_choices_passes_but_those_that_a_network_has_no_place_for(name):
    assert {method for method in methods() if precheck(model_node(name), choice(method))} == refused(name)


def test_a_choice_of_ones_own_is_refused_by_what_it_is():
    mine = model_node("efficientat", name="mine")
    assert (
        planned(OmegaConf.create({"model": mine, "peft": choice("ia3", learning_rate=5e-3, batch_norm="frozen")}))
        is None
    )
    reason = planned(OmegaConf.create({"model": mine, "peft": choice("vera", name="my_vera")}))
    assert reason.startswith("peft=my_vera doesn't fit model=mine: PEFT has this method for Linear layers only")


def test_nodes_of_older_results_are_still_read():
    node = model_node("ast", refuses={"peft.LoraConfig": "it has no weights"})
    assert precheck(node, choice("lora")) is None
    assert instantiate(node, _convert_="all").name == "ast"


@pytest.mark.parametrize(
    ("model", "overrides", "says"),
    [
        ("ast", {"layers": "last_99"}, r"peft\.layers=last_99: model=ast has 4 blocks"),
        ("htsat", {"layers": "first_6"}, "model=htsat has 5 blocks"),
        ("beats", {"layers": "last_4"}, "model=beats has 3 blocks"),
        ("efficientat", {"layers": "last_17"}, "model=efficientat has 16 blocks"),
        ("ast", {"layers": "last"}, "must be all, last_K or first_K"),
        ("ast", {"targets": ["atention"]}, r"did you mean attention\?; groups of model=ast: attention, mlp, norm"),
        ("ast", {"targets": ["(fc1"]}, "neither a group nor a regular expression"),
        (
            "efficientat",
            {"targets": ["attention", "mlp"]},
            "model=efficientat has no such module; its groups are pointw",
        ),
        ("ast", {"lora_alhpa": 3}, "no key 'lora_alhpa'; did you mean lora_alpha"),
        ("ast", {"target_modules": "all"}, "is set by sousa_bench"),
        ("ast", {"_target_": "peft.LoroConfig"}, "peft.LoroConfig: no such class"),
        ("ast", {"r": 0}, "peft.r=0: must be a whole number from 1 on"),
        ("ast", {"lora_dropout": 1.5}, "peft.lora_dropout=1.5"),
        ("ast", {"batch_norm": "off"}, "peft.batch_norm=off"),
        ("ast", {"learning_rate": "fast"}, "must be a number"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_built(model, overrides, says):
    assert re.search(says, precheck(model_node(model), choice("lora", **overrides)))


def test_what_can_run_passes():
    for overrides in (
        {"layers": "last_4"},
        {"targets": ["mlp", r"trunk\.layers\.0\..*_proj"]},
        {"rank_pattern": {"x": 3}},
        {"targets": ["norm"]},
    ):
        assert precheck(model_node("ast"), choice("lora", **overrides)) is None
    assert precheck(model_node("ast", variant="official"), choice("lora", layers="last_12")) is None
    assert precheck(model_node("ast", variants={"tiny": {"layers": 2}}), choice("lora", layers="last_3"))
    assert precheck(model_node("htsat", weights="official"), choice("lora")) is None  # CLAP's file says its variant
    by_hand = precheck(model_node("htsat", weights="official", variant="official"), choice("lora"))
    assert "no official weights of model=htsat model.variant=official are fetched by themselves" in by_hand
    assert "below peft.init_r=4" in precheck(model_node("ast"), choice("adalora", init_r=4))


def test_the_fields_read_from_the_source_are_those_of_the_class():
    for target in {choice(method)["_target_"] for method in methods()}:
        assert declared_fields(target) == {field.name for field in fields(get_class(target))}
    assert declared_fields("elsewhere.Config") is None


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tiny", "official"])
@pytest.mark.parametrize("name", ["ast", "htsat", "beats", "efficientat"])
def test_the_number_of_blocks_is_that_of_the_network(name, variant):
    node = model_node(name, variant=variant)
    assert block_count(node) == len(block_names(instantiate(node, _convert_="all")))


@pytest.mark.parametrize("name", ADAPTED)
def test_a_rank_above_the_largest_layers_is_told_from_the_configs_alone(name):
    node = OmegaConf.create(OmegaConf.to_container(model_node(name, variant="tiny"), resolve=True))
    model = instantiate(node, num_classes=10, _convert_="all")
    inject(model, choice("lora"), 10)
    sides = [min(part.base_layer.weight.flatten(1).shape) for part in model.modules() if hasattr(part, "lora_A")]
    assert oversized_rank(node, choice("lora", r=max(sides))) is None
    assert oversized_rank(node, choice("lora", r=max(sides) + 1)) == (
        f"peft.r={max(sides) + 1}: the layers of model={name}, model.variant=tiny have a rank of {max(sides)} at most; "
        "what is above adds parameters and no freedom"
    )
    assert f"peft.init_r={max(sides) + 1}: " in str(oversized_rank(node, choice("adalora", init_r=max(sides) + 1)))
    assert oversized_rank(node, choice("vera", r=1024)) is None  # its shared matrices may be of any size
    assert oversized_rank({"name": "mine", "variants": {"tiny": {"dim": 4}}}, choice("lora")) is None
