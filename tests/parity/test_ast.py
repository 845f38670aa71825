from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from sousa_bench.models import fbank
from sousa_bench.models.base import AudioModel

from . import reference

pytestmark = [pytest.mark.parity, pytest.mark.slow]


def official_state() -> dict[str, Tensor]:
    return reference.rebuild("ast")


def original_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values under the keys of the authors' .pth."""
    original = {}
    for entry in reference.table("ast", "keys_original.json")["keys"]:
        source = entry["same_as"]
        if source == "unused":
            original[entry["key"]] = torch.randn(entry["shape"])
        elif source.startswith("rows "):
            query = source.split(";")[0].split()[-1]
            original[entry["key"]] = torch.cat(
                [state[query.replace("query", part)] for part in ("query", "key", "value")]
            )
        else:
            original[entry["key"]] = state[source].clone()
        assert list(original[entry["key"]].shape) == entry["shape"], entry["key"]
    return original


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("ast")


@pytest.fixture(scope="module")
def model(scratch: Callable[[str], Path]) -> AudioModel:
    path = scratch("model.safetensors")
    save_file(official_state(), path)
    return reference.model("ast", path)


@pytest.fixture(scope="module")
def run(model: AudioModel, arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    """One forward pass of the golden clips with everything that it computed on the way."""
    backbone, seen = model.backbone, reference.Intermediates()
    seen.watch("patch_embeddings", backbone.trunk.embeddings.patch_embeddings)
    for index, layer in enumerate(backbone.trunk.layers):
        seen.watch(f"layer_{index:02d}", layer)
    seen.watch("last_hidden_state", backbone.trunk.layernorm)
    features, mask = model.features(torch.from_numpy(arrays["waveform"]))
    seen.values["embeddings_with_tokens_and_positions"] = backbone.embed(features)
    tokens = backbone.encode(features)
    pooled = (tokens[:, 0] + tokens[:, 1]) / 2
    return SimpleNamespace(features=features, mask=mask, tokens=tokens, pooled=pooled, seen=seen)


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features, arrays["features"], reference.FEATURES, "features")
    assert run.mask is None


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    run.seen.compare(arrays)
    chosen = run.tokens[:, torch.from_numpy(arrays["last_hidden_token_index"])]
    reference.assert_relative(chosen, arrays["last_hidden_tokens"], reference.LOGITS, "last hidden tokens")


def test_embedding_and_logits(model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_relative(run.pooled, arrays["embedding"], reference.LOGITS, "embedding")
    logits = model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits")


def test_original_file_gives_the_same(
    scratch: Callable[[str], Path], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    path = scratch("audioset_10_10_0.4593.pth")
    torch.save(original_state(official_state()), path)
    logits = reference.model("ast", path).backbone(run.features)
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits of the .pth")


@pytest.fixture
def one_clip(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    return SimpleNamespace(features=run.features[:1], logits=arrays["logits"][:1])


@pytest.fixture
def blocks(model: AudioModel) -> nn.ModuleList:
    return model.backbone.trunk.layers


def test_right_constants_pass(model: AudioModel, one_clip: SimpleNamespace) -> None:
    """The yardstick of the tests below: the same comparison, nothing patched."""
    reference.assert_relative(model.backbone(one_clip.features), one_clip.logits, reference.LOGITS, "logits")


def test_tanh_gelu_fails(
    model: AudioModel, blocks: nn.ModuleList, one_clip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in blocks:
        monkeypatch.setattr(block.mlp, "activation_fn", nn.GELU(approximate="tanh"))
    with pytest.raises(AssertionError, match="relative error"):
        reference.assert_relative(model.backbone(one_clip.features), one_clip.logits, reference.LOGITS, "logits")


def test_attention_scale_fails(
    model: AudioModel, blocks: nn.ModuleList, one_clip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in blocks:
        monkeypatch.setattr(block.attention, "scaling", 1.1 * block.attention.scaling)
    with pytest.raises(AssertionError, match="relative error"):
        reference.assert_relative(model.backbone(one_clip.features), one_clip.logits, reference.LOGITS, "logits")


def _features_fail(model: AudioModel, arrays: dict[str, np.ndarray]) -> None:
    features, _ = model.features(torch.from_numpy(arrays["waveform"]))
    with pytest.raises(AssertionError, match="largest difference"):
        reference.assert_close(features, arrays["features"], reference.FEATURES, "features")


def test_periodic_hann_fails(model: AudioModel, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.frontend.fbank, "window", torch.hann_window(400, periodic=True))
    _features_fail(model, arrays)


def test_povey_window_fails(model: AudioModel, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.frontend.fbank, "window", fbank.window("povey", 400))
    _features_fail(model, arrays)


def test_htk_mel_bank_fails(model: AudioModel, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """HTK's triangles are straight in Hz, Kaldi's in mel."""
    bank = melscale_fbanks(257, 20.0, 8000.0, 128, 16000, norm=None, mel_scale="htk")
    monkeypatch.setattr(model.frontend.fbank, "bank", bank)
    _features_fail(model, arrays)


def test_one_deviation_instead_of_two_fails(
    model: AudioModel, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.frontend, "divisor", model.frontend.divisor / 2)
    _features_fail(model, arrays)


def test_loads_what_transformers_saves(scratch: Callable[[str], Path], run: SimpleNamespace) -> None:
    """save_pretrained writes the hub's container: its file goes through our loader to its own logits."""
    torch.manual_seed(0)
    config = transformers.ASTConfig(hidden_size=96, num_hidden_layers=2, intermediate_size=384, num_labels=527)
    theirs = transformers.ASTForAudioClassification(config).eval()
    path = scratch("model.safetensors")
    theirs.save_pretrained(path.parent)
    ours = reference.model("ast", path, variants={"official": {"dim": 96, "layers": 2, "mlp": 384}})
    reference.assert_relative(ours.backbone(run.features), theirs(run.features).logits, reference.LOGITS, "logits")
