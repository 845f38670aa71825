"""What each model's config says of its head, its targets and its blocks, held against its backbone."""

from __future__ import annotations

import re

import pytest
from building import CONF, build
from omegaconf import OmegaConf
from torch import nn

from sousa_bench.errors import ConfigError

GROUPS = {
    "ast": {"attention": 4 * 4, "mlp": 2 * 4},
    "htsat": {"attention": 4 * 5, "mlp": 2 * 5},
    "beats": {"attention": 4 * 3, "mlp": 2 * 3},
    # 15 inverted residuals, the first without expansion, 8 with squeeze-excitation; and the last convolution
    "efficientat": {"pointwise": 14 + 15 + 1, "squeeze_excitation": 2 * 8, "depthwise": 15, "classifier": 1},
    "cnn": {"convolution": 1 + 2 * 3},
    "openbeats": {"attention": 4 * 3, "mlp": 2 * 3},
    **{name: {"attention": 4 * 4, "mlp": 2 * 4} for name in ("ced", "dasheng", "eat", "passt")},
    **{name: {"attention": 4 * 3, "mlp": 2 * 3} for name in ("hubert", "wavlm", "whisper")},
}
BLOCKS = {
    "ast": 4,
    "htsat": 5,
    "beats": 3,
    "efficientat": 16,
    "cnn": 3,
    "ced": 4,
    "dasheng": 4,
    "eat": 4,
    "passt": 4,
    "openbeats": 3,
    "hubert": 3,
    "wavlm": 3,
    "whisper": 3,
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_config_names_every_layer_that_it_means(name: str) -> None:
    model, node = build(name), OmegaConf.load(CONF / f"{name}.yaml")
    names = [key for key, _ in model.backbone.named_modules()]

    def matching(patterns: list[str]) -> list[str]:
        assert all(any(re.fullmatch(pattern, key) for key in names) for pattern in patterns)
        return [key for key in names if any(re.fullmatch(pattern, key) for pattern in patterns)]

    groups = {group: matching(patterns) for group, patterns in node.targets.groups.items()}
    assert {group: len(found) for group, found in groups.items()} == GROUPS[name]
    layers = [key for found in groups.values() for key in found]
    assert all(isinstance(model.backbone.get_submodule(key), nn.Linear | nn.Conv2d) for key in layers)
    assert set(matching(node.targets.get("feedforward", []))) < set(layers)
    assert len(matching(node.targets.blocks)) == BLOCKS[name]
    assert model.head_name == node.head
    assert model.targets.groups == OmegaConf.to_container(node.targets.groups)


def test_other_targets_in_the_config_are_other_targets_of_the_model() -> None:
    model = build("ast", targets={"groups": {"values": [r"trunk\.layers\.\d+\.attention\.v_proj"]}})
    assert list(model.targets.groups) == ["attention", "mlp", "values"]


def test_a_head_that_is_no_module_is_one_message() -> None:
    with pytest.raises(ConfigError, match=r"model\.head=clasifier: model=ast has no such module.* trunk, classifier"):
        build("ast", head="clasifier")


def test_an_unknown_key_of_the_targets_is_one_message() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.targets of model=ast: .*'feedforwards'.* groups, feedforward, blocks"
    ):
        build("ast", targets={"feedforwards": []})
