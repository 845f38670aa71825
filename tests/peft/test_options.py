"""Keys, groups, layers and refusals: what a user can get wrong, and what he is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import CONF, choice, methods
from omegaconf import OmegaConf
from standins import build

from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.peft import check_config, inject, refusal


@pytest.mark.parametrize("method", methods())
def test_every_choice_opens_with_its_command_and_has_no_unknown_key(method):
    assert (CONF / "peft" / f"{method}.yaml").read_text().startswith(f"# python -m sousa_bench.train peft={method}")
    options = check_config(choice(method))
    assert options.name == method
    assert 0 < options.learning_rate < 0.1


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no key 'lora_alhpa'; did you mean lora_alpha"):
        check_config(choice("lora", lora_alhpa=3))


def test_an_unknown_class_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no such class; near it: peft\.LoraConfig"):
        check_config(choice("lora", _target_="peft.LoroConfig"))


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
    reason = refusal("efficientat", choice(method))
    assert f"peft={method} doesn't fit model=efficientat" in reason
    assert "use lora" in reason
    assert refusal("ast", choice(method)) is None
    assert refusal(OmegaConf.load(CONF / "model" / "efficientat.yaml"), choice(method)) == reason


def test_refusal_imports_neither_torch_nor_peft():
    code = (
        "import sys; from sousa_bench.peft import refusal; refusal('ast', {'name': 'lora'});"
        "assert not {'torch', 'peft'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
