import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from sousa_bench.models import fbank

from . import reference
from .patching import WRONG_BLOCKS, patched

pytestmark = [pytest.mark.parity, pytest.mark.slow]
POSITIONS = 1e-4  # Largest absolute difference of a position, float32 against float64


def table(key: str, shape: tuple[int, ...]) -> Tensor:
    """The positions as ``config.json`` says; written apart from the code under test."""
    assert key.endswith("positions")
    quarter = shape[2] // 4
    rate = 10000.0 ** (-np.arange(quarter) / quarter)
    time, frequency = np.divmod(np.arange(shape[1]), 8)
    angles = [place[:, None] * rate for place in (frequency, time)]
    values = np.concatenate([part(angle) for angle in angles for part in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(values.astype(np.float32))[None]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("eat")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return reference.rebuild("eat", table)


@pytest.fixture(scope="module")
def run(scratch: Callable[[str], Path], state: dict[str, Tensor], arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    """One forward pass of the golden clips with everything that it computed on the way."""
    path = scratch("model.safetensors")
    save_file(state, path)
    model, seen = reference.model("eat", path), reference.Intermediates()
    assert model.variant == "official"
    backbone = model.backbone
    seen.watch("patch_embedding", backbone.patches, time_major)
    seen.watch("embeddings_with_token_and_positions", backbone.positions)
    seen.watch("pre_norm", backbone.pre_norm)
    for index, layer in enumerate(backbone.layers):
        seen.watch(f"layer_{index:02d}", layer)
    features, mask = model.features(torch.from_numpy(arrays["waveform"]))
    tokens = backbone.encode(backbone.embed(features))
    values = reference.Intermediates(dict(seen.values))
    return SimpleNamespace(model=model, features=features, mask=mask, tokens=tokens, seen=values, live=seen)


def time_major(grid: Tensor) -> Tensor:
    return grid.permute(0, 3, 2, 1).flatten(1, 2)


def tiled(arrays: dict[str, np.ndarray], samples: str) -> Tensor:
    return torch.from_numpy(np.tile(arrays["waveform"], (1, 4))[:, : int(arrays[samples])])


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features, arrays["features"], reference.FEATURES, "features")
    assert run.mask is None


def test_positions(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    own = run.model.backbone.positions.table(768).flatten(0, 1)[torch.from_numpy(arrays["positions_index"])]
    reference.assert_close(own, arrays["positions_rows"], POSITIONS, "positions")


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    run.seen.compare(arrays)
    chosen = run.tokens[:, torch.from_numpy(arrays["last_hidden_token_index"])]
    reference.assert_relative(chosen, arrays["last_hidden_tokens"], reference.LOGITS, "last hidden tokens")


def test_embeddings_and_logits(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    backbone, embedding = run.model.backbone, run.tokens[:, 0]
    reference.assert_relative(embedding, arrays["embedding"], reference.LOGITS, "embedding")
    reference.assert_relative(run.tokens[:, 1:].mean(1), arrays["embedding_mean"], reference.LOGITS, "mean")
    normed = backbone.classifier.layernorm(embedding)
    reference.assert_relative(normed, arrays["class_token_after_fc_norm"], reference.LOGITS, "fc_norm")
    logits = run.model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits")


def test_clips_filled_to_whole_patches_only(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The path of training: with lengths, and rows that the clips fill."""
    waveform = torch.from_numpy(arrays["waveform"])
    features, _ = run.model.features(waveform, torch.full((len(waveform),), waveform.shape[1]))
    assert features.shape[1] == arrays["unpadded_frames"]
    backbone = run.model.backbone
    reference.assert_relative(backbone.embedding(features), arrays["unpadded_embedding"], reference.LOGITS, "embedding")
    reference.assert_relative(backbone(features), arrays["unpadded_logits"], reference.LOGITS, "logits")


def test_ten_seconds(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    features, _ = run.model.features(tiled(arrays, "long_samples"))
    embedding = run.model.backbone.embedding(features)
    seen = reference.Intermediates({"features": features, **run.live.values})
    seen.compare(arrays, "long_")
    reference.assert_relative(embedding, arrays["long_embedding"], reference.LOGITS, "embedding")
    logits = run.model.backbone.classifier(embedding)
    reference.assert_relative(logits, arrays["long_logits"], reference.LOGITS, "logits")


def test_twelve_seconds_are_cut(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    embedding = run.model.backbone.embedding(*run.model.features(tiled(arrays, "over_samples")))
    reference.assert_relative(embedding, arrays["over_embedding"], reference.LOGITS, "embedding")
    logits = run.model.backbone.classifier(embedding)
    reference.assert_relative(logits, arrays["over_logits"], reference.LOGITS, "logits")


def test_pretrained_and_fairseq_files_give_the_same(
    scratch: Callable[[str], Path], state: dict[str, Tensor], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    """The hub's file without a head, and the authors' own with fairseq's names around it."""
    pretrained, path = {k: v for k, v in state.items() if "head" not in k and "fc_norm" not in k}, scratch("a")
    save_file(pretrained, path)
    model = reference.model("eat", path, num_classes=40)
    reference.assert_relative(model.backbone.embedding(run.features), arrays["embedding"], reference.LOGITS, "hub")
    inside = {"local_encoder.": "local_encoder.", "extra_tokens": "extra_tokens", "pre_norm.": "context_encoder.norm."}
    inside["fixed_positional_encoder."] = "fixed_positional_encoder."
    fairseq = {}
    for key, value in state.items():
        bare = key.removeprefix("model.")
        name = next(
            (
                f"modality_encoders.IMAGE.{new}{bare.removeprefix(old)}"
                for old, new in inside.items()
                if bare.startswith(old)
            ),
            bare,
        )
        fairseq[name if bare.startswith(("fc_norm", "head")) else f"model.{name}"] = value
    fairseq["model.modality_encoders.IMAGE.decoder.proj.weight"] = torch.zeros(1)
    path = scratch("EAT-base_epoch30_ft.pt")
    torch.save({"cfg": {"task": {}}, "model": fairseq}, path)
    logits = reference.model("eat", path).backbone(run.features)
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits of the .pt")


def test_right_constants_pass(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparison, nothing patched."""
    reference.assert_logits(run.model, run.features, arrays)


@pytest.mark.parametrize("wrong", WRONG_BLOCKS)
def test_wrong_constant_in_the_network_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray], wrong: str) -> None:
    objects, name, value = WRONG_BLOCKS[wrong](run.model.backbone)
    with patched(objects, name, value), pytest.raises(AssertionError, match="relative error"):
        reference.assert_logits(run.model, run.features, arrays)


def test_time_before_frequency_in_the_positions_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    positions = run.model.backbone.positions
    table = positions.table
    with (
        patched([positions], "table", lambda columns: table(columns).roll(384, -1)),
        pytest.raises(AssertionError, match="relative error"),
    ):
        reference.assert_logits(run.model, run.features, arrays)


def slaney_bank() -> Tensor:
    """Triangles of one area; Kaldi's have one height."""
    with warnings.catch_warnings(action="ignore"):  # At 512 points some of them are empty.
        return melscale_fbanks(257, 20.0, 8000.0, 128, 16000, norm="slaney")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("", "mean", -6.0),
        ("", "divisor", 4.569),
        ("fbank", "window", fbank.window("povey", 400)),
        ("fbank", "window", torch.hann_window(400, periodic=True)),
        ("fbank", "bank", slaney_bank()),
        ("fbank", "scale", 32768.0),
    ],
    ids=["mean", "one deviation", "povey", "periodic Hann", "mel norm", "factor 32768"],
)
def test_wrong_constant_in_the_frontend_fails(
    run: SimpleNamespace, arrays: dict[str, np.ndarray], where: str, name: str, value: object
) -> None:
    with patched([run.model.frontend.get_submodule(where)], name, value):
        features, _ = run.model.features(torch.from_numpy(arrays["waveform"]))
    with pytest.raises(AssertionError, match="largest difference"):
        reference.assert_close(features, arrays["features"], reference.FEATURES, "features")


def test_padding_after_normalising_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """As if silence came after normalising: 0 in place of 0.467."""
    features = F.pad(run.features[:, :398], (0, 0, 0, 1024 - 398))
    with pytest.raises(AssertionError, match="largest difference"):
        reference.assert_close(features, arrays["features"], reference.FEATURES, "features")
