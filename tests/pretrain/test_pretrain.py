"""Pretraining: the command trains and packs, what it packs is what a run starts from, and nothing else passes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sousa_bench.config.composing import composed
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.instantiate import build
from sousa_bench.data.rudiments import TASK
from sousa_bench.data.synthetic import VERSIONS
from sousa_bench.errors import ConfigError, PeftError, UserError, WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.peft import inject, load_run_model, precheck
from sousa_bench.pretrain.__main__ import check
from sousa_bench.pretrain.packing import halves, header, one_per_model, pack
from sousa_bench.results.finished import FinishedRun, finished_run
from sousa_bench.system.files import sha256
from sousa_bench.task import Task
from sousa_bench.training.recipe import build_model
from sousa_bench.training.run import run
from tests.data.folder_with_faults import write_class_folders
from tests.trained import ROOT

FEW = [
    "data.synthetic.clips=40",
    "data.synthetic.split_players=[20,10,10]",
    "data.max_duration=1",
    "trainer.batch_size=10",
    "trainer.progress=false",
    "logger=none",
    "n_jobs=1",
]


def call(home: Path, module: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"sousa_bench.{module}", *words],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOUSA_BENCH_CACHE": str(home / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def results(place: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(place.rglob("result.json"))]


def test_they_say_what_they_are(config, tmp_path: Path) -> None:
    packed = halves(build_model(config("model=ast"), TASK))
    save_file(packed, tmp_path / "ast.safetensors", metadata=header({"model": "ast"}))
    words = ("model=ast", "weights=embedded", f"model.checkpoint={tmp_path}")
    note = build_model(config(*words), TASK).weights.as_dict()["note"]
    assert note.startswith("weights=embedded are small networks")
    assert "weights=official" in note
    assert "note" not in build_model(config("model=ast"), TASK).weights.as_dict()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str], str]:
    """Two models pretrained by the command for two epochs: the folder, the command's words, what it said."""
    home = tmp_path_factory.mktemp("pretrained")
    words = ["--output", "mine", "-m", "model=efficientat,ast", "trainer.max_epochs=2", "sweep=source", *FEW]
    return home, words, call(home, "pretrain", *words)


@pytest.mark.slow
def test_the_command_packs_what_it_trained(pretrained: tuple[Path, Sequence[str], str]) -> None:
    home, _, said = pretrained
    for name in ("ast", "efficientat"):
        file = home / "mine" / f"{name}.safetensors"
        assert f"Packed: mine/{name}.safetensors" in said
        [folder] = (home / "multirun" / "source").glob(f"{name}_full_aug_pretraining_*")
        own = load_run_model(folder / "adapter")
        packed = load_file(file)
        state = own.backbone.state_dict()
        assert packed.keys() == state.keys()
        for key, tensor in packed.items():
            assert tensor.dtype == (torch.float16 if state[key].is_floating_point() else torch.int64)
            torch.testing.assert_close(tensor.to(state[key]), state[key], rtol=1e-3, atol=1e-6)
        with safe_open(file, framework="pt") as opened:
            facts = json.loads(opened.metadata()["sousa_bench"])
        assert (facts["model"], facts["variant"], facts["license"]) == (name, "tiny", "MIT")
        assert Task.from_dict(facts["task"], file) == TASK
        card = (home / "mine" / f"{name}.md").read_text()
        assert f"source domain, seed 0, generator version {VERSIONS['source']}: 20 clips of 20 players" in card
        assert "peak learning rate 0.001, of the head's last layer 0.001" in card
        assert "2 epochs of batches of 10: 4 steps, 40 clips" in card
        assert "python -m sousa_bench.pretrain -m model=efficientat,ast trainer.max_epochs=2 data." in card
        assert "| augmentation | gain, noise, time stretch, 2 frequency and 0 time masks |" in card
        assert "sweep=" not in card
        assert "mine" not in card


@pytest.mark.slow
def test_the_head_is_kept_for_the_classes_that_it_was_trained_for(
    config, pretrained: tuple[Path, Sequence[str], str], tmp_path: Path
) -> None:
    file = pretrained[0] / "mine" / "ast.safetensors"
    start = ["model=ast", "weights=embedded", f"model.checkpoint={file}"]
    cfg = config(*start)
    packed, head = load_file(file), "classifier.dense.weight"
    tasks = (TASK, Task(TASK.classes[7:2:-1]), Task((*TASK.classes[1:], "cat")), replace(TASK, several=True))
    kept, some, others, several = (build_model(cfg, task) for task in tasks)
    assert torch.equal(kept.backbone.state_dict()[head], packed[head].float())
    assert torch.equal(some.backbone.state_dict()[head], packed[head].float()[[7, 6, 5, 4, 3]])
    assert kept.weights.as_dict()["own_head"] is some.weights.as_dict()["own_head"] is True
    for made in (others, several):  # a class that it doesn't know, or any number of them in a clip
        assert not torch.equal(made.backbone.state_dict()[head], packed[head].float())
        assert "own_head" not in made.weights.as_dict()
    for words in (["trainer.new_head=true"], ["peft=knn"], ["peft=probe"]):
        assert "own_head" not in build_model(config(*start, *words), TASK).weights.as_dict(), words
    norm = "classifier.layernorm.weight"
    assert torch.equal(others.backbone.state_dict()[norm], kept.backbone.state_dict()[norm])
    result = run(config(*start, "peft=lora", *FEW, "trainer.max_epochs=1"), tmp_path)
    assert result["weights"]["own_head"] is True
    tuned, trained = load_run_model(tmp_path / "adapter"), load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    [key] = [key for key in trained if key.endswith("dense.weight")]
    assert torch.equal(
        tuned.backbone.state_dict()["base_model.model.classifier.modules_to_save.default.dense.weight"], trained[key]
    )
    assert result["peft"]["head_learning_rate"] == result["peft"]["learning_rate"]


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(pretrained: tuple[Path, Sequence[str], str]) -> None:
    home, words, _ = pretrained
    before = (home / "mine" / "ast.safetensors").read_bytes()
    (home / "mine" / "ast.safetensors").unlink()
    shutil.copy(home / "mine" / "efficientat.safetensors", home / "kept.safetensors")
    (home / "mine" / "efficientat.safetensors").write_bytes(b"an older one")
    said = call(home, "pretrain", *words)
    assert said.count("Completed already") == 2
    assert (home / "mine" / "ast.safetensors").read_bytes() == before
    assert "Packed: mine/ast.safetensors\n" in said
    digest = hashlib.sha256(b"an older one").hexdigest()[:12]
    assert f"Packed: mine/efficientat.safetensors, in place of another file (SHA-256 {digest}…)\n" in said
    assert (home / "mine" / "efficientat.safetensors").read_bytes() == (home / "kept.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_starts_from_it(config, pretrained: tuple[Path, Sequence[str], str], tmp_path: Path) -> None:
    mine = pretrained[0] / "mine"
    words = ("model=ast", "peft=lora", "augmentation=off", "weights=embedded", f"model.checkpoint={mine}")
    result = run(config(*words, "trainer.max_epochs=1", "data.max_duration=1"), tmp_path)
    assert result["weights"]["kind"] == "embedded"
    tuned = load_run_model(tmp_path / "adapter", checkpoint=str(mine))
    packed = load_file(mine / "ast.safetensors")
    frozen = tuned.backbone.state_dict()["base_model.model.trunk.embeddings.patch_embeddings.projection.weight"]
    torch.testing.assert_close(frozen, packed["trunk.embeddings.patch_embeddings.projection.weight"].float())


@pytest.mark.slow
def test_it_goes_on_from_weights(pretrained: tuple[Path, Sequence[str], str]) -> None:
    home, _, _ = pretrained
    words = ["model=ast", "weights=embedded", "model.checkpoint=mine", "trainer.max_epochs=1", "seed=3", *FEW]
    call(home, "pretrain", "--output", "further", *words)
    first, further = (home / folder / "ast.safetensors" for folder in ("mine", "further"))
    one, two = load_file(first), load_file(further)
    assert one.keys() == two.keys()
    moved = [float((two[key].float() - one[key].float()).abs().max()) for key in one]
    assert 0 < max(moved) < 0.1
    card = further.with_suffix(".md").read_text()
    assert f"all weights from those of `ast.safetensors`, SHA-256 `{sha256(first)}`, made by `python -m" in card
    with safe_open(first, framework="pt") as old, safe_open(further, framework="pt") as new:
        before, after = (json.loads(opened.metadata()["sousa_bench"]) for opened in (old, new))
    assert after["before"] == before["command"] != after["command"]
    assert " weights=embedded model.checkpoint=mine " in after["command"]
    assert "test clips of players that this stage didn't train on, and those before it may have" in card
    assert after["license"] == "MIT"
    assert "before" not in before
    [result] = [made for made in results(home / "outputs") if made["weights"]["origin"] == "ast.safetensors"]
    assert result["weights"]["own_head"] is True


def test_a_card_speaks_of_the_sounds_that_it_was_trained_on(config, tmp_path: Path) -> None:
    """Class folders without groups, which have neither players nor SOUSA's chance."""
    write_class_folders(tmp_path / "sounds", ("cat", "dog"))
    words = ["experiment=pretraining", "model=ast", "data=folder", f"data.root={tmp_path / 'sounds'}", *FEW[2:-1]]
    cfg = composed([*words, "trainer.max_epochs=1"])
    result = run(cfg, tmp_path / "run") | {
        "resolved_config": OmegaConf.to_container(cfg, resolve=True), "git_commit": None
    }  # fmt: skip
    file = pack(FinishedRun(tmp_path / "run", result), tmp_path / "packed", "the command")
    card = file.with_suffix(".md").read_text()
    assert "with a head for 2 classes |" in card
    assert "| data | data=folder: " in card
    assert "player" not in card
    assert "chance 0.5)" in card
    kept = build_model(config("model=ast", "weights=embedded", f"model.checkpoint={file}"), Task(("cat", "dog")))
    assert kept.weights.own_head


@pytest.mark.slow
def test_a_wholly_trained_model_needs_no_base(pretrained: tuple[Path, Sequence[str], str]) -> None:
    run = finished_run(next((pretrained[0] / "multirun" / "source").glob("efficientat_*")))
    whole = load_run_model(run.adapter, seed=7).backbone.state_dict()  # other random weights to begin with
    for key, tensor in load_run_model(run.adapter).backbone.state_dict().items():
        torch.testing.assert_close(whole[key], tensor)


def test_what_keeps_statistics_needs_its_base(config, tmp_path: Path) -> None:
    cfg = config("model=efficientat", "peft=full", "peft.batch_norm=frozen", "weights=random")
    saved = inject(build_model(cfg, TASK), cfg.peft, 1).save(tmp_path / "adapter", cfg, TASK)
    with pytest.raises(PeftError, match="load it onto the weights that it was trained on"):
        load_run_model(saved, seed=7)


@pytest.mark.parametrize(
    ("output", "checkpoint"), [("pretrained", "pretrained/base"), (".", "base"), ("base", "base/first_ast.safetensors")]
)
def test_weights_that_nothing_replaces_may_lie_beside(
    tmp_path: Path, monkeypatch, output: str, checkpoint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pretrained/base", "base"):
        Path(folder).mkdir(parents=True)
    Path("base/first_ast.safetensors").touch()
    check(
        Path(output),
        [
            "-m",
            "model=ast,beats",
            "data.synthetic.split_players=[20,10,10]",
            "weights=embedded",
            f"model.checkpoint={checkpoint}",
        ],
    )


@pytest.mark.slow
def test_the_card_tells_a_changed_tree(pretrained: tuple[Path, Sequence[str], str], tmp_path: Path) -> None:
    run = finished_run(next((pretrained[0] / "multirun" / "source").glob("ast_*")))
    said = {}
    for commit in ("a" * 40, "a" * 40 + "-dirty", None):
        run.result["git_commit"] = commit
        pack(run, tmp_path, "")
        said[commit] = next(line for line in (tmp_path / "ast.md").read_text().splitlines() if "made by" in line)
    clean, changed, unknown = (line.split(", ", 1)[1] for line in said.values())
    assert clean == f"commit {'a' * 12} |"
    assert changed == f"commit {'a' * 12} and changes that are in no commit |"
    assert unknown == "commit unknown |"


@pytest.mark.slow
def test_only_whole_models_are_packed(pretrained: tuple[Path, Sequence[str], str], tmp_path: Path) -> None:
    run = finished_run(next((pretrained[0] / "multirun" / "source").glob("ast_*")))
    run.result["resolved_config"]["peft"]["layers"] = "last_1"
    with pytest.raises(UserError, match="with peft=full, and this one has full, layers=last_1"):
        pack(run, tmp_path, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_command_without_a_file_names_it(pretrained: tuple[Path, Sequence[str], str], tmp_path: Path) -> None:
    run = finished_run(next((pretrained[0] / "multirun" / "source").glob("ast_*")))
    run.result["weights"] |= {"kind": "embedded", "origin": "ast.safetensors", "license": None}
    pack(run, tmp_path, "python -m sousa_bench.pretrain model=ast weights=embedded")
    card = (tmp_path / "ast.md").read_text()
    assert "model=ast weights=embedded model.checkpoint=ast.safetensors\n" in card
    assert "licence" not in card  # nobody knows whose clips the earlier weights came from


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["peft=lora"], "peft=lora: leave it out: all weights train"),
        (
            ["peft.learning_rate=1e-5"],
            "peft.learning_rate=1e-5: leave it out: all weights train, at trainer.learning_rate",
        ),
        (["-m", "model=ast,beats", "seed=1,2"], "seed=1,2: one value only: a model's runs would have one file"),
        (["model.variant=official"], "model.variant=official: leave it out"),
        (["experiment=smoke"], "experiment=smoke: leave it out"),
        (["--output", "taken"], "--output taken: can't be written"),
        (["model.weights=official"], "model.weights=official: leave it out: weights=… says it for every model"),
        (
            ["weights=embedded", "model.checkpoint=pretrained"],
            "--output pretrained: holds the weights that the run goes on from (pretrained)",
        ),
        (
            ["--output", "mine", "weights=embedded", "model.checkpoint=./mine/ast.safetensors", "model=ast"],
            "--output mine: holds the weights that the run goes on from (./mine/ast.safetensors)",
        ),
    ],
)
def test_what_would_spoil_the_end_is_refused_at_the_start(tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ast.safetensors").touch()
    done = subprocess.run(
        [sys.executable, "-m", "sousa_bench.pretrain", *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}")
    assert not (tmp_path / "multirun").exists()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_two_runs_of_a_model_are_not_one_file(pretrained: tuple[Path, Sequence[str], str], tmp_path: Path) -> None:
    run = finished_run(next((pretrained[0] / "multirun" / "source").glob("ast_*")))
    assert one_per_model([run, run]) == [run]
    with pytest.raises(UserError, match="ast was trained twice"):
        one_per_model([run, FinishedRun(tmp_path, run.result)])


@pytest.mark.slow
def test_real_clips_have_a_card_too(pretrained: tuple[Path, Sequence[str], str], tmp_path: Path) -> None:
    run = finished_run(next((pretrained[0] / "multirun" / "source").glob("ast_*")))
    run.result["resolved_config"]["data"] |= {"synthetic": None, "name": "full"}
    run.result["resolved_config"]["augmentation"] = {"name": "off"}
    pack(run, tmp_path, "")
    card = (tmp_path / "ast.md").read_text()
    assert "| data | data=full: 20 clips of 20 players" in card
    assert "licence" not in card
    assert "| augmentation | none |" in card


def test_every_augmentation_can_be_asked_for(config) -> None:
    for words, name in (([], "on"), (["augmentation=off"], "off"), (["augmentation=on"], "on")):
        assert build(config("experiment=pretraining", *words).augmentation).name == name
    asked = config("experiment=pretraining").augmentation
    assert (asked.mixup.enabled, asked.spec_augment.time_masks, asked.gain.enabled) == (False, 0, True)


def test_what_float16_cannot_hold_is_refused(config) -> None:
    model: AudioModel = build_model(config("model=efficientat", "weights=random"), TASK)
    norm = next(key for key in model.backbone.state_dict() if key.endswith("running_var"))
    model.backbone.state_dict()[norm].fill_(1e6)
    with pytest.raises(UserError, match=rf"{norm} holds values that float16 can't \(1e\+06\)"):
        halves(model)


def test_weights_of_another_model_or_none_are_refused(config, tmp_path: Path) -> None:
    model = build_model(config("model=ast", "weights=random"), TASK)
    save_file(halves(model), tmp_path / "ast.safetensors", metadata=header({"model": "ast"}))
    words = ("weights=embedded", f"model.checkpoint={tmp_path / 'ast.safetensors'}")
    assert build_model(config("model=ast", *words), TASK).weights.kind == "embedded"
    save_file(halves(model), tmp_path / "odd.safetensors", metadata={"sousa_bench": "no JSON"})
    save_file(halves(model), tmp_path / "published.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"no file of sousa_bench\.pretrain.*give weights=official"):
        build_model(
            config("model=ast", "weights=embedded", f"model.checkpoint={tmp_path / 'published.safetensors'}"), TASK
        )
    with pytest.raises(WeightsError, match=r"there is no file MIT/x.*is read with weights=official"):
        build_model(config("model=ast", "weights=embedded", "model.checkpoint=MIT/x"), TASK)
    with pytest.raises(WeightsError, match="metadata are not those"):
        build_model(config("model=ast", "weights=embedded", f"model.checkpoint={tmp_path / 'odd.safetensors'}"), TASK)
    with pytest.raises(WeightsError, match="holds weights of ast, not of beats"):
        build_model(config("model=beats", *words), TASK)
    with pytest.raises(WeightsError, match=r"there is no file .*beats\.safetensors"):
        build_model(config("model=beats", "weights=embedded", f"model.checkpoint={tmp_path}"), TASK)
    with pytest.raises(ConfigError, match="would not be read with weights=random"):
        build_model(config("model=ast", "weights=random", f"model.checkpoint={tmp_path}"), TASK)


def test_a_run_is_known_by_the_weights_content(config, tmp_path: Path) -> None:
    def digest(*words: str) -> str:
        return fingerprint(config("model=ast", "weights=embedded", *words))

    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        state = halves(build_model(config("model=ast", "weights=random", f"seed={seed}"), TASK))
        save_file(state, tmp_path / name / "ast.safetensors", metadata=header({"model": "ast"}))
    found = {name: digest(f"model.checkpoint={tmp_path / name}") for name in ("one", "same", "other")}
    assert found["one"] == found["same"] != found["other"]
    assert found["one"] == digest(f"model.checkpoint={tmp_path / 'one' / 'ast.safetensors'}")


def test_they_are_for_the_tiny_variants(config) -> None:
    def said(*words: str) -> str | None:
        cfg: DictConfig = config("model=ast", *words)
        return precheck(cfg.model, cfg.peft)

    assert said("weights=embedded", "model.variant=tiny") is None
    assert said("weights=random", "model.variant=official") is None
    reason = said("weights=embedded", "model.variant=official")
    assert reason is not None
    assert "weights=embedded are for model.variant=tiny alone" in reason
    assert "weights=official" in reason
