"""Injection, training and reload of the core methods on the two stand-ins."""

from __future__ import annotations

import pytest
import torch
from helpers import BATCH, choice, fit, standin_node
from standins import build

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
