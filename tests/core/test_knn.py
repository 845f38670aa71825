"""Nearest neighbours: the votes of a plain second implementation, k chosen on validation, and a run like any other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import expit, softmax
from sklearn.neighbors import NearestNeighbors as Known
from torch import nn

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config import init_from
from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.export.__main__ import main as export
from sousa_bench.peft import load_run_model
from sousa_bench.peft.nearest_neighbours import NearestNeighbours, remembered
from sousa_bench.results.result import read_result
from sousa_bench.sweep.plan import refusal
from sousa_bench.training.run import run
from tests.cases import check_each
from tests.trained import SMALL, command, home

MODELS = ("ast", "htsat", "beats", "efficientat")
KNN = ("peft=knn", "augmentation=off")


def voted(known, labels, asked, k, temperature):
    """(asked, classes) chances; ``labels`` (known, classes) of 0 and 1, in the words of the docs."""
    deviation = known.std(0)
    scale = np.where(deviation > 1e-9, deviation, np.inf)
    known, asked = (known - known.mean(0)) / scale, (asked - known.mean(0)) / scale
    distances, positions = Known(n_neighbors=k, metric="cosine", algorithm="brute").fit(known).kneighbors(asked)
    weights = np.exp((1 - distances) / temperature)
    weights /= weights[:, :1]
    outcomes = 2 if (labels.sum(1) != 1).any() else labels.shape[1]
    shares = (labels.sum(0) + 1) / (len(labels) + outcomes)
    votes = np.stack([weight @ labels[at] for weight, at in zip(weights, positions, strict=True)])
    return (votes + shares) / (weights.sum(1, keepdims=True) + 1)


@pytest.mark.parametrize("several", [False, True])
def test_the_votes_are_those_of_a_plain_second_implementation(several):
    rng = np.random.default_rng(5)
    known, asked = (rng.normal(size=(size, 6)) * [1, 2, 3, 4, 5, 0] + 50 for size in (60, 25))
    held = (rng.random((60, 4)) < 0.4).astype(int) if several else np.eye(4, dtype=int)[rng.integers(0, 3, 60)]
    labels = torch.from_numpy(held if several else held.argmax(1))
    for k in (1, 7, 60):
        memory = remembered(torch.from_numpy(known), labels, k)
        logits = NearestNeighbours(nn.Identity(), memory, 0.07, 4).votes(torch.from_numpy(asked)).double().numpy()
        chances = expit(logits) if several else softmax(logits, 1)
        np.testing.assert_allclose(chances, voted(known, held, asked, k, 0.07), atol=1e-5)
        assert (chances > 0).all()  # also of the class that no clip has


@pytest.mark.slow
def test_k_is_the_one_of_the_lowest_validation_loss(config, folder):
    """On features that the network gives by itself, and with the predictions of the test clips."""
    cfg = config("model=efficientat", *KNN, "data.synthetic.clips=320", "data.synthetic.split_players=[20,10,10]")
    blocks = run(cfg, folder)
    found = blocks["peft"]["knn"]
    setup = Setup.of(cfg)
    setup.module.model.eval()
    features, labels = {}, {}
    for split, clips in setup.module.clips.items():
        index = np.arange(len(clips))
        rows = [setup.module.inputs.plain(split, index[i : i + 1]).passes[0][1][0] for i in index]
        features[split], labels[split] = torch.cat(rows).double().numpy(), clips.labels.numpy()
    held = np.eye(40, dtype=int)[labels["train"]]
    losses = {}
    for k in (1, 3, 5, 10, 20, 50, 100):
        chances = voted(features["train"], held, features["val"], k, 0.07)
        losses[k] = -np.log(chances[np.arange(len(chances)), labels["val"]]).mean()
    assert {each["k"]: each["val_loss"] for each in found["path"]} == pytest.approx(losses, rel=1e-3)
    assert found["k"] == min(losses, key=losses.get)
    assert found["neighbours"] == len(held)
    assert blocks["metrics"]["val_loss"] == pytest.approx(losses[found["k"]], rel=1e-3)
    frame = pd.read_parquet(folder / "predictions.parquet").set_index("sample_id")
    tested = softmax(np.stack(frame.loc[setup.module.clips["test"].table["sample_id"], "logits"]), axis=1)
    expected = voted(features["train"], held, features["test"], found["k"], 0.07)
    np.testing.assert_allclose(tested, expected, atol=2e-3)


@pytest.mark.slow
def test_every_model_votes_is_saved_and_loaded(config, tmp_path):
    def check(name):
        cfg = config(f"model={name}", *KNN, "seed=1", "peft.k=[1,5]")
        blocks = run(cfg, tmp_path / name)
        assert blocks["efficiency"]["trainable_params"] == blocks["efficiency"]["steps"] == 0
        assert blocks["metrics"]["best_epoch"] == len(blocks["history"]) == 1
        model = load_run_model(tmp_path / name)
        assert blocks["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())
        state = load_file(tmp_path / name / "adapter" / "model.safetensors")
        assert state["features"].shape == (blocks["data"]["counts"]["train"], blocks["peft"]["knn"]["features"])
        setup = Setup.of(config(f"model={name}", *KNN, "seed=1", "trainer.feature_memory_mb=0"))
        clips = setup.module.clips["test"]
        frame = pd.read_parquet(tmp_path / name / "predictions.parquet").set_index("sample_id")
        with torch.no_grad():
            features = setup.module.inputs.features("test", np.arange(2))
            logits = torch.cat([model.backbone(*parts) for _, parts in features]).numpy()
        order = np.concatenate([rows for rows, _ in features])
        known = np.stack(frame.loc[clips.table["sample_id"].iloc[order], "logits"])
        np.testing.assert_allclose(logits, known, atol=1e-3)

    check_each(MODELS, check)


def test_neighbours_that_are_not_whole_are_refused(config, folder):
    run(config("model=efficientat", *KNN), folder)
    file = folder / "adapter" / "model.safetensors"
    state = load_file(file)
    save_file({**state, "features": state["features"][1:].contiguous()}, file)
    with pytest.raises(PeftError, match=r"model\.safetensors: these are no neighbours for model=efficientat"):
        load_run_model(folder)


def test_what_neighbours_cannot_do_is_said_before_anything_starts(config):
    def check(words, says):
        assert says in refusal(config("model=ast", *KNN, *words)), words

    check_each(
        [
            (["augmentation=on"], "peft=knn doesn't fit augmentation=on"),
            (["trainer.sampling=balanced"], "peft=knn doesn't fit trainer.sampling=balanced"),
            (["peft.k=5"], "peft.k=5: must be a list of whole numbers above 0"),
            (["peft.k=[]"], "must be a list of whole numbers above 0"),
            (["peft.k=[0,5]"], "must be a list of whole numbers above 0"),
            (["peft.temperature=0"], "peft.temperature=0: must be a number above 0"),
            (["+peft.l2=[0.1]"], "has no key 'l2'"),
            (["+peft.layers=last_2"], "has no key 'layers'"),
        ],
        check,
    )
    assert "of peft=knn" in refusal(config("model=ast", "peft=full", "+peft.k=[5]"))
    assert refusal(config("model=ast", *KNN)) is None


@pytest.mark.slow
def test_the_command_skips_it_and_evaluates_it_and_what_it_cannot_is_refused(config, capsys):
    words = [word for word in SMALL if word.split("=")[0] not in ("model", "peft", "trainer.precision")]
    words += ["model=efficientat", "peft=knn", "sweep=knn"]
    done = command("train", "-m", *words)
    [folder] = [file.parent for file in (home() / "multirun" / "knn").glob("*/result.json")]
    result = read_result(folder)
    assert result["status"] == "completed", done.stdout + done.stderr
    assert "Completed already 1/1" in command("train", "-m", *words).stdout
    out = folder / "evaluated"
    assert evaluate([str(folder), "--no-images", "--threads", "1", "--output-dir", str(out)]) == 0
    assert read_result(out)["metrics"]["test_acc"] == result["metrics"]["test_acc"]
    assert export([str(folder), str(home() / "package")]) == 1
    assert "peft=knn can't be exported" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="peft=knn takes no steps, so that it goes on from nothing"):
        init_from.check(config("model=efficientat", *KNN, f"init_from={folder}"))
