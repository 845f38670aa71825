"""The benchmark measures what it says: real runs, the same function on both sides, figures that can be read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sousa_bench.benchmark import method_costs
from sousa_bench.benchmark.__main__ import parser
from sousa_bench.benchmark.arithmetic import Setup, bare
from sousa_bench.benchmark.naive import NaivePipeline, naive
from sousa_bench.benchmark.overhead import CAUSES, profiled_run
from sousa_bench.benchmark.parts import measure
from sousa_bench.benchmark.precision import Epoch
from sousa_bench.benchmark.whole_sweep import spread
from sousa_bench.config.composing import composed
from sousa_bench.errors import ConfigError
from sousa_bench.training.classifier import Classifier

FEW = [
    "data.synthetic.clips=40",
    "data.synthetic.split_players=[20,10,20]",
    "trainer.batch_size=4",
    "trainer.progress=false",
    "trainer.max_epochs=2",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUSA_BENCH_CACHE", str(folder))
        yield folder


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sousa_bench.benchmark", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    words = ["--models", "efficientat", "--repeats", "1", "--epochs", "2"]
    words += ["--methods", "lora", "--parts", "overhead", "precision", "cache", "inference", "methods"]
    done = command(tmp_path, *FEW[:4], *words)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "benchmark.json").read_text())
    [overhead], [precision], [cache], [inference] = (
        figures[part] for part in ("overhead", "precision", "cache", "inference")
    )
    assert overhead["run_seconds"] > 0
    assert overhead["share"] == pytest.approx(overhead["run_seconds"] / overhead["compute_seconds"] - 1)
    assert set(overhead["causes"]) == {"inputs", "metrics", "checkpoint", "log", "record", "other"}
    assert all(seconds > 0 for cause, seconds in overhead["causes"].items() if cause != "other")
    assert precision["ratio"] == pytest.approx(precision["float32_seconds"] / precision["bfloat16_seconds"])
    assert precision["operations"] / precision["float32_seconds"] / precision["float32_peak"] == pytest.approx(
        precision["float32_utilisation"]
    )
    assert f"{precision['bfloat16_seconds']:.2f} in bfloat16" in done.stdout
    assert cache["clips"] == 40
    assert inference["clips_per_second"] > 0
    assert f"{inference['latency_ms']:.1f} ms" in done.stdout
    assert figures["machine"]["cores"] >= 1
    assert [row["method"] for row in figures["methods"]] == ["head", "full", "lora"]
    assert f"{figures['methods'][2]['of_full']:.2f} times full's" in done.stdout


def test_a_mistake_is_one_message(tmp_path: Path) -> None:
    done = command(tmp_path, "--parts", "inference", "--models", "ast", "data=nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr
    done = command(tmp_path, "--parts", "methods", "--methods", "lora", "data=synthetic")
    assert "data=synthetic is no name of a method; overrides stand before --methods" in done.stderr


@pytest.mark.slow
def test_what_there_is_to_measure_is_known_beforehand() -> None:
    found, [reason] = method_costs.fitting(["model=efficientat", "augmentation=off"], ["lora", "bottleneck"])
    assert (found, "peft=bottleneck doesn't fit model=efficientat" in reason) == (["head", "full", "lora"], True)
    found, unfit = method_costs.fitting(["model=ast"])
    assert (found[:2], {"knn", "probe"} & {*found}, unfit, len(found) > 20) == (["head", "full"], set(), [], True)
    for words, methods, says in (
        ([], ["lora", "knn"], "--methods knn: it takes no steps"),
        ([], ["lora", "nonsense"], "nonsense"),
        (["augmentation=on"], [], "augmentation=on: the part methods measures with augmentation=off"),
    ):
        with pytest.raises(ConfigError, match=says):
            method_costs.fitting(["model=ast", *words], methods)
    with pytest.raises(ConfigError, match="the part methods alone reads it"):
        measure(parser().parse_args(["--parts", "cache", "--methods", "lora"]))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ast", "htsat", "beats", "efficientat"])
def test_the_naive_side_computes_the_same_function(model: str) -> None:
    setup = Setup.of(composed([f"model={model}", "augmentation=off", *FEW]))
    assert NaivePipeline(setup).logits_difference() < 1e-4


@pytest.mark.slow
def test_the_naive_side_trains_on_every_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup.of(composed(["model=efficientat", "augmentation=off", *FEW]))
    pipeline = NaivePipeline(setup)
    read: list[object] = []
    original = NaivePipeline.features
    monkeypatch.setattr(NaivePipeline, "features", lambda self, path: (read.append(path), original(self, path))[1])
    pipeline.train_epoch(0)
    assert len(read) == len(set(map(str, read))) == sum(len(pipeline.files[split]) for split in ("train", "val"))
    assert setup.module.steps_done == len(setup.batches(0))
    for split, clips in setup.datamodule.clips.items():
        assert [Path(file).stem for file in pipeline.files[split]] == [Path(n).stem for n in clips.table["sample_id"]]


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["on", "off"])
def test_the_arithmetic_is_that_of_the_run(augmentation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many optimizer steps as the run, over as many epochs, with the same function."""
    steps: list[int] = []
    update = Classifier.update
    monkeypatch.setattr(Classifier, "update", lambda self, *parts: (steps.append(parts[-1]), update(self, *parts))[1])
    words = ["model=efficientat", f"augmentation={augmentation}", "logger=none", *FEW]
    profiler = profiled_run(composed(words))
    of_the_run = steps.copy()
    steps.clear()
    assert len(profiler.epochs) == 2
    assert all(0 < seconds < sum(profiler.epochs) for cause in CAUSES for seconds in profiler.causes[cause])
    assert len(bare(words)["epochs"]) == 2
    assert steps == of_the_run


def test_the_operations_are_those_of_forward_and_backward_passes() -> None:
    epoch = Epoch(["model=ast", "peft=full", "augmentation=off", *FEW], "32-true")
    setup, module = epoch.setup, epoch.setup.module
    forward = {}
    for split in ("train", "val"):
        every = module.inputs.plain(split, np.arange(len(module.clips[split])))
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            setup.evaluate([every])
        forward[split] = counter.get_total_flops()
    backward = epoch.operations() - sum(forward.values())
    assert 1.9 < backward / forward["train"] < 2.05  # of weights and of inputs, but for the first layer's inputs
    assert setup.module.micro_batch_size == 4


def test_the_naive_runs_are_spread_over_the_sweep() -> None:
    assert spread(24, 4) == [0, 7, 12, 19]
    for count in range(1, 25):
        for chosen in range(1, count + 1):
            assert len({*spread(count, chosen)} & {*range(count)}) == chosen


def test_memory_of_a_step_is_counted_to_the_byte() -> None:
    layer = torch.nn.Linear(100, 50)
    setup, x = SimpleNamespace(device=torch.device("cpu"), module=SimpleNamespace(model=layer)), torch.ones(8, 100)

    def step() -> None:
        layer(x).exp().sum().backward()
        layer.zero_grad(set_to_none=True)

    kept = method_costs._kept_for_backward(setup, step)
    assert kept == x.nbytes + 8 * 50 * 4  # the layer's input, and what exp put out
    gradients, map_of_output = layer.weight.nbytes + layer.bias.nbytes, 8 * 50 * 4
    beside = method_costs._peak(setup, step, 1_000) - 1_000 - gradients
    assert map_of_output <= beside <= 3 * map_of_output  # its gradient, and what isn't free yet


@pytest.mark.slow
def test_what_a_method_costs_is_held_against_head_and_full() -> None:
    words = ["model=ast", *FEW]
    rows = method_costs.method_costs(words, repeats=1, methods=["head", "full", "bottleneck"])["methods"]
    head, full, bottleneck = rows
    assert [row["method"] for row in rows] == ["head", "full", "bottleneck"]
    assert full["of_head"] < 20  # the head's step takes the whole forward pass: nothing is remembered
    assert bottleneck["of_head"] == pytest.approx(bottleneck["step_seconds"] / head["step_seconds"])
    assert [row["merges"] for row in (head, full, bottleneck)] == [True, True, False]
    assert head["trainable"] < bottleneck["trainable"] < full["trainable"]
    assert head["activation_bytes"] < bottleneck["activation_bytes"] / 100
    assert bottleneck["activation_bytes"] < full["activation_bytes"]
    assert full["peak_bytes"] >= 3 * 4 * full["trainable"] + full["activation_bytes"] / 2  # weights and moments
    assert head["peak_bytes"] < bottleneck["peak_bytes"] < full["peak_bytes"]
    assert all(row["latency_ms"] > 0 for row in (head, full, bottleneck))


def test_both_sides_train_on_the_same_clips() -> None:
    with pytest.raises(ConfigError, match="augmentation=off"):
        naive(["augmentation=on", *FEW], repeats=1)
