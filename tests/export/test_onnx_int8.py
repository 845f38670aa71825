"""int8 weights: a smaller graph; what it costs on the run's test clips is measured, said, and refused above a point."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import soundfile as sf
import torch
from onnx import TensorProto, helper, numpy_helper

from sousa_bench.data.datamodule import Pieces
from sousa_bench.export import __main__ as command
from sousa_bench.export import onnx_int8
from sousa_bench.export import verification as check
from sousa_bench.export.onnx_int8 import CheckError, compare, int8_weights
from sousa_bench.task import Task


@pytest.fixture
def no_new_graph(package, monkeypatch):
    """The graph of the fixture's package, instead of half a minute in torch's exporter."""
    monkeypatch.setattr("sousa_bench.export.package.waveform_graph", lambda *_: onnx.load(package / "model.onnx"))


def spoilt(graph: onnx.ModelProto) -> onnx.ModelProto:
    """int8 weights as wrong as can be: those of the last layer have the other sign."""
    made = int8_weights(graph)
    last = [node for node in made.graph.node if node.op_type == "DequantizeLinear"][-1].input[0]
    [tensor] = [each for each in made.graph.initializer if each.name == last]
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), last))
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("no_new_graph")
def test_a_package_with_int8_weights_says_what_they_cost_and_answers_by_them(
    finished, package, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(onnx_int8, "MOST_LOSS", 10.0)  # of 20 clips one is five points
    folder = tmp_path / "small"
    assert command.main([str(finished.folder), str(folder), "--int8"]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in package.iterdir())

    said = json.loads((folder / "config.json").read_text())["onnx"]["int8"]
    exact, rough = (check.open_session(place / "model.onnx") for place in (package, folder))
    clips, labels = finished.test_clips(), finished.predictions()["label"].to_numpy()
    before, after = (np.concatenate([check.logits(graph, clip[None]) for clip in clips]) for graph in (exact, rough))
    assert said["clips"] == len(clips)
    assert said["float32"] == pytest.approx((before.argmax(1) == labels).mean())
    assert said["int8"] == pytest.approx((after.argmax(1) == labels).mean())
    assert said["points_lost"] == pytest.approx(100 * (said["float32"] - said["int8"]), abs=1e-3)
    assert said["same_answers"] == pytest.approx((before.argmax(1) == after.argmax(1)).mean())
    assert 0 < np.abs(before - after).max() < 1
    assert said["bytes"] == (folder / "model.onnx").stat().st_size
    assert said["float32_bytes"] == (package / "model.onnx").stat().st_size
    assert said["bytes"] < 0.55 * said["float32_bytes"]

    card = (folder / "README.md").read_text()
    assert f"On {len(clips)} clips of the test split it loses {said['points_lost']:.2f} points of accuracy" in card
    assert "int8" not in (package / "README.md").read_text()

    kinds = {each.name: each.data_type for each in onnx.load(folder / "model.onnx").graph.initializer}
    weights = [name for name, kind in kinds.items() if kind == TensorProto.INT8]
    assert len(weights) > 20
    assert kinds["backbone.features.1.block.depthwise.0.weight"] == TensorProto.FLOAT
    assert {kind for name, kind in kinds.items() if name.startswith("frontend.")} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }

    sf.write(tmp_path / "clip.wav", clips[0], 32_000, subtype="PCM_16")
    done = subprocess.run(
        [sys.executable, folder / "predict.py", "--json", tmp_path / "clip.wav"], capture_output=True, text=True,
        timeout=100, check=True,
    )  # fmt: skip
    best = json.loads(done.stdout)["files"][0]["probability"]
    powers = np.exp(after[0] - after[0].max())
    assert best == pytest.approx((powers / powers.sum()).max(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("no_new_graph")
def test_weights_that_cost_more_than_a_point_are_refused_with_the_loss_and_the_way_out(
    finished, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sousa_bench.export.package.int8_weights", spoilt)
    assert command.main([str(finished.folder), str(tmp_path / "new"), "--int8"]) == 1
    [message] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    [lost] = [float(word) for word, unit in zip(message.split(), message.split()[1:], strict=False) if unit == "points"]
    assert 1 < lost <= 100
    assert "and 1 may be lost; no package was written: export without --int8" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_clips_that_are_gone_are_one_message_before_any_work(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sousa_bench.export.package.waveform_graph", lambda *_: pytest.fail("the work has begun"))
    run = shutil.copytree(finished.folder, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["resolved_config"]["data"] |= {"root": str(tmp_path / "gone"), "synthetic": None}
    (run / "result.json").write_text(json.dumps(result))
    assert command.main([str(run), str(tmp_path / "new"), "--int8"]) == 1
    error = capsys.readouterr().err
    assert "--int8 is checked on the run's own test clips" in error
    assert str(tmp_path / "gone") in error
    assert "export without --int8" in error
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_clips_that_are_others_today_are_refused(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sousa_bench.export.package.waveform_graph", lambda *_: pytest.fail("the work has begun"))
    run = shutil.copytree(finished.folder, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["resolved_config"]["data"]["synthetic"]["seed"] = 5
    (run / "result.json").write_text(json.dumps(result))
    assert command.main([str(run), str(tmp_path / "new"), "--int8"]) == 1
    assert "or their labels, are others today. Bring them back, or export without --int8" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


class FewClips(SimpleNamespace):
    """Clips, from what is given of them."""

    def __len__(self) -> int:
        return len(self.labels)


def graph_of(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """(batch, samples) float32 ``waveform`` → ``logits``."""
    names = {"waveform": ["batch", "samples"], "logits": ["batch", "classes"]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()]
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_each_output_channel_has_a_scale_of_its_own_and_is_off_by_half_a_step_at_most():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((4, 5)).astype(np.float32) * np.array([1e-3, 1, 50, 1, 0], np.float32)
    head = rng.standard_normal((3, 5)).astype(np.float32) * np.array([[1e-2], [1], [7]], np.float32)
    model = graph_of(
        helper.make_node("MatMul", ["waveform", "table"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "head", "bias"], ["logits"], transB=1),
        table=table, head=head, bias=np.ones(3, np.float32),
    )  # fmt: skip
    made = int8_weights(model)
    found = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    assert sorted(found) == ["bias", "head.int8", "head.scale", "table.int8", "table.scale"]
    for name, weight, axis in (("table", table, 0), ("head", head, 1)):
        step = np.abs(weight).max(axis=axis, keepdims=True) / 127
        assert found[f"{name}.int8"].dtype == np.int8
        restored = found[f"{name}.int8"] * found[f"{name}.scale"].reshape(step.shape)
        assert (np.abs(restored - weight) <= 0.5001 * step).all()
    assert [each.name for each in model.graph.initializer] == ["table", "head", "bias"]  # a copy was changed


def test_of_several_labels_a_clip_mean_average_precision_counts_and_all_of_its_labels(tmp_path: Path):
    """Exact graph: logits are the samples. Rounded: the sign of the last class is turned."""
    for name, sign in (("exact", 1), ("rounded", -1)):
        weight = np.diag([1, 1, sign]).astype(np.float32)
        onnx.save(
            graph_of(helper.make_node("MatMul", ["waveform", "w"], ["logits"]), w=weight), tmp_path / f"{name}.onnx"
        )
    samples = np.array([[1, -1, 8], [-1, 1, 6], [1, 1, -4], [1, -1, -6]], np.int16)
    task = Task(classes=("a", "b", "c"), several=True, noun="sound")
    labels = torch.from_numpy((samples > 0).astype(np.int64))
    pieces = Pieces(np.arange(4), np.zeros(4, int), np.full(4, 3))
    clips = FewClips(task=task, labels=labels, heard=lambda piece: samples[piece], pieces=pieces)
    with pytest.raises(CheckError, match=r"cost 19\.44 points of mean average precision on 4 clips"):
        compare(tmp_path / "exact.onnx", tmp_path / "rounded.onnx", clips, "run")
    said = compare(tmp_path / "exact.onnx", tmp_path / "exact.onnx", clips, "run")
    assert (said["metric"], said["points_lost"], said["same_answers"]) == ("test_map", 0.0, 1.0)
