"""The weights that the package ships: what their cards say, small, and what a run starts from by default."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors import safe_open
from safetensors.torch import load_file

from sousa_bench.config import conf_folder
from sousa_bench.data.rudiments import TASK
from sousa_bench.models.weight_files import embedded_folder
from sousa_bench.system.files import sha256
from sousa_bench.training.recipe import build_model
from tests.pretrain.test_pretrain import call, results
from tests.trained import ROOT, trained

COMPARED = ("ast", "beats", "efficientat", "htsat")
MODELS = tuple(sorted((*COMPARED, "ced", "dasheng", "eat", "openbeats", "passt")))


def shipped(name: str) -> Path:
    return embedded_folder() / f"{name}.safetensors"


def test_they_take_nine_megabytes() -> None:
    assert sorted(path.name for path in embedded_folder().iterdir() if path.suffix != ".md") == [
        f"{name}.safetensors" for name in MODELS
    ]
    assert sum(path.stat().st_size for path in embedded_folder().iterdir()) <= 9_000_000


@pytest.mark.parametrize("name", MODELS)
def test_the_card_is_that_of_the_file(name: str) -> None:
    card = shipped(name).with_suffix(".md").read_text(encoding="utf-8")
    with safe_open(shipped(name), framework="pt") as opened:
        facts = json.loads(opened.metadata()["sousa_bench"])
    assert (facts["model"], facts["variant"], facts["license"]) == (name, "tiny", "MIT")
    assert sha256(shipped(name)) in card
    assert f"```bash\n{facts['command']}\n```" in card
    assert facts["command"].startswith("python -m sousa_bench.pretrain ")
    [models] = re.findall(r" model=(\S+)", facts["command"])
    assert name in models.split(",")
    version = 6 if name in COMPARED else 2
    assert re.search(rf"source domain, seed 0, generator version {version}: [\d,]+ clips of [\d,]+ players", card)
    found = re.search(r"([\d.]+) on 480 test clips of (players that this stage didn't train on|other players)", card)
    assert found
    assert float(found[1]) > 0.1  # four times chance
    assert {tensor.dtype for tensor in load_file(shipped(name)).values()} <= {torch.float16, torch.int64}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_run_starts_from_all_that_they_hold(name: str, config) -> None:
    """The four of the comparison hold the head that learnt the rudiments; where there is none, the seed draws it."""

    def state(seed: int, *words: str) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
        model = build_model(config(f"model={name}", "weights=embedded", f"seed={seed}", *words), TASK)
        return model.fresh, model.backbone.state_dict()

    packed = load_file(shipped(name))
    [place], drawn = state(1, "trainer.new_head=true")
    head = {key for key in drawn if key.startswith(f"{place}.")}
    assert len(head) == 2
    assert drawn.keys() == packed.keys() | head
    fresh, one = state(1)
    assert (fresh, head <= packed.keys()) == (((), True) if name in COMPARED else ((place,), False))
    other = state(2, "trainer.new_head=true")[1]
    for key in one:
        assert torch.isfinite(one[key]).all()
        if key in packed:
            assert torch.equal(one[key], packed[key].to(one[key]))
        if key in head:
            assert drawn[key].abs().max() == 0 or not torch.equal(drawn[key], other[key])
            assert not torch.equal(drawn[key], one[key]) or name not in COMPARED
        else:
            assert torch.equal(one[key], drawn[key])


@pytest.mark.parametrize("words", [[], ["data=tiny"]])
def test_they_are_the_default_on_whatever_data(words: list[str]) -> None:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose("config", overrides=words)
    assert cfg.weights == cfg.model.weights == "embedded"


def compared(*words: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "benchmarks" / "embedded_random.py"
    return subprocess.run(
        [sys.executable, script, *words], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_they_are_worth_their_bytes(tmp_path: Path) -> None:
    """What docs/embedded.md reports of the comparison's four, after one epoch: other weights, the default data."""
    words = ["augmentation=off", "weights=embedded,random", "trainer.max_epochs=1", "logger=none", "sweep=both"]
    said = call(tmp_path, "train", "-m", f"model={','.join(COMPARED)}", *words)
    assert "weights=embedded are small networks" in said
    accuracy = {
        (result["config"]["model"], result["weights"]["kind"]): result["metrics"]["test_acc"]
        for result in results(tmp_path / "multirun" / "both")
    }
    table = compared(str(tmp_path / "multirun" / "both")).stdout
    for model in COMPARED:
        embedded, random = (accuracy[model, kind] for kind in ("embedded", "random"))
        assert embedded - random >= 0.15
        assert embedded < 1
        row = re.search(rf"^{model} +1 +([\d.]+) +([\d.]+)  ([+-][\d.]+) \(", table, re.M)
        assert row
        assert [float(number) for number in row.groups()] == pytest.approx(
            [embedded, random, embedded - random], abs=6e-4
        )


@pytest.mark.slow
def test_nothing_to_compare_is_one_line(tmp_path: Path) -> None:
    alone = trained()
    for place, says in ((tmp_path / "none", "there is no such folder"), (alone.folder, "sweep over weights=")):
        done = compared(str(place))
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {place}: ")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
