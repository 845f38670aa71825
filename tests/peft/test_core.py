"""Injection, training and reload of the core methods on the two stand-ins."""

from __future__ import annotations

import pytest
import torch
from helpers import BATCH, choice, fit, standin_node
from omegaconf import OmegaConf
from standins import build

from sousa_bench.config.composing import composed
from sousa_bench.errors import WeightsError
from sousa_bench.models.family import rebuild
from sousa_bench.peft import inject, load_run_model
from sousa_bench.task import Task

CORE = ("lora", "adalora", "ia3", "full", "head", "bitfit")


@pytest.mark.parametrize("model_name", ["transformer", "cnn"])
@pytest.mark.parametrize("method", CORE)
def test_trains_saves_and_reloads(model_name, method, tmp_path):
    model = build(model_name, 10)
    injection = inject(model, choice(method), 40)
    losses = fit(injection, steps=40)
    assert losses[-1] < 0.97 * losses[0]
    injection.save(tmp_path / "adapter", {"model": standin_node(model_name)}, Task(tuple(map(str, range(10)))))
    reloaded = load_run_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(model.eval()(BATCH), reloaded(BATCH))


@pytest.mark.parametrize(
    "name", ["ast", "beats", "ced", "dasheng", "eat", "efficientat", "htsat", "openbeats", "passt"]
)
def test_what_trained_whole_needs_no_file_of_weights(name, tmp_path):
    """The published file is gone: what all of it became is asked for no more, and a part of it is."""
    node = OmegaConf.to_container(composed([f"model={name}", "weights=random"]).model, resolve=True)
    model = rebuild(node, 10, tmp_path, own_models=True, with_weights=True)
    gone = {**node, "weights": "official", "checkpoint": str(tmp_path / "gone.pt"), "variant": None}
    for method in ("full", "head"):
        injection = inject(model, choice(method), 1)
        if method == "full":
            for tensor in injection.changing().values():
                if tensor.is_floating_point():
                    tensor.data.uniform_(0.5, 1.5)  # a variance is above 0
        injection.save(tmp_path / method / "adapter", {"model": gone}, Task(tuple(map(str, range(10)))))
    reloaded = load_run_model(tmp_path / "full")
    assert (reloaded.variant, reloaded.training) == ("tiny", False)
    own = model.backbone.state_dict()
    assert reloaded.backbone.state_dict().keys() == own.keys()
    for key, tensor in reloaded.backbone.state_dict().items():
        assert torch.equal(tensor, own[key]), key
    with pytest.raises(WeightsError, match=r"gone\.pt"):
        load_run_model(tmp_path / "head")
