"""A package gives the run's own predictions, says what it is, and appears whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile as sf
import torch
from safetensors.numpy import load_file

from sousa_bench.analysis.stats.intervals import accuracy_interval
from sousa_bench.errors import UserError
from sousa_bench.export import __main__ as command
from sousa_bench.export import verification as check
from sousa_bench.export.description import model_card
from sousa_bench.inference.predictor import Predictor
from tests.export.conftest import Finished

pytestmark = pytest.mark.slow


def finished_result(finished: Finished) -> dict:
    return json.loads((finished.folder / "result.json").read_text())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def assert_same_predictions(package: Path, finished: Finished) -> None:
    """Under onnxruntime every test clip has the run's label, and its probabilities to 1e-4."""
    session = check.open_session(package / "model.onnx")
    wanted = finished.predictions()
    clips = finished.test_clips()
    assert len(clips) == len(wanted) > 5
    logits = np.concatenate([check.logits(session, clip[None]) for clip in clips])
    assert logits.argmax(axis=1).tolist() == wanted["predicted"].tolist()
    assert np.abs(softmax(logits) - softmax(np.stack(wanted["logits"].tolist()))).max() <= 1e-4


def test_onnxruntime_gives_the_runs_own_test_predictions(package, finished):
    assert_same_predictions(package, finished)


def test_the_merged_weights_are_plain_and_give_the_runs_logits(package, finished):
    names = set(load_file(package / "model.safetensors"))
    assert "backbone.classifier.5.weight" in names
    assert not [name for name in names if re.search("lora|base_layer|base_model|modules_to_save", name)]
    clips = finished.test_clips()[:4]
    own, merged = Predictor.open(finished.folder), Predictor.open(package)
    assert merged.labels == own.labels
    assert (merged.quantum, merged.max_duration) == (own.quantum, own.max_duration)
    np.testing.assert_allclose(merged.logits(clips), own.logits(clips), atol=1e-5)


def test_the_graph_takes_any_batch_and_length_and_hides_no_path(package):
    graph = onnx.load(package / "model.onnx")
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input}
    assert shapes == {"waveform": ["batch", "samples"]}
    assert [entry.version for entry in graph.opset_import] == [18]
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said["sample_rate"] == "32000"
    assert len(said["labels"].splitlines()) == 40
    assert b"site-packages" not in graph.SerializeToString()
    assert b"sousa_bench/models" not in graph.SerializeToString()


def test_the_config_says_what_a_user_must_know(package, finished):
    facts = json.loads((package / "config.json").read_text())
    table = finished.predictions()
    assert facts["sousa_bench_package"] == 1
    assert facts["preprocessing"]["sample_rate"] == 32000
    assert facts["metrics"]["test_acc"] == pytest.approx((table["predicted"] == table["label"]).mean())
    assert facts["metrics"]["test_clips"] == len(table)
    assert facts["metrics"]["test_players"] == table["player"].nunique()
    right = (table["predicted"] == table["label"]).groupby(table["player"]).sum().to_numpy(float)
    found = accuracy_interval(right[None], table.groupby("player").size().to_numpy(float))
    assert facts["metrics"]["test_acc_interval"] == pytest.approx([found.low[0], found.high[0]], abs=1e-6)
    assert facts["onnx"]["opset"] == 18
    assert 0 < facts["onnx"]["check"]["onnx_error"] < 1e-4
    assert facts["base_weights"]["kind"] == "embedded"
    assert facts["confidence"] == finished_result(finished)["confidence"]
    low, high = facts["metrics"]["test_acc_interval"]
    assert facts["about"] == (
        "Base weights: embedded (efficientat.safetensors). "
        f"Test accuracy {100 * facts['metrics']['test_acc']:.1f} % (95 % interval {100 * low:.1f} % to "
        f"{100 * high:.1f} %), {len(table)} clips of {table['player'].nunique()} players."
    )
    assert facts["command"].startswith("python -m sousa_bench.export ")
    assert facts["model"]["variant"] == "tiny"
    assert list(facts["model"]["variants"]) == ["tiny"]


def test_the_cards_example_runs_as_it_stands(package, tmp_path):
    card = (package / "README.md").read_text()
    facts = json.loads((package / "config.json").read_text())
    for part in (
        facts["command"],
        "of 10 players",
        "Licence of the base weights: MIT",
        "weights=embedded are small networks",
        facts["about"],
        facts["confidence_text"],
        f"expected calibration error on the test split is {facts['metrics']['test_ece']:.3f}; with the logits divided",
        "## Limits",
    ):
        assert part in card
    low, high = facts["metrics"]["test_acc_interval"]
    assert f"| Accuracy | {facts['metrics']['test_acc']:.4f} | {low:.4f} to {high:.4f} |" in card
    example = re.search(r"```python\n(.*?)```", card, re.S)[1]
    folder = shutil.copytree(package, tmp_path / "elsewhere")
    clip = check.noise_bursts(40_000, 2, seed=3)
    sf.write(folder / "clip.wav", clip.T, 32_000, subtype="PCM_16")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=100, check=True
    )
    mono = np.rint((clip[0].astype(np.float32) + clip[1]) / 2).astype(np.int16)
    predictor = Predictor.open(package)
    chances = predictor.probabilities([mono])[0]
    best = [(f"{chances[i]:.4f}", predictor.labels[i]) for i in np.argsort(-chances)[:5]]
    assert [tuple(line.split()) for line in done.stdout.splitlines()] == best


def test_a_failed_check_leaves_nothing(finished, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sousa_bench.export.package.waveform_graph", lambda *_: onnx.load(package / "model.onnx"))
    monkeypatch.setattr(check, "logits", lambda session, clips: np.full((len(clips), 40), np.nan))
    assert command.main([str(finished.folder), str(tmp_path / "new")]) == 1
    assert "no package was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_a_package_and_a_failure_keeps_the_old_one(finished, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sousa_bench.export.package.waveform_graph", lambda *_: onnx.load(package / "model.onnx"))
    old = shutil.copytree(package, tmp_path / "old")
    (old / "mine.txt").write_text("mine")
    assert command.main([str(finished.folder), str(old)]) == 1
    assert "--force" in capsys.readouterr().err
    with monkeypatch.context() as broken:
        broken.setattr("sousa_bench.export.package.model_card", lambda facts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command.main([str(finished.folder), str(old), "--force"])
    assert (old / "mine.txt").exists()
    assert command.main([str(finished.folder), str(old), "--force"]) == 0
    assert sorted(path.name for path in old.iterdir()) == [
        "README.md",
        "config.json",
        "model.onnx",
        "model.safetensors",
        "predict.py",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_place_that_cannot_be_written_is_one_message(finished, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main([str(finished.folder), str(tmp_path / "file" / "package")]) == 1
    assert "can't be written" in capsys.readouterr().err


def test_a_model_that_no_graph_can_hold_is_one_message(finished, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("a size depends on the data\nand more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert command.main([str(finished.folder), str(tmp_path / "new")]) == 1
    said = capsys.readouterr().err
    assert said == "error: model=efficientat can't be written as an ONNX graph: a size depends on the data\n"
    assert list(tmp_path.iterdir()) == []


def test_never_replaces_what_is_no_package(finished, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    assert command.main([str(finished.folder), str(tmp_path / "thesis"), "--force"]) == 1
    assert "is no package" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years"


@pytest.mark.parametrize(
    ("place", "message"), [("nothing", "there is no such folder"), ("package", "is a package already")]
)
def test_what_is_no_run_is_one_message(place, message, package, tmp_path, capsys):
    assert command.main([str(package if place == "package" else tmp_path / place), str(tmp_path / "new")]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_extra_names_the_command(monkeypatch, capsys, tmp_path):
    real = command.importlib.util.find_spec
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    assert command.main([str(tmp_path), str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err == "error: export needs onnxscript: pip install 'sousa-bench[export]'\n"


@pytest.mark.parametrize(
    "change",
    [
        {"_target_": "os.system"},
        {"_target_": "sousa_bench.models.ast.build.__globals__.x"},
        {"variants": {"tiny": {"_target_": "os.getcwd"}}},
        {"targets": {"groups": [{"_target_": "os.getcwd"}]}},
        {"targets": "${oc.create:'{\"_targ\\x65t_\": os.getcwd}'}"},
        {"name": "${oc.env:HOME}"},
        {"_target_": "my_model.build"},
    ],
)
def test_a_foreign_package_can_call_nothing_but_our_models(package, tmp_path, change):
    folder = shutil.copytree(package, tmp_path / "foreign")
    facts = json.loads((folder / "config.json").read_text())
    facts["model"] |= change
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"must name a model of sousa_bench|must be plain values|can't build"):
        Predictor.open(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"_target_": "os.makedirs", "name": "HERE", "exist_ok": True},
        {"_target_": "torch.hub.load"},
        {"targets": {"groups": [{"_target_": "os.makedirs", "name": "HERE"}]}},
        {"targets": "${oc.create:'{\"_targ\\x65t_\": os.makedirs, name: HERE}'}"},
    ],
)
def test_a_foreign_runs_folder_can_call_nothing_but_models(finished, tmp_path, change):
    folder = shutil.copytree(finished.folder, tmp_path / "foreign")
    file = folder / "adapter" / "sousa.json"
    content = json.loads(file.read_text())
    content["model"] |= json.loads(json.dumps(change).replace("HERE", str(tmp_path / "called")))
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is no function that says|must be plain values"):
        Predictor.open(folder)
    assert not (tmp_path / "called").exists()


def test_a_description_that_does_not_say_which_weights_is_one_message(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "foreign")
    file = folder / "adapter" / "sousa.json"
    content = json.loads(file.read_text())
    del content["weights"]["license"]
    file.write_text(json.dumps(content))
    Predictor.open(folder)
    del content["weights"]["origin"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"weights\.origin"):
        Predictor.open(folder)


def test_help_imports_nothing_heavy():
    code = "import sys; from sousa_bench.export.__main__ import parser; parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "torch" not in done.stdout.split()


@pytest.mark.parametrize("test", [None, [], {"confident": 3}, {"confident": "3", "answers": 4, "precision": 1}])
def test_a_card_says_nothing_of_confident_answers_that_a_foreign_result_does_not_count(package, test):
    facts = json.loads((package / "config.json").read_text())
    for block, told in ((test, False), ({"confident": 3, "answers": 4, "precision": 0.5}, True)):
        facts["confidence"] = {"threshold": 0.5, "target": 0.9, "test": block}
        card = model_card(facts)
        assert facts["confidence_text"] in card
        assert ("On the test split 3 of 4 answers are confident, 50.0 % of them right." in card) is told


@pytest.mark.parametrize("odd", [[{"x": 1}], "many", 3])
def test_a_card_bears_counts_of_a_foreign_result(package, odd):
    facts = json.loads((package / "config.json").read_text())
    groups = facts["task"].get("groups", "players")
    assert "| train |" in model_card(facts)
    assert "| train |" in model_card({**facts, "data": {**facts["data"], groups: odd}})
    assert "| train |" not in model_card({**facts, "data": {**facts["data"], "counts": odd}})


def test_the_documentation_shows_the_cards_example():
    root = Path(__file__).resolve().parents[2]
    card = (root / "sousa_bench" / "export" / "model_card.md").read_text()
    card = re.sub(r"{% if asked.several %}\n.*?{% else %}\n(.*?){% endif %}\n", r"\1", card, flags=re.S)
    assert re.search(r"```python\n.*?```", card, re.S)[0] in (root / "docs" / "export.md").read_text()


def test_a_card_names_the_teacher_of_a_student(package):
    facts = json.loads((package / "config.json").read_text())
    assert "teacher" not in model_card(facts)
    lineage = {"teacher": {"experiment_id": "ast_lora", "fingerprint": "f00"}}
    card = model_card({**facts, "run": {**facts["run"], "lineage": lineage}})
    assert "- Learnt the answers of the teacher `ast_lora` (fingerprint `f00`)" in card
