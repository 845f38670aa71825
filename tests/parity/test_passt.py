from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import reference
from .patching import WRONG_BLOCKS, patched

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("passt")


@pytest.fixture(scope="module")
def run(scratch: Callable[[str], Path], arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    """One forward pass of the golden clips with everything that it computed on the way."""
    path = scratch("passt-s-f128-p16-s10-ap.476-swa.pt")
    torch.save(reference.rebuild("passt"), path)
    model, seen = reference.model("passt", path), reference.Intermediates()
    assert model.variant == "official"
    backbone = model.backbone
    seen.watch("patch_embedding_conv", backbone.patches)
    seen.watch("embeddings_with_tokens_and_positions", backbone.positions)
    for index, layer in enumerate(backbone.layers):
        seen.watch(f"layer_{index:02d}", layer)
    seen.watch("final_norm", backbone.norm)
    features, mask = model.features(torch.from_numpy(arrays["waveform"]))
    tokens = backbone.encode(backbone.embed(features))
    values = reference.Intermediates(dict(seen.values))
    return SimpleNamespace(model=model, features=features, mask=mask, tokens=tokens, seen=values, live=seen)


def tiled(arrays: dict[str, np.ndarray], samples: str) -> Tensor:
    return torch.from_numpy(np.tile(arrays["waveform"], (1, 4))[:, : int(arrays[samples])])


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features.transpose(1, 2), arrays["features"], reference.FEATURES, "features")
    assert run.mask is None


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    run.seen.compare(arrays)
    for index, name in enumerate(("class_token", "distillation_token")):
        reference.assert_relative(run.tokens[:, index], arrays[name], reference.LOGITS, name)


def test_embedding_and_logits(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    embedding = run.model.backbone.embedding(run.features)
    reference.assert_relative(embedding, arrays["embedding"], reference.LOGITS, "embedding")
    logits = run.model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits")


def test_ten_seconds(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    features, _ = run.model.features(tiled(arrays, "long_samples"))
    embedding = run.model.backbone.embedding(features)
    seen = reference.Intermediates({"features": features.transpose(1, 2), **run.live.values})
    seen.compare(arrays, "long_")
    reference.assert_relative(embedding, arrays["long_embedding"], reference.LOGITS, "embedding")
    logits = run.model.backbone.classifier(embedding)
    reference.assert_relative(logits, arrays["long_logits"], reference.LOGITS, "logits")


def test_twelve_seconds_are_cut(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    embedding = run.model.backbone.embedding(*run.model.features(tiled(arrays, "over_samples")))
    reference.assert_relative(embedding, arrays["over_embedding"], reference.LOGITS, "embedding")
    logits = run.model.backbone.classifier(embedding)
    reference.assert_relative(logits, arrays["over_logits"], reference.LOGITS, "logits")


def test_windows_as_in_the_package(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """hear21passt takes the mean over windows of 10 s; the model here is what it takes it of."""
    waveform = F.pad(tiled(arrays, "over_samples")[:1], (160_000, 160_000), mode="reflect")
    windows = waveform.unfold(1, 320_000, 80_000)[0]
    outputs = [run.model(window[None]) for window in windows]
    logits = torch.cat(outputs).mean(0, keepdim=True)
    reference.assert_relative(logits, arrays["over_windows_logits"][:1], reference.LOGITS, "logits")


def test_right_constants_pass(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparison, nothing patched."""
    reference.assert_logits(run.model, run.features, arrays)


@pytest.mark.parametrize("wrong", WRONG_BLOCKS)
def test_wrong_constant_in_the_network_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray], wrong: str) -> None:
    objects, name, value = WRONG_BLOCKS[wrong](run.model.backbone)
    with patched(objects, name, value), pytest.raises(AssertionError, match="relative error"):
        reference.assert_logits(run.model, run.features, arrays)


def test_positions_from_the_tables_end_fail(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    positions = run.model.backbone.positions
    moved = nn.Parameter(positions.time.roll(39, -1))
    with patched([positions], "time", moved), pytest.raises(AssertionError, match="relative error"):
        reference.assert_logits(run.model, run.features, arrays)


def test_patchout_in_evaluation_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    positions = run.model.backbone.positions
    with (
        patched([positions], "patchout", {2: 1, 3: 0}),
        patched([positions], "training", True),
        pytest.raises(AssertionError, match="relative error"),
    ):
        reference.assert_logits(run.model, run.features, arrays)
