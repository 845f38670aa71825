"""What a model hears before any training: the classes of the head that its file brings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sousa_bench.config.composing import composed
from sousa_bench.config.instantiate import build
from sousa_bench.inference.predictor import Predictor
from sousa_bench.models import audioset, efficientat
from sousa_bench.models.base import AudioModel
from sousa_bench.models.weights import apply_state
from sousa_bench.predict import tag_check
from sousa_bench.predict.__main__ import main
from sousa_bench.pretrain.packing import halves, header
from sousa_bench.task import Task
from tests.predict.conftest import RATE, write
from tests.trained import ROOT

PUBLISHED = Path(os.environ.get("PUBLISHED_WEIGHTS", ROOT.parent / "shared" / "published_weights"))
DIGITS = Path(os.environ.get("SPOKEN_DIGITS", ROOT.parent / "shared" / "spoken_digits"))
MODELS = ("ast", "htsat", "beats", "efficientat")
BUILT_IN = {
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_bias": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "activation_fn": "gelu",
}


@pytest.fixture
def mn04() -> str:
    file = PUBLISHED / "mn04_as_mAP_432.pt"
    if not file.is_file():
        pytest.skip(f"needs the published checkpoint {file} (PUBLISHED_WEIGHTS names the folder)")
    return f"model.checkpoint={file}"


def official(name: str, path: Path, classes: int | None = 527, labels: dict[int, str] | None = None) -> list[str]:
    """Write a small official file with a head, and the words that ask for it."""
    made = build(composed([f"model={name}", "weights=random", "seed=3"]).model, num_classes=classes or 2)
    state = {key: value.contiguous() for key, value in made.backbone.state_dict().items()}
    if classes is None:
        state = {key: value for key, value in state.items() if not key.startswith(made.head_name)}
    if name == "beats":
        _write_beats(made.backbone, state, path, labels)
    else:
        save_file(state, path)
    return [f"model={name}", "weights=official", "model.variant=tiny", f"model.checkpoint={path}"]


def _write_beats(backbone: Any, state: dict[str, torch.Tensor], path: Path, labels: dict[int, str] | None) -> None:
    table = state.pop("encoder.relative_attention_bias.table.weight")
    for layer in range(len(backbone.encoder.layers)):
        state[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = table.clone()
    for own, theirs in (("original0", "0.weight_g"), ("original1", "0.weight_v")):
        state[f"encoder.pos_conv.{theirs}"] = state.pop(f"encoder.pos_conv.conv.parametrizations.weight.{own}")
    state["encoder.pos_conv.0.bias"] = state.pop("encoder.pos_conv.conv.bias")
    cfg = {key: getattr(backbone.config, key) for key in backbone.config.__dataclass_fields__} | BUILT_IN
    torch.save({"cfg": cfg, "model": state, **({"label_dict": labels} if labels else {})}, path)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command's exit code, what it printed, and what it printed as errors."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([*map(str, words), "--threads", "1"])
        except SystemExit as end:
            code = int(str(end.code))
        return code, *capsys.readouterr()

    return run


def test_the_list_is_audiosets(mn04: str) -> None:
    assert audioset.LABELS_FILE.read_bytes() == (PUBLISHED / "audioset_labels.csv").read_bytes()
    assert len(audioset.names()) == 527
    first, *_, last = audioset.names().items()
    assert first == ("/m/09x0r", "Speech")
    assert last[1] == "Field recording"


def test_known_file_hears_what_is_recorded(mn04: str, ask) -> None:
    code, said, _ = ask("--check", "model=efficientat", "weights=official", mn04)
    assert code == 0
    heard = {line.split("  ")[0]: line for line in said.splitlines()}
    assert "Drum 0.826, Snare drum 0.776, Drum roll 0.683" in heard["snare roll"]
    assert "Sine wave 0.6" in heard["sine sweep"]
    assert "White noise 0.25" in heard["white noise"]
    assert said.rstrip().endswith("As recorded for this file (SHA-256 899a8c621706…), within 0.02.")


@pytest.mark.parametrize(("name", "value"), [("PREEMPHASIS", 0.0), ("SHIFT", 4.0), ("LOG_OFFSET", 1e-6)])
def test_another_front_end_is_noticed(mn04: str, ask, monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(efficientat, name, value)
    monkeypatch.setattr(tag_check, "SOUNDS", {"sine sweep": tag_check.sine_sweep})
    code, said, error = ask("--check", "model=efficientat", "weights=official", mn04)
    assert code == 1
    assert "As recorded" not in said
    assert "sine sweep: Sine wave " in error
    assert "recorded 0.619" in error
    assert error.count("\n") == 1


def test_spoken_words_are_speech(mn04: str, ask) -> None:
    """The variant follows from the file here too."""
    files = sorted((DIGITS / "recordings").glob("5_george_*.wav"))[:5]
    if not files:
        pytest.skip(f"needs the spoken digits in {DIGITS} (SPOKEN_DIGITS)")
    code, said, _ = ask("model=efficientat", "weights=official", mn04, *files, "--json", "--top", "3")
    document = json.loads(said)
    assert code == 0
    assert document["model"]["name"] == "efficientat mn04"
    assert len(document["model"]["labels"]) == 527
    for answer in document["files"]:
        first = answer["top"][0]
        assert (first["class"], first["name"]) == ("/m/09x0r", "Speech")
        assert first["probability"] > 0.25
        assert len(answer["top"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_names_the_classes_of_its_files_head(name: str, ask, stroke: np.ndarray, tmp_path: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(list(audioset.names())).tolist()
    words = official(name, tmp_path / "file.pt", labels=dict(enumerate(shuffled)))
    sound = write(tmp_path / "a.wav", np.tile(stroke, 3))
    code, said, error = ask(*words, sound, "--json", "--top", "527")
    assert code == 0, error
    predictor = Predictor.untrained(words)
    expected = 1 / (1 + np.exp(-predictor.logits([predictor.read(str(sound))])[0].astype(np.float64)))
    identifiers = shuffled if name == "beats" else list(audioset.names())
    [answer] = json.loads(said)["files"]
    found = {item["class"]: item["probability"] for item in answer["top"]}
    assert np.abs(np.array([found[each] for each in identifiers]) - expected).max() < 1e-6
    assert answer["name"] == audioset.names()[answer["class"]]
    assert sum(found.values()) > 2  # several labels: each by itself


def test_unknown_file_is_said_to_be_unknown(ask, tmp_path: Path) -> None:
    code, said, _ = ask("--check", *official("efficientat", tmp_path / "file.pt"), "--top", "2")
    assert code == 0
    assert len([line for line in said.splitlines() if line.startswith(tuple(tag_check.SOUNDS))]) == 3
    assert "No answers are recorded for this file (SHA-256 " in said


def test_weights_that_are_no_numbers_are_one_message(ask, tmp_path: Path) -> None:
    words = official("efficientat", tmp_path / "file.pt")
    state = load_file(tmp_path / "file.pt")
    save_file(state | {"features.0.0.weight": state["features.0.0.weight"] * torch.nan}, tmp_path / "file.pt")
    code, _, error = ask("--check", *words)
    assert code == 1
    assert "file.pt: the model's answer is no finite number" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "labels", "says"),
    [
        ("beats", None, None, "has no head: model=beats hears nothing by name before it is trained"),
        ("beats", 527, None, "has a head, and does not say of which classes"),
        ("beats", 527, dict.fromkeys(range(527), "/m/none"), "has a head, and does not say of which classes"),
        ("efficientat", 50, None, "has a head, and does not say of which classes"),
    ],
)
def test_a_file_without_names_is_refused(
    name: str, classes: int | None, labels: dict[int, str] | None, says: str, ask, stroke: np.ndarray, tmp_path: Path
) -> None:
    words = official(name, tmp_path / "file.pt", classes, labels)
    for more in (["--check"], [write(tmp_path / "a.wav", stroke)]):
        code, said, error = ask(*words, *more)
        assert code == 1
        assert says in error
        assert "probability" not in said
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            ("model=efficientat", "weights=random", "a.wav"),
            2,
            "weights=random: random weights hear nothing by name before they are trained",
        ),
        (("--check", "model=ast"), 2, "weights=embedded: --check is for a published model; give weights=official"),
        (("model=beast", "weights=official", "a.wav"), 2, "Did you mean model=beats"),
        (("model=atc", "weights=official", "a.wav"), 2, "Did you mean model=ast or model=eat?"),
        (("model=ast,htsat", "weights=official", "a.wav"), 2, "model=ast,htsat: one model at a time"),
        (("model=ast", "weights=official", "model.checkpoint=no.pt", "a.wav"), 2, "no.pt: there is no such file"),
        (("a.wav",), 2, "a.wav is a file: name what is to hear it first, a run's folder or model=NAME"),
        (
            ("model=efficientat", "weights=official", "model.variant=mn4", "a.wav"),
            2,
            "did you mean mn40 or mn04? There are: official, tiny, mn01",
        ),
        (("model=ast", "weights=official"), 2, "name the audio files to listen to, or --check"),
        (("--check", "model=ast", "weights=official", "a.wav"), 2, "brings its own sounds: leave out a.wav"),
        (("--check", "some_run"), 2, "--check is for a published model"),
        (("--check", "model=ast", "--json"), 2, "--check knows no --json"),
        (("model=ast", "--metric", "val_acc", "a.wav"), 2, "--metric is for a run"),
        (("model=ast", "--checkpoint", "x", "a.wav"), 2, "file of weights is model.checkpoint=FILE"),
    ],
)
def test_wrong_words(
    words: tuple[str, ...], code: int, says: str, ask, stroke: np.ndarray, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", stroke)
    got, _, error = ask(*words)
    assert got == code
    assert says in error


def packed(path: Path, **facts: Any) -> tuple[AudioModel, list[str]]:
    """Write what sousa_bench.pretrain would have; the model that the file holds, and the words that ask for it."""
    made: AudioModel = build(composed(["model=efficientat", "weights=random", "seed=3"]).model, num_classes=3)
    state = halves(made)
    save_file(state, path, metadata=header({"model": "efficientat", "variant": "tiny", **facts}))
    apply_state(made.backbone, state, origin="the file")
    return made.eval(), ["model=efficientat", f"model.checkpoint={path}"]


@pytest.mark.parametrize("several", [False, True])
def test_a_packed_file_hears_the_classes_that_it_learnt(several: bool, ask, stroke: np.ndarray, tmp_path: Path) -> None:
    task = Task(("dog", "frog", "owl"), {"dog": "A dog"}, noun="animal", several=several)
    model, words = packed(tmp_path / "animals.safetensors", task=task.as_dict(), max_duration=0.5, quantum=0.25)
    sound = write(tmp_path / "a.wav", stroke)
    code, said, error = ask(*words, sound, "--json")
    assert code == 0, error
    document = json.loads(said)
    assert document["model"]["name"] == "efficientat tiny"
    assert document["model"]["labels"] == ["dog", "frog", "owl"]
    assert "Weights: embedded (animals.safetensors)." in document["model"]["about"]
    assert (document["model"]["max_duration"], document["files"][0]["windows"]) == (0.5, 3)
    predictor = replace(Predictor.untrained(words), model=model)
    starts = [0, 8000, 16000]
    clip = predictor.read(str(sound), 1.0)
    expected = predictor.probabilities([clip[start : start + 16000] for start in starts]).mean(0)
    found = {item["animal"]: item["probability"] for item in document["files"][0]["top"]}
    assert [found[name] for name in task.classes] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_packed_file_without_a_head_is_refused(ask, stroke: np.ndarray, tmp_path: Path) -> None:
    sound = write(tmp_path / "a.wav", stroke)
    for words, says in (
        (
            packed(tmp_path / "old.safetensors")[1],
            "old.safetensors has no head, so that model=efficientat hears",
        ),
        (["model=ced"], "trained: of the package's weights those of AST, BEATs, EfficientAT and HTS-AT have one"),
    ):
        code, _, error = ask(*words, sound)
        assert code == 1
        assert says in error


def test_a_file_of_another_width_is_refused(mn04: str, ask, stroke: np.ndarray, tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", stroke)
    code, _, error = ask("model=efficientat", "weights=official", mn04, "model.variant=mn10", file)
    assert code == 2
    assert "give model.variant=mn04" in error


def test_a_name_with_an_equals_sign_may_be_a_file(mn04: str, ask, stroke: np.ndarray, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.move(write(tmp_path / "a.wav", stroke), tmp_path / "model=x.wav")
    code, said, _ = ask("model=efficientat", "weights=official", mn04, "model=x.wav", "--json")
    assert code == 0
    assert [answer["file"] for answer in json.loads(said)["files"]] == ["model=x.wav"]


def test_rate_and_length_are_audiosets(mn04: str, ask, stroke: np.ndarray, tmp_path: Path) -> None:
    """Ten seconds are one window, as AudioSet's clips are; a longer recording gets a timeline."""
    files = [write(tmp_path / f"{seconds}.wav", np.tile(stroke, seconds), RATE) for seconds in (10, 25)]
    _, said, _ = ask("model=efficientat", "weights=official", mn04, *files, "--json")
    document = json.loads(said)
    assert document["model"]["sample_rate"] == 32000
    assert [answer["windows"] for answer in document["files"]] == [1, 4]
    assert document["files"][1]["timeline"][-1]["end"] == 25.0
