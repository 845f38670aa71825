"""Starting from an earlier run's weights: they are there at the first step, they must fit, and they count."""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from sousa_bench.config import init_from
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.instantiate import build
from sousa_bench.data.rudiments import RUDIMENTS, TASK
from sousa_bench.errors import ConfigError, PeftError, UserError
from sousa_bench.peft import inject
from sousa_bench.peft.adapter import warm_start
from sousa_bench.task import Task
from sousa_bench.training.run import run
from tests.machine import patience

# Nothing moves: what a run ends with is what it began with.
STILL = ("trainer.learning_rate=1e-12", "trainer.head_learning_rate=1e-12")

Config = Callable[..., DictConfig]


def trained(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    return run(cfg, folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_warm_run_begins_where_the_earlier_one_ended(config: Config, tmp_path: Path, method: str) -> None:
    # Statistics of BatchNorm that train would move whatever the learning rate.
    words = ("model=efficientat", f"peft={method}", "peft.batch_norm=frozen", "augmentation=off")
    first = trained(config(*words, "trainer.max_epochs=1"), tmp_path / "first")
    second = trained(
        config(*words, f"init_from={tmp_path / 'first'}", *STILL, "trainer.max_epochs=1"), tmp_path / "second"
    )
    for key in ("val_acc", "val_loss", "test_acc"):
        assert second["metrics"][key] == pytest.approx(first["metrics"][key], abs=1e-5)
    cold = trained(config(*words, *STILL, "trainer.max_epochs=1"), tmp_path / "cold")
    assert cold["metrics"]["val_loss"] != pytest.approx(first["metrics"]["val_loss"], abs=1e-3)


@pytest.fixture
def saved(config: Config, tmp_path: Path) -> Path:
    """A checkpoint of AST + LoRA whose weights are told apart from fresh ones."""
    return save(config("model=ast", "peft=lora"), tmp_path / "run" / "adapter")


def save(cfg: DictConfig, folder: Path) -> Path:
    injection = fresh(cfg)
    with torch.no_grad():
        for tensor in injection.changing().values():
            tensor.add_(step(tensor))
    return injection.save(folder, cfg, TASK).parent


def step(tensor: torch.Tensor) -> float:
    return 0.5 if tensor.is_floating_point() else 3


def fresh(cfg: DictConfig) -> Any:
    torch.manual_seed(0)
    return inject(build(cfg.model, num_classes=len(RUDIMENTS)), cfg.peft, 10)


@pytest.mark.parametrize(
    ("model", "method"),
    [("efficientat", "dora"), ("efficientat", "full"), ("ast", "vera")],
)
def test_every_trained_tensor_is_taken_over(config: Config, tmp_path: Path, model: str, method: str) -> None:
    cfg = config(f"model={model}", f"peft={method}")
    folder = save(cfg, tmp_path / "run" / "adapter")
    injection = fresh(cfg)
    before = {name: tensor.clone() for name, tensor in injection.changing().items()}
    warm_start(injection, folder, TASK)
    for name, tensor in injection.changing().items():
        torch.testing.assert_close(tensor, before[name] + step(tensor))


def test_weights_of_another_shape_are_refused(config: Config, saved: Path) -> None:
    with pytest.raises(PeftError, match="has another shape"):
        warm_start(fresh(config("model=ast", "peft=lora", "peft.r=4")), saved, TASK)
    with pytest.raises(PeftError, match="was trained on random weights"):
        warm_start(fresh(config("model=ast", "peft=lora", "seed=1")), saved, TASK)
    other = Task(tuple(reversed(RUDIMENTS)))
    with pytest.raises(PeftError, match="other classes, or the same in another order"):
        warm_start(fresh(config("model=ast", "peft=lora")), saved, other)


def test_a_run_at_a_budget_goes_on_at_the_same(config: Config, saved: Path, tmp_path: Path) -> None:
    words = ("model=ast", "peft=lora")
    at_budget = save(config(*words, "peft.budget=5%"), tmp_path / "budget" / "adapter")
    init_from.check(config(*words, "peft.budget=5%", f"init_from={at_budget}"))
    warm_start(fresh(config(*words, "peft.budget=5%")), at_budget, TASK)
    init_from.check(config(*words, "peft.r=4", "peft.lora_alpha=8", f"init_from={at_budget}"))
    with pytest.raises(ConfigError, match=r"with peft\.lora_alpha=2 times peft\.r, this run has 4 times"):
        init_from.check(config(*words, "peft.budget=5%", "peft.lora_alpha=32", f"init_from={at_budget}"))
    for other, folder in (("6%", at_budget), ("5%", saved)):
        with pytest.raises(ConfigError, match=r"with peft\.\w+=\S+, this run has"):
            init_from.check(config(*words, f"peft.budget={other}", f"init_from={folder}"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("peft.r=4",), "peft.r=8, this run has 4"),
        (("peft=ia3",), "this run has"),
        (("model=htsat",), "model."),
        (("seed=1",), "give seed=42"),
        (("weights=official",), "weights=random, this run has weights=official"),
        (("peft=adalora",), "AdaLoRA can't go on"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_sweep(
    config: Config, saved: Path, words: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        init_from.check(config("model=ast", "peft=lora", f"init_from={saved}", *words))


LENGTH = 100 * 2**20
NEGATIVE = b'{"a":{"dtype":"F32","shape":[-1,2],"data_offsets":[0,8]}}'
FOREIGN: list[tuple[str, bytes | None, str]] = [
    ("sousa.json", b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
    (
        "sousa.json",
        b'{"model": {}, "peft": {}, "weights": {}, "x": "' + b"x" * 70 * 2**20 + b'"}',
        "larger than 64 MiB",
    ),
    ("sousa.json", b'{"model": {"a": "' + b"x" * 50 * 2**20 + b'"}, "peft": {}, "weights": {}}', "trained with model."),
    ("sousa.json", b'{"model": {"_target_": "os.system"}, "peft": {}, "weights": {}}', "_target_=os.system, this run"),
    ("sousa.json", b'{"model": 1e400, "peft": {}, "weights": {}}', "model can't be"),
    ("sousa.json", None, "no trained weights here"),
    ("adapter_model.safetensors", struct.pack("<Q", LENGTH) + b"{" + b" " * (LENGTH - 1), "header too large"),
    ("adapter_model.safetensors", struct.pack("<Q", len(NEGATIVE)) + NEGATIVE + bytes(8), "-1"),
    ("adapter_model.safetensors", None, "no regular file"),
]


@pytest.mark.slow
def test_what_others_made_is_one_message(config: Config, saved: Path, tmp_path: Path) -> None:
    """A description or weights to begin with; None is a pipe in their place."""
    injection, words = fresh(config("model=ast", "peft=lora")), ("model=ast", "peft=lora")
    for number, (name, content, said) in enumerate(FOREIGN):
        folder = shutil.copytree(saved / "adapter", tmp_path / str(number))
        (folder / name).unlink()
        os.mkfifo(folder / name) if content is None else (folder / name).write_bytes(content)
        started = time.monotonic()
        message = ""
        try:
            init_from.check(config(*words, f"init_from={folder}"))
            warm_start(injection, folder, TASK)
        except UserError as error:
            message = str(error)
        assert said in message[:5000], (name, number, message[:5000])
        assert len(message) < 5000, (name, number)
        assert time.monotonic() - started < patience(10)


def test_what_fits_or_is_not_asked_for_passes(config: Config, saved: Path) -> None:
    init_from.check(config("model=ast", "peft=lora"))
    words = ("peft.learning_rate=1e-4", "peft.lora_dropout=0.1", "augmentation=off", "trainer.max_epochs=9")
    init_from.check(config("model=ast", "peft=lora", f"init_from={saved}", *words))
    with pytest.raises(ConfigError, match="no trained weights here"):
        init_from.check(config("init_from=nowhere"))


def test_the_weights_count_by_content(config: Config, saved: Path, tmp_path: Path) -> None:
    def digest(*words: str) -> str:
        return fingerprint(config("model=ast", "peft=lora", *words))

    copied = shutil.copytree(saved, tmp_path / "copy")
    warm = digest(f"init_from={saved}")
    assert warm != digest()
    assert warm == digest(f"init_from={copied}") == digest(f"init_from={copied / 'adapter'}")
    assert digest() == digest("init_from=null", "lineage.command=x")
    file = copied / "adapter" / "adapter_model.safetensors"
    state = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    assert digest(f"init_from={copied}") != warm
