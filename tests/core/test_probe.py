"""The linear probe that is solved for: the right minimum, chosen on validation, and a run like any other."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from torch import nn

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.models.ast import AstBackbone
from sousa_bench.peft import load_run_model
from sousa_bench.peft.block_reader import read_blocks
from sousa_bench.peft.targets import last_layer
from sousa_bench.results.result import read_result
from sousa_bench.sweep.plan import refusal
from sousa_bench.training import logistic_regression
from sousa_bench.training.logistic_regression import solutions
from sousa_bench.training.run import run
from tests.cases import check_each
from tests.trained import SMALL, command, home

MODELS = ("ast", "htsat", "beats", "efficientat")
PROBE = ("peft=probe", "augmentation=off")


def test_each_strength_has_the_minimum_that_scikit_learn_finds():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 90)
    features = (rng.normal(size=(90, 12)) + rng.normal(size=(5, 12))[labels]) @ rng.normal(size=(12, 12)) + 7
    features = np.column_stack([features, features[:, 0] * 100, np.full(90, 3.0)])  # a copy, and one that says nothing
    standard = (features - features.mean(0)) / np.where(features.std(0) > 1e-9, features.std(0), 1)
    for found in solutions(features, labels, 5, [1e-3, 1.0, 0.03]):
        known = LogisticRegression(C=1 / (found.l2 * 90), tol=1e-10, max_iter=100_000).fit(standard, labels)
        assert found.converged
        np.testing.assert_allclose(softmax(found.logits(features), 1), known.predict_proba(standard), atol=1e-5)
        assert found.loss(features, labels) == pytest.approx(
            -np.log(known.predict_proba(standard)[np.arange(90), labels]).mean(), rel=1e-5
        )


def test_fewer_clips_than_features_and_a_class_without_clips_have_a_minimum_too(monkeypatch):
    rng = np.random.default_rng(4)
    features, labels = rng.normal(size=(10, 30)), np.arange(10) % 3
    narrow = list(solutions(features, labels, 4, [0.1, 1e-4]))
    monkeypatch.setattr(logistic_regression, "WIDE", 20)
    for found, other in zip(narrow, solutions(features, labels, 4, [0.1, 1e-4]), strict=True):
        assert found.converged
        assert other.converged
        assert (found.logits(features).argmax(1) == labels).all()
        np.testing.assert_allclose(other.weight, found.weight, atol=1e-4)


def test_few_copies_of_the_features_are_alive_at_a_time():
    features = np.random.default_rng(5).normal(size=(10_000, 100))
    tracemalloc.start()
    try:
        assert len(list(solutions(features, np.arange(10_000) % 2, 2, [1.0, 0.1]))) == 2
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2.7 * features.nbytes  # beside the features themselves; docs/peft.md reckons with it


@pytest.mark.parametrize("columns", [4608, 5120])
def test_what_a_last_layer_takes_is_solved_for_as_ever(columns, monkeypatch):
    """Of HTS-AT and EfficientAT mn40: by way of the columns, since earlier runs of them count as this one."""
    sizes = []

    def eigh(matrix):
        sizes.append(matrix.shape)
        return np.ones(1), np.ones((len(matrix), 1), np.float32)

    monkeypatch.setattr(np.linalg, "eigh", eigh)
    next(solutions(np.eye(2, columns, dtype=np.float32), np.arange(2), 2, [1.0]))
    assert sizes == [(columns, columns)]


@pytest.mark.slow
def test_the_strength_is_the_one_of_the_lowest_validation_loss(config, folder):
    """Against scikit-learn, on features that the network gives by itself."""
    cfg = config("model=efficientat", *PROBE, "data.synthetic.clips=320", "data.synthetic.split_players=[20,10,10]")
    blocks = run(cfg, folder)
    probe = blocks["peft"]["probe"]
    setup = Setup.of(cfg)
    inputs = setup.module.inputs
    setup.module.model.eval()
    features, labels = {}, {}
    for split, clips in setup.module.clips.items():
        index = np.arange(len(clips))
        rows = [inputs.plain(split, index[i : i + 1]).passes[0][1][0] for i in index]  # what the last layer takes
        features[split], labels[split] = torch.cat(rows).double().numpy(), clips.labels.numpy()
    mean, scale = features["train"].mean(0), features["train"].std(0)
    standard = {split: (rows - mean) / np.where(scale > 0, scale, 1) for split, rows in features.items()}
    losses, known = {}, {}
    for l2 in (each["l2"] for each in probe["path"]):
        model = LogisticRegression(C=1 / (l2 * len(labels["train"])), tol=1e-9, max_iter=100_000)
        known[l2] = model.fit(standard["train"], labels["train"])
        chances = known[l2].predict_proba(standard["val"])
        losses[l2] = -np.log(chances[np.arange(len(chances)), labels["val"]]).mean()
    assert probe["l2"] == min(losses, key=losses.get)
    assert blocks["metrics"]["val_loss"] == pytest.approx(losses[probe["l2"]], rel=1e-3)
    frame = pd.read_parquet(folder / "predictions.parquet").set_index("sample_id")
    order = setup.module.clips["test"].table["sample_id"]
    tested = softmax(np.stack(frame.loc[order, "logits"]), axis=1)
    np.testing.assert_allclose(tested, known[probe["l2"]].predict_proba(standard["test"]), atol=2e-3)


@pytest.mark.slow
def test_every_model_is_solved_for_saved_and_repeated(config, tmp_path):
    """By its last layer alone; the logits of HTS-AT are those of a convolution, of BEATs a mean over tokens."""

    def check(name):
        cfg = config(f"model={name}", *PROBE, "seed=1")
        blocks = run(cfg, tmp_path / name)
        assert not any("no minimum" in warning for warning in blocks["warnings"])
        assert blocks["metrics"]["best_epoch"] == blocks["efficiency"]["epochs"] == len(blocks["history"]) == 1
        assert blocks["metrics"]["final_val_loss"] == blocks["metrics"]["val_loss"]
        assert blocks["metrics"]["final_train_loss"] < np.log(40)
        assert blocks["efficiency"]["trainable_params"] == 40 * (blocks["peft"]["probe"]["features"] + 1)
        if name == "htsat":
            assert run(cfg, tmp_path / "again")["metrics"] == blocks["metrics"]
        model = load_run_model(tmp_path / name)
        assert torch.equal(model.backbone.get_submodule(last_layer(model)).bias, saved_bias(tmp_path / name))

    check_each(MODELS, check)


@pytest.mark.parametrize(("model", "long"), [("ast", False), ("htsat", True), ("cnn", False)])
def test_the_head_reads_the_mean_of_every_block(config, model, long):
    """Tokens, a folded map that long clips go through in several pieces, and maps with their channels first."""
    setup = Setup.of(config(f"model={model}", *PROBE))
    reader = setup.module.model.eval().backbone
    own, rate = reader.network, setup.module.model.sample_rate
    clip = 0.1 * torch.randn(2, (12 if long else 2) * rate, generator=torch.Generator().manual_seed(0))
    lengths = None if long else torch.tensor([clip.shape[1], clip.shape[1] // 2])
    features, mask = setup.module.model.features(clip, lengths)
    heard = {name: [] for name in reader.blocks}
    for name, found in heard.items():
        own.get_submodule(name).register_forward_hook(lambda module, inputs, output, found=found: found.append(output))
    with torch.no_grad():
        own(features, mask)
        rows = torch.cat([mean_of(model, found) for found in heard.values()], dim=1)
        logits = reader(features, mask)
    assert {len(found) for found in heard.values()} == {4 if long else 2}  # once here, once in the reader
    torch.testing.assert_close(logits, reader.head(rows))
    assert logits[0].ne(logits[1]).any()


def mean_of(model, found):
    """(clips, channels) of a block's outputs in all passes."""
    across = {"ast": 1, "htsat": (1, 2), "cnn": (2, 3)}[model]
    return torch.stack([output.mean(across) for output in found]).mean(0)


class OwnNetwork(nn.Module):
    """With one block, on which the logits don't depend."""

    def __init__(self, block: nn.Module, bins: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block])
        self.head = nn.Linear(bins, 40)

    def forward(self, features, padding_mask=None):
        self.blocks[0](features)
        return self.head(features.mean(1))


def test_blocks_of_ones_own_that_give_neither_tokens_nor_maps_are_refused(config):
    model = Setup.of(config("model=cnn", "peft=head")).module.model
    _, frames, bins = model.features(torch.zeros(1, model.sample_rate))[0].shape

    def read(block):
        model.backbone, model.head_name = OwnNetwork(block, bins), "head"
        read_blocks(model)
        return model.backbone.head.in_features

    class Channels(nn.Conv1d):
        """Channels before time, as its convolution has them."""

        def forward(self, x):
            return super().forward(x.transpose(1, 2))

    assert read(nn.Linear(bins, 8)) == 8
    with pytest.raises(
        PeftError, match=rf"model=cnn: its blocks give {frames} columns of a clip of 1 s.*peft\.reads=last"
    ):
        read(Channels(bins, 8, 1))
    with pytest.raises(PeftError, match=r"blocks\.0 gives neither tokens nor maps.*give peft\.reads=last"):
        read(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 1, 1, -1))))


def test_the_last_layer_alone_is_what_it_was(config, tmp_path):
    """Before there was a choice: the same run, and a head that fits into the network as it is."""
    cfg = config("model=efficientat", *PROBE, "peft.reads=last")
    former = config("model=efficientat", *PROBE, "~peft.reads")
    assert fingerprint(cfg) == fingerprint(former) != fingerprint(config("model=efficientat", *PROBE))
    metrics = run(cfg, tmp_path / "now")["metrics"]
    assert run(former, tmp_path / "then")["metrics"] == metrics
    model = load_run_model(tmp_path / "then")
    assert torch.equal(model.backbone.classifier[-1].bias, saved_bias(tmp_path / "now"))


def saved_bias(folder):
    state = load_file(folder / "adapter" / "model.safetensors")
    assert len(state) == 2  # no more than the last layer
    return next(tensor for name, tensor in state.items() if name.endswith("bias"))


def test_augmented_clips_are_refused_before_a_sweep_and_in_a_run(config, folder):
    cfg = config("model=ast", "peft=probe")
    assert "peft=probe doesn't fit augmentation=on" in refusal(cfg)
    assert "give augmentation=off" in refusal(cfg)
    assert refusal(config("model=ast", *PROBE)) is None
    assert refusal(config("model=ast", "peft=head")) is None
    with pytest.raises(ConfigError, match="give augmentation=off"):
        run(cfg, folder)


def test_what_a_probe_cannot_do_is_said_before_anything_starts(config):
    def check(words, says):
        assert says in refusal(config("model=ast", *PROBE, *words)), words

    check_each(
        [
            (["peft.l2=0.1"], "peft.l2=0.1: must be a list of numbers above 0"),
            (["peft.l2=[]"], "must be a list of numbers above 0"),
            (["peft.l2=[0.1,0]"], "must be a list of numbers above 0"),
            (["+peft.layers=last_2"], "has no key 'layers'"),
            (["+peft.learning_rate=0.1"], "has no key 'learning_rate'"),
            (["peft.reads=all"], "peft.reads=all: must be last or blocks, of peft=probe and peft=knn"),
            (["~model.targets.blocks"], "model=ast names no blocks (model.targets.blocks); give peft.reads=last"),
        ],
        check,
    )
    assert "of peft=probe" in refusal(config("model=ast", "peft=head", "+peft.l2=[0.1]"))
    assert "of peft=probe and peft=knn" in refusal(config("model=ast", "peft=head", "+peft.reads=last"))
    assert refusal(config("model=ast", *PROBE, "peft.reads=last", "~model.targets.blocks")) is None


def test_logits_that_are_not_linear_in_the_last_layer_are_an_error(config, folder, monkeypatch):
    onward = AstBackbone.onward
    monkeypatch.setattr(AstBackbone, "onward", lambda self, place, state: onward(self, place, state).tanh())
    with pytest.raises(PeftError, match=r"not linear in classifier\.dense.*take peft=head"):
        run(config("model=ast", *PROBE, "peft.reads=last"), folder)


@pytest.mark.slow
def test_the_command_refuses_trains_and_evaluates_it():
    words = [word for word in SMALL if word.split("=")[0] not in ("model", "peft", "augmentation", "trainer.precision")]
    words += ["model=efficientat", "peft=probe", "augmentation=on,off", "sweep=probe"]
    done = command("train", "-m", *words)
    assert "peft=probe doesn't fit augmentation=on" in done.stdout + done.stderr
    [folder] = [file.parent for file in (home() / "multirun" / "probe").glob("*/result.json")]
    result = read_result(folder)
    assert result["status"] == "completed", done.stdout + done.stderr
    out = folder / "evaluated"
    assert evaluate([str(folder), "--no-images", "--threads", "1", "--output-dir", str(out)]) == 0
    assert read_result(out)["metrics"]["test_acc"] == result["metrics"]["test_acc"]
