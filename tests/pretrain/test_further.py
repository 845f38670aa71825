"""From a published checkpoint: pretraining goes on from it, what it packs says so, and runs start from that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sousa_bench.config.composing import composed
from sousa_bench.config.file_variant import followed
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import check_values
from sousa_bench.data.rudiments import TASK
from sousa_bench.errors import ConfigError, WeightsError
from sousa_bench.peft import load_run_model, precheck
from sousa_bench.pretrain.packing import halves, header, pack
from sousa_bench.results.finished import FinishedRun, finished_run
from sousa_bench.system.files import sha256
from sousa_bench.training.recipe import build_model
from sousa_bench.training.run import run
from tests.pretrain.test_pretrain import FEW, call
from tests.trained import ROOT

Compose = Callable[..., DictConfig]
PUBLISHED = {"origin": "mn.pt", "sha256": "ab" * 32, "license": "MIT", "pretraining": "AudioSet labels"}
ALL = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml") if path.stem != "cnn")


def facts(file: Path) -> dict:
    with safe_open(file, framework="pt") as opened:
        return json.loads(opened.metadata()["sousa_bench"])


@pytest.fixture(scope="module")
def drums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of the width mn01 and, in ``drums``, what pretraining made of it."""
    home = tmp_path_factory.mktemp("further")
    made = build(composed(["model=efficientat", "weights=random", "model.variant=mn01"]).model, num_classes=527)
    save_file({key: value.contiguous() for key, value in made.backbone.state_dict().items()}, home / "mn01.safetensors")
    words = ["model=efficientat", "weights=official", f"model.checkpoint={home}/mn01.safetensors", *FEW]
    call(home, "pretrain", "--output", "drums", *words)
    return home


@pytest.mark.slow
def test_what_is_packed_says_what_it_began_at(drums: Path) -> None:
    file, published = drums / "drums" / "efficientat.safetensors", drums / "mn01.safetensors"
    found = facts(file)
    assert found["variant"] == "mn01"
    assert found["published"] == {
        "origin": "mn01.safetensors",
        "sha256": sha256(published),
        "license": None,
        "pretraining": "AudioSet labels",
    }
    assert "license" not in found  # nobody knows that of the file
    assert found["command"].startswith("python -m sousa_bench.pretrain model=efficientat weights=official data.")
    assert found["command"].endswith(" model.checkpoint=mn01.safetensors")
    packed, began = load_file(file), load_file(published)
    assert began.keys() == packed.keys()
    assert [key for key in packed if packed[key].shape != began[key].shape] == [
        "classifier.5.bias",
        "classifier.5.weight",
    ]
    weights = [key for key in packed if key.endswith(".weight") and not key.startswith("classifier.5")]
    moved = max(float((packed[key].float() - began[key]).abs().max()) for key in weights)
    assert 1e-4 < moved < 0.2
    card = file.with_suffix(".md").read_text()
    assert card.startswith(
        "# Further weights of efficientat\n\nA published checkpoint, trained further: `weights=further "
    )
    assert f"| began at | the published `mn01.safetensors`, SHA-256 `{sha256(published)}`, licence not known; " in card
    assert f"all weights from those of `mn01.safetensors`, SHA-256 `{sha256(published)}` (seed 42), 2 epochs" in card
    assert "peak learning rate 0.003, of the head's last layer 0.003" in card
    assert "test clips of other players of the same data" in card


@pytest.mark.slow
def test_a_run_starts_from_it(drums: Path, config: Compose, tmp_path: Path) -> None:
    words = ["model=efficientat", "weights=further", f"model.checkpoint={drums / 'drums'}", "augmentation=off"]
    result = run(config(*words, "peft=lora", "trainer.max_epochs=1", "data.max_duration=1"), tmp_path)
    weights, published = result["weights"], sha256(drums / "mn01.safetensors")
    assert (weights["kind"], weights["origin"]) == ("further", "efficientat.safetensors")
    assert weights["pretraining"] == "AudioSet labels, then sousa_bench.pretrain"
    assert weights["published"]["sha256"] == published
    assert weights["note"].startswith(
        f"The published checkpoint mn01.safetensors (SHA-256 {published}, licence not known)"
    )
    assert result["network"]["variant"] == "mn01"
    tuned = load_run_model(tmp_path / "adapter").backbone.state_dict()
    key = "features.2.block.depthwise.0.weight"
    packed = load_file(drums / "drums" / "efficientat.safetensors")[key]
    torch.testing.assert_close(tuned[f"base_model.model.{key}"], packed.float())


@pytest.mark.slow
def test_it_goes_on_once_more(drums: Path, config: Compose, tmp_path: Path) -> None:
    words = ["model=efficientat", "weights=further", f"model.checkpoint={drums / 'drums'}", "trainer.max_epochs=1"]
    cfg = config("experiment=pretraining", *words, *FEW[:3])
    result = run(cfg, tmp_path / "run")
    result |= {"resolved_config": OmegaConf.to_container(cfg, resolve=True), "git_commit": None}
    file = pack(FinishedRun(tmp_path / "run", result), tmp_path / "more", "the second command")
    first = facts(drums / "drums" / "efficientat.safetensors")
    assert facts(file)["published"] == first["published"]
    assert facts(file)["before"] == first["command"]
    assert "those before it may have" in file.with_suffix(".md").read_text()
    again = build_model(config("model=efficientat", "weights=further", f"model.checkpoint={file}"), TASK)
    assert (again.variant, again.weights.sha256) == ("mn01", sha256(file))


@pytest.mark.slow
def test_the_licence_is_that_of_a_file_whose_hash_is_known(drums: Path, config: Compose, tmp_path: Path) -> None:
    digest = sha256(drums / "mn01.safetensors")
    words = ["model=efficientat", "weights=official", f"model.checkpoint={drums / 'mn01.safetensors'}"]
    address = f"model.variants.mn01.checkpoint='https://example.invalid/mn01.pt#sha256={digest}'"
    assert build_model(config(*words, address), TASK).weights.license == "MIT"
    assert build_model(config(*words), TASK).weights.license is None
    done = finished_run(next((drums / "outputs").glob("efficientat_full_*")))
    done.result["weights"] |= {"license": "BSD-3-Clause"}
    assert facts(pack(done, tmp_path, ""))["license"] == "BSD-3-Clause"


def refused(config: DictConfig) -> str | None:
    """What is said before anything starts."""
    try:
        check_values(config)
    except ConfigError as error:
        return str(error)
    return precheck(config.model, config.peft)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_any_model_starts_from_what_began_at_a_published_one(name: str, config: Compose, tmp_path: Path) -> None:
    node = composed([f"model={name}", "weights=random"]).model
    shape = OmegaConf.to_container(node.variants.tiny, resolve=True)
    own = f"+model.variants.small={json.dumps(shape)}".replace('"', "")
    source = build_model(config(f"model={name}", own, "model.variant=small", "seed=5"), TASK)
    file = tmp_path / f"{name}.safetensors"
    said = {"model": name, "variant": "small", "license": "MIT", "published": PUBLISHED, "task": TASK.as_dict()}
    save_file(halves(source), file, metadata=header(said))
    cfg = config(f"model={name}", own, "weights=further", f"model.checkpoint={tmp_path}", "peft=head")
    assert refused(cfg) is None
    assert followed(OmegaConf.to_container(cfg.model, resolve=True)) == "small"
    made = build_model(cfg, TASK)
    assert (made.variant, made.weights.kind, made.weights.license) == ("small", "further", "MIT")
    for key, value in load_file(file).items():
        assert torch.equal(made.backbone.state_dict()[key], value.to(made.backbone.state_dict()[key]))


@pytest.mark.slow
def test_another_start_is_refused_before_anything_starts(drums: Path, config: Compose, tmp_path: Path) -> None:
    there = f"model.checkpoint={drums / 'drums'}"

    def said(*words: str) -> str | None:
        return refused(config("model=efficientat", *words))

    assert said("weights=further", there) is None
    assert said("weights=further", there, "model.variant=mn01") is None
    for words, says in {
        ("weights=further",): "weights=further: give model.checkpoint=FOLDER",
        (
            "weights=embedded",
            there,
        ): "began at a published checkpoint: give weights=further in place of weights=embedded",
        ("weights=further", there, "model.variant=mn04"): "efficientat's variant mn01: leave model.variant=mn04 out",
        ("weights=further", f"model.checkpoint={tmp_path}"): "With weights=further it is what",
        (
            "weights=further",
            f"model.checkpoint={ROOT}/sousa_bench/models/embedded",
        ): "give weights=embedded in place of",
        (
            "model=ced",
            "weights=further",
            f"{there}/efficientat.safetensors",
        ): "holds weights of efficientat, not of ced",
        ("model=cnn", "weights=further", there.replace("drums", ".")): "there is no file",
    }.items():
        assert says in str(said(*words)), words
    for place in (drums / "drums", drums / "drums" / "efficientat.safetensors"):
        reason = str(said("weights=official", f"model.checkpoint={place}"))
        assert "began at a published checkpoint: give weights=further in place of weights=official" in reason
    shipped = f"model.checkpoint={ROOT}/sousa_bench/models/embedded/efficientat.safetensors"
    assert "give weights=embedded in place of weights=official" in str(said("weights=official", shipped))
    torch.save({"x": torch.zeros(1)}, tmp_path / "published.pt")
    for kind in ("embedded", "further"):
        reason = str(said(f"weights={kind}", f"model.checkpoint={tmp_path / 'published.pt'}"))
        assert f"no file of sousa_bench.pretrain, which weights={kind} reads; give weights=official" in reason
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(drums / "drums" / "efficientat.safetensors", mixed)
    torch.save({"x": torch.zeros(1)}, mixed / "pytorch_model.bin")  # which is what official weights read there
    assert said("weights=official", f"model.checkpoint={mixed}") is None
    own = config("model=efficientat", "weights=embedded", f"model.checkpoint={tmp_path / 'published.pt'}")
    own.model["_target_"] = "mine.build"
    assert refused(own) is None  # of a model of the user's own nobody knows what it reads
    odd = {"model": "efficientat", "variant": "mn03", "published": PUBLISHED}
    save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata=header(odd))
    there_too = f"model.checkpoint={tmp_path / 'odd.safetensors'}"
    assert "variant mn03, and there are official, tiny, mn01" in str(said("weights=further", there_too))
    save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata=header({**odd, "published": {}}))
    with pytest.raises(WeightsError, match="published has not origin, sha256, license, pretraining"):
        build_model(config("model=efficientat", "weights=further", there_too), TASK)
    with pytest.raises(WeightsError, match="give weights=further in place of weights=embedded"):
        build_model(config("model=efficientat", "weights=embedded", there), TASK)


@pytest.mark.slow
def test_its_runs_are_known_by_the_files_content(drums: Path, config: Compose, tmp_path: Path) -> None:
    def digest(*words: str) -> str:
        return fingerprint(config("model=efficientat", *words))

    own = drums / "drums" / "efficientat.safetensors"
    (tmp_path / "other.safetensors").write_bytes(own.read_bytes())
    first = digest("weights=further", f"model.checkpoint={own}")
    assert first == digest("weights=further", f"model.checkpoint={tmp_path / 'other.safetensors'}")
    assert first == digest("weights=further", f"model.checkpoint={own.parent}", "model.variant=mn01")
    save_file({**load_file(own), "classifier.2.bias": torch.zeros(128)}, tmp_path / "other.safetensors")
    assert first != digest("weights=further", f"model.checkpoint={tmp_path / 'other.safetensors'}")


@pytest.mark.slow
def test_the_command_refuses_to_lose_what_it_goes_on_from(drums: Path) -> None:
    for words, says in (
        (["--output", "drums", "weights=further", "model.checkpoint=drums"], "holds the weights that the run goes on"),
        (["model=efficientat", "weights=further"], "weights=further: give model.checkpoint=FOLDER"),
        (
            ["model=efficientat", "weights=official", "model.variant=mn01,mn02"],
            "model.variant=mn01,mn02: one value only",
        ),
        (["model=ast,cnn"], "model=cnn: what pretraining makes of it could not be started from"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "sousa_bench.pretrain", "-m", *words],
            cwd=drums, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2
        assert says in done.stderr
