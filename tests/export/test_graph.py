"""What stands in the graph in place of what can't: the same numbers, and every model, length and batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from omegaconf import OmegaConf
from onnx import TensorProto, helper, numpy_helper

from sousa_bench.config import conf_folder
from sousa_bench.data.augmentation import FULL_SCALE
from sousa_bench.errors import UserError
from sousa_bench.export import verification as check
from sousa_bench.export.onnx_fourier import compute_kernels
from sousa_bench.export.onnx_frontends import fourier
from sousa_bench.export.onnx_graph import Grid, waveform_graph
from sousa_bench.export.onnx_network import FixedPositionBias, PaddedClips, convolved
from sousa_bench.models.beats_network import BeatsBackbone
from sousa_bench.peft import inject
from sousa_bench.peft.injection import finished
from tests.models.building import build

MODELS = ("ast", "htsat", "beats", "efficientat", "ced", "dasheng", "eat", "passt", "openbeats", "whisper")


def clip(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(check.noise_bursts(samples, 2, seed)).float() / FULL_SCALE


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_convolutions_give_the_features_of_fourier_transforms(name):
    model = build(name)
    waveform = torch.nn.functional.pad(clip(30_000), (0, 2_000))
    lengths = torch.full((2,), 30_000)
    features, mask = model.frontend(waveform, lengths)
    again, same = convolved(build(name).frontend)(waveform, lengths)
    assert (mask is None) == (same is None)
    assert mask is None or torch.equal(mask, same)
    # In decibels and logarithms, of powers that differ by many orders of magnitude
    assert float((again - features).abs().max()) < 2e-3
    assert float((again - features).abs().mean()) < 1e-5


@pytest.mark.parametrize("windowed", [True, False])
def test_a_window_times_sines_is_computed_and_other_kernels_are_kept(windowed, tmp_path: Path):
    frame = torch.hann_window(300).double().diag() + (0 if windowed else 0.01)
    kernels = (fourier(300, 512) @ frame).float()[:, None].numpy()
    name = "frontend.power.kernels"
    ends = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
        for key, shape in {"waveform": [1, 1, 900], "spectrum": [1, 514, 601]}.items()
    ]
    node = helper.make_node("Conv", ["waveform", name], ["spectrum"])
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], [numpy_helper.from_array(kernels, name)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    carried = len(model.SerializeToString())
    compute_kernels(model)
    assert (len(model.SerializeToString()) < 0.05 * carried) == windowed
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "graph.onnx")
    waveform = clip(900)[:1, None]
    given = check.open_session(tmp_path / "graph.onnx").run(None, {"waveform": waveform.numpy()})[0]
    wanted = torch.nn.functional.conv1d(waveform, torch.from_numpy(kernels)).numpy()
    np.testing.assert_allclose(given, wanted, atol=1e-5 * np.abs(wanted).max())


@torch.no_grad()
@pytest.mark.parametrize("columns", [1, 40, 100, 101, 102, 170])
def test_one_formula_for_clips_shorter_and_longer_than_asts_table(columns):
    model = build("ast")
    assert model.backbone.grid[1] == 101
    prepared = PaddedClips(model, 20 * 16_000).backbone
    torch.testing.assert_close(prepared.positions(columns), model.backbone.positions(columns), atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2, 37, 80])
def test_beats_position_bias_is_the_same_looked_up_beforehand(tokens):
    backbone = build("beats").backbone
    assert isinstance(backbone, BeatsBackbone)
    source = backbone.encoder.relative_attention_bias
    assert torch.equal(FixedPositionBias(source, 80)(tokens), source(tokens))


@pytest.mark.parametrize(("samples", "padded"), [(1, 8), (8, 8), (9, 16), (40, 40), (41, 40), (99, 40)])
def test_the_grid_is_the_runs(samples, padded):
    assert Grid(8, 38).padded(samples) == padded


@pytest.mark.parametrize("name", ["ced", "dasheng", "passt"])
def test_a_model_that_would_cut_its_clips_is_refused(name):
    model = build(name)
    PaddedClips(model, 10 * model.sample_rate)
    with pytest.raises(UserError, match=f"model={name} can't be .* for clips of 10.5 s: .* data.max_duration=10"):
        PaddedClips(model, round(10.5 * model.sample_rate))


VARIANTS = [
    ("ast", {}, 5.0),
    ("ast", {}, 13.3),
    ("htsat", {}, 5.0),
    ("htsat", {}, 12.0),
    ("htsat", {"length_mode": "repeat"}, 5.0),
    ("htsat", {"variant": "clap"}, 5.0),
    ("beats", {}, 5.0),
    ("efficientat", {}, 5.0),
    ("efficientat", {"variant": "mn10"}, 5.0),
    ("ced", {}, 5.0),
    ("dasheng", {}, 9.9),
    ("eat", {}, 13.3),
    ("passt", {}, 9.9),
    ("openbeats", {}, 5.0),
    ("hubert", {}, 5.0),
    ("wavlm", {}, 5.0),
    ("whisper", {}, 5.0),
]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("name", "changes", "longest"), VARIANTS)
def test_every_model_at_many_lengths_and_batches(name, changes, longest, tmp_path: Path):
    assert_graph_gives_the_models_logits(build(name, **changes), longest, tmp_path)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "method", "own"),
    [
        ("eat", "convpass", {}),
        ("wavlm", "prompt", {"depth": "shallow"}),
        ("beats", "prefix", {}),
        ("eat", "prefix", {}),
        ("passt", "prefix", {}),
    ],
)
def test_modules_that_stay_in_a_network_of_free_length(name, method, own, tmp_path: Path):
    model = build(name)
    inject(model, OmegaConf.merge(OmegaConf.load(conf_folder() / "peft" / f"{method}.yaml"), own), 10)
    for name, parameter in model.backbone.named_parameters():
        if ".added_modules." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.backbone, added = finished(model.backbone)
    assert added is not None
    assert_graph_gives_the_models_logits(model, 5.0, tmp_path)


def assert_graph_gives_the_models_logits(model, longest: float, tmp_path: Path) -> None:
    model = model.eval()
    rate = model.sample_rate
    grid = Grid(rate // 2, round(longest * rate))
    (tmp_path / "model.onnx").write_bytes(waveform_graph(model, grid, {}).SerializeToString())
    session = check.open_session(tmp_path / "model.onnx")
    for seed, seconds in enumerate((0.1, 0.49, 0.5, 0.51, 1.0, 2.37, 4.99, 5.0, 5.6, 9.9, 11.0, 14.0)):
        clips = check.noise_bursts(round(seconds * rate), 1 + seed % 3, seed)
        kept = torch.from_numpy(clips[:, : grid.most]).float() / FULL_SCALE
        lengths = torch.full((len(kept),), kept.shape[1])
        padded = torch.nn.functional.pad(kept, (0, grid.padded(kept.shape[1]) - kept.shape[1]))
        np.testing.assert_allclose(check.logits(session, clips), model(padded, lengths).numpy(), atol=1e-4)
