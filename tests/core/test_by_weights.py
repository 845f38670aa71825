"""Settings that follow weights and data: measured ones for published weights, more epochs for real sounds."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf
import yaml
from omegaconf import OmegaConf

from sousa_bench.config.composing import composed
from tests.trained import command


def settings(*overrides: str) -> tuple:
    config = composed(overrides)
    peft, trainer = config.peft, config.trainer
    return peft.learning_rate, peft.batch_norm, trainer.max_epochs, trainer.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("start", [[], ["weights=random"], ["weights=official", "model.weights=random"]])
@pytest.mark.parametrize("model", ["ast", "htsat", "beats", "efficientat"])
def test_own_and_random_weights_keep_theirs(model, start):
    assert settings(f"model={model}", *start, "peft=lora") == (1e-3, "frozen", 2, 16)
    assert settings(f"model={model}", *start, "peft=full") == (3e-4, "train", 2, 16)


def test_a_network_that_nobody_has_pretrained_has_the_epochs_to_learn_from_nothing():
    assert settings("model=cnn", "weights=random", "peft=full") == (3e-3, "train", 15, 16)


def test_published_weights_have_theirs_by_model_where_it_was_measured():
    start = ("model=efficientat", "weights=official", "model.variant=mn04")
    assert settings(*start, "peft=full") == (3e-3, "train", 15, 32)
    assert settings(*start, "peft=lora") == (1e-2, "train", 15, 32)
    assert settings("model=ast", "weights=official", "peft=full") == (5e-5, "train", 15, 32)
    assert settings("model=ast", "weights=official", "peft=lora") == (1e-3, "frozen", 15, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "others", "efficientat"),
    [
        ("dora", (1e-3, "frozen"), (1e-2, "train")),
        ("adalora", (2e-3, "frozen"), (5e-3, "train")),
        ("ia3", (5e-3, "frozen"), (2e-2, "train")),
        ("bitfit", (5e-3, "frozen"), (1e-2, "train")),
        ("head", (5e-3, "frozen"), (5e-2, "frozen")),
    ],
)
def test_the_comparisons_other_methods_have_theirs_too(method, others, efficientat):
    peft = f"peft={method}"
    assert settings("model=efficientat", "weights=official", "model.variant=mn04", peft)[:2] == efficientat
    assert settings("model=efficientat", peft)[:2] == others
    assert settings("model=ast", "weights=official", peft)[:2] == others


@pytest.mark.parametrize("method", ["head", "bitfit", "ia3"])
def test_a_head_that_knows_real_rudiments_is_not_trained_out_of_them(method):
    peft = f"peft={method}"
    for start in ("weights=embedded", "weights=further"):
        words = ("model=efficientat", start, peft)
        new = 2e-2 if start == "weights=embedded" else 5e-3  # as on other sounds
        assert settings(*words, "data=tiny")[0] == 1e-3
        assert settings(*words)[0] == 5e-3
        assert settings(*words, "data=tiny", "trainer.new_head=true")[0] == new
    assert settings("model=efficientat", "weights=random", "data=tiny", peft)[0] == 5e-3


def test_what_was_trained_further_has_low_rates_on_rudiments():
    elsewhere = ("model=efficientat", "weights=further", "data=folder", "data.root=/d")
    assert settings(*elsewhere, "peft=full") == (3e-3, "train", 15, 16)
    assert settings("model=efficientat", "weights=further", "peft=full") == (3e-4, "train", 2, 16)
    assert settings("model=efficientat", "weights=further", "peft=lora") == (1e-3, "frozen", 2, 16)
    assert settings("model=ast", "weights=further", "peft=full") == (3e-4, "train", 2, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "synthetic", "real", "others", "unmeasured"),
    [
        ("full", 3e-4, 3e-4, (1e-3, 1e-3, 1e-3, 3e-3), 3e-4),
        ("lora", 1e-3, 1e-3, (3e-3,) * 4, 1e-3),
        ("dora", 1e-3, 1e-3, (3e-3,) * 4, 1e-3),
        ("adalora", 2e-3, 2e-3, (1e-2,) * 4, 2e-3),
        *((method, 5e-3, 1e-3, (2e-2,) * 4, 5e-3) for method in ("ia3", "bitfit", "head")),
    ],
)
def test_embedded_weights_have_higher_rates_on_other_sounds_where_measured(method, synthetic, real, others, unmeasured):
    def rate(model, *words):
        return settings(f"model={model}", f"peft={method}", *words)[0]

    elsewhere = ("data=folder", "data.root=/d")
    for model, other in zip(("ast", "beats", "htsat", "efficientat"), others, strict=True):
        rates = (rate(model, "data=synthetic"), rate(model, "data=tiny"), rate(model, *elsewhere))
        assert rates == (synthetic, real, other), model
    for model in ("eat", "ced"):
        assert (rate(model, "data=synthetic"), rate(model, *elsewhere)) == (synthetic, unmeasured), model
    assert rate("ast", "weights=random", *elsewhere) == unmeasured
    assert rate("ast", "weights=further", "model.checkpoint=mine", *elsewhere) == unmeasured


@pytest.mark.slow
def test_what_lies_in_the_folder_decides_what_sounds_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("SOUSA_ROOT", raising=False)
    birds, rudiments = tmp_path / "birds", tmp_path / "sousa"
    (birds / "owl").mkdir(parents=True)
    sf.write(birds / "owl" / "a.wav", np.zeros(800), 8000)
    rudiments.mkdir()
    (rudiments / "metadata.csv").write_text("file_name,rudiment_slug,split\n")
    own, parted, mixed, judged = (tmp_path / name for name in ("own", "parted", "mixed", "judged"))
    for folder in (
        *(own / "flam", own / "drag", parted / "train" / "flam", parted / "test" / "drag"),
        *(mixed / "flam", mixed / "applause", judged / "flam", judged / "drag"),
    ):
        folder.mkdir(parents=True)
        sf.write(folder / "a.wav", np.zeros(800), 8000)
    (own / "notes").mkdir()
    (own / "notes" / "readme.txt").write_text("no sound, so no class")
    (own / "loop").symlink_to("loop")
    (judged / "metadata.csv").write_text("file_name,label\nflam/a.wav,good\ndrag/a.wav,bad\n")
    (own / "told.csv").write_text("file_name,label\nflam/a.wav,flam\ndrag/a.wav,drag\n")
    (own / "spaced.csv").write_text("file_name, label\nflam/a.wav, flam\n")
    (own / "lists.jsonl").write_text('{"file_name": "flam/a.wav", "label": ["flam"]}\n')
    (own / "judged.csv").write_text("file_name,label,what\nflam/a.wav,good,flam\ndrag/a.wav,,drag\n")
    away, home = 3e-3, 3e-4
    for words, rate in {
        ("data=tiny",): home,
        ("data=tiny", "data.root=/nowhere"): home,
        ("data=tiny", "data.root=/nowhere", "trainer.new_head=true"): away,
        ("data=tiny", f"data.root={rudiments}"): home,
        ("data=folder", f"data.root={rudiments}"): home,
        ("data=tiny", f"data.root={rudiments}", "data.table=metadata.csv"): away,
        ("data=folder", f"data.root={own}"): home,
        ("data=folder", f"data.root={own}", "trainer.new_head=true"): away,
        ("data=folder", f"data.root={parted}"): home,
        ("data=folder", f"data.root={mixed}"): away,
        ("data=folder", f"data.root={judged}"): away,
        ("data=folder", f"data.root={own}", "data.table=told.csv"): home,
        ("data=folder", f"data.root={own}", "data.table=judged.csv"): away,
        ("data=folder", f"data.root={own}", "data.table=judged.csv", "data.columns.label=what"): home,
        ("data=folder", f"data.root={own}", "data.table=judged.csv", "data.columns.label=wat"): away,
        ("data=folder", f"data.root={own}", "data.table=missing.csv"): away,
        ("data=folder", f"data.root={own}", "data.table=spaced.csv"): home,
        ("data=folder", f"data.root={own}", "data.table=lists.jsonl"): away,
        ("data=folder", f"data.root={own}", f"data.table={judged / 'metadata.csv'}"): away,
        ("data=folder", f"data.root={own}", "data.table=3"): away,
        ("data=folder", f"data.root={own}", "data.table=told.csv", "data.columns=foo"): home,
        ("data=folder", f"data.root={birds}"): away,
        ("data=tiny", f"data.root={birds}"): away,
        ("data=tiny", "data.hub_id=an/other"): away,
        ("data=folder",): away,
    }.items():
        assert settings("model=efficientat", "peft=full", *words)[0] == rate, words
    monkeypatch.setenv("SOUSA_ROOT", str(birds))
    assert settings("model=efficientat", "peft=full", "data=tiny")[0] == away


@pytest.mark.slow
@pytest.mark.parametrize("data", ["folder", "tiny"])
@pytest.mark.parametrize(
    ("model", "weights", "full", "lora"),
    [
        ("ast", "random", 3e-4, 1e-3),
        ("cnn", "random", 3e-3, 1e-3),
        ("ast", "official", 5e-5, 1e-3),
        ("efficientat", "official", 3e-3, 1e-2),
        ("ast", "further", 3e-4, 1e-3),
    ],
)
def test_other_weights_have_the_same_rates_on_all_sounds(data, model, weights, full, lora):
    start = (f"model={model}", f"weights={weights}", f"data={data}", "data.root=/d")
    assert settings(*start, "peft=full")[0] == full
    assert settings(*start, "peft=lora")[0] == lora


@pytest.mark.slow
@pytest.mark.parametrize("start", ["embedded", "random", "official"])
@pytest.mark.parametrize("data", ["folder", "tiny", "full"])
def test_real_sounds_have_the_same_epochs_whatever_the_weights(start, data):
    assert settings("model=ast", f"weights={start}", f"data={data}", "data.root=/d")[2] == 15
    assert settings("model=ast", "weights=embedded", "data=synthetic")[2] == 2


def test_what_the_command_line_says_comes_first():
    given = ("peft.learning_rate=0.5", "peft.batch_norm=frozen", "trainer.max_epochs=3", "trainer.batch_size=4")
    assert settings("model=efficientat", "weights=official", "peft=lora", *given) == (0.5, "frozen", 3, 4)


@pytest.mark.parametrize(
    ("rate", "space"), [("2e-3", "tag(log,interval(0.0002,0.02))"), ("null", "null"), ("fast", "fast")]
)
def test_the_space_of_a_rate_is_around_it_and_of_none_what_stands_there(rate, space):
    config = OmegaConf.create(
        {"peft": {"learning_rate": yaml.safe_load(rate), "space": "${around:peft.learning_rate}"}}
    )
    assert config.peft.space == space


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["fast", "null"])
def test_a_search_refuses_a_rate_that_is_no_number_in_words(rate):
    done = command("train", "search=lora", f"peft.learning_rate={rate}")
    assert done.returncode == 2
    assert "peft.learning_rate=" in done.stderr
    assert "Error: TypeError" not in done.stderr
