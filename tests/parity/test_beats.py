import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchaudio.functional import melscale_fbanks

from sousa_bench.models import fbank
from sousa_bench.models.base import AudioModel

from . import reference
from .patching import patched

pytestmark = [pytest.mark.parity, pytest.mark.slow]


def cfg(fine_tuned: bool) -> dict[str, Any]:
    """The ``cfg`` of an official file."""
    facts = reference.table("beats", "config.json")["checkpoint"]
    values = dict(facts["cfg_finetuned"]["value"])
    if not fine_tuned:
        values |= facts["cfg_pretrained_differs_in"]["value"]
    return {key: value for key, value in values.items() if value != "absent"}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("beats")


@pytest.fixture(scope="module")
def model(scratch: Callable[[str], Path]) -> AudioModel:
    path = scratch("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt")
    torch.save({"cfg": cfg(True), "model": reference.rebuild("beats"), "label_dict": {0: "/m/09x0r"}}, path)
    return reference.model("beats", path)


@pytest.fixture(scope="module")
def run(model: AudioModel, arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    """One forward pass of the golden clips with everything that it computed on the way."""
    backbone = model.backbone
    seen = reference.watched_beats(backbone)
    features, mask = model.features(torch.from_numpy(arrays["waveform"]))
    tokens, _ = backbone.tokens(features)
    return SimpleNamespace(features=features, mask=mask, tokens=tokens, values=dict(seen.values))


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features, arrays["features"], reference.FEATURES, "features")
    assert run.mask is None


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.Intermediates(run.values).compare(arrays)
    reference.assert_relative(run.tokens, arrays["tokens_f16"], reference.HALF, "tokens")


def test_embedding_logits_and_probabilities(
    model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    embedding = model.backbone.tokens(run.features)[0].mean(1)
    reference.assert_relative(embedding, arrays["embedding_mean"], reference.LOGITS, "embedding")
    logits = model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits")
    reference.assert_relative(logits.sigmoid(), arrays["probs"], reference.LOGITS, "probabilities")


def test_padding_mask(model: AudioModel, arrays: dict[str, np.ndarray]) -> None:
    waveform = torch.from_numpy(arrays["waveform"])
    lengths = torch.from_numpy(arrays["padded_from_sample"])
    features, mask = model.features(waveform, lengths)
    _, token_mask = model.backbone.tokens(features, mask)
    assert np.array_equal(token_mask.numpy(), arrays["padded_token_mask"])
    probabilities = model(waveform, lengths).sigmoid()
    reference.assert_relative(probabilities, arrays["padded_probs"], reference.LOGITS, "probabilities")


def test_pretrained_file_gives_the_same_embedding(
    scratch: Callable[[str], Path], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    """The self-supervised checkpoint: the same without the predictor, and with dropout, which evaluation ignores."""
    path = scratch("BEATs_iter3_plus_AS2M.pt")
    state = {key: value for key, value in reference.rebuild("beats").items() if not key.startswith("predictor")}
    torch.save({"cfg": cfg(False), "model": state}, path)
    pretrained = reference.model("beats", path, num_classes=40)
    assert pretrained.backbone.encoder.dropout.p == cfg(False)["dropout"]
    embedding = pretrained.backbone.tokens(run.features)[0].mean(1)
    reference.assert_relative(embedding, arrays["embedding_mean"], reference.LOGITS, "embedding")
    assert pretrained.backbone(run.features).shape == (len(run.features), 40)


def _check_logits(model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_relative(model.backbone(run.features[:1]), arrays["logits"][:1], reference.LOGITS, "logits")


def _check_features(model: AudioModel, arrays: dict[str, np.ndarray]) -> None:
    features, _ = model.features(torch.from_numpy(arrays["waveform"]))
    reference.assert_close(features, arrays["features"], reference.FEATURES, "features")


def test_right_constants_pass(model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparisons, nothing patched."""
    _check_logits(model, run, arrays)
    _check_features(model, arrays)


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("", "activation", nn.GELU(approximate="tanh")),
        (".self_attn", "scale", 1.1 / 8),
        ("", "residual_scale", 1.0),
        (".self_attn_layer_norm", "eps", 1e-3),
    ],
    ids=["tanh GELU", "attention scale", "plain residual", "layer norm eps"],
)
def test_wrong_constant_in_the_network_fails(
    model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray], where: str, name: str, value: object
) -> None:
    layers = [layer.get_submodule(where.removeprefix(".")) for layer in model.backbone.encoder.layers]
    assert getattr(layers[0], name) != value
    with patched(layers, name, value), pytest.raises(AssertionError, match="relative error"):
        _check_logits(model, run, arrays)


def htk_bank() -> torch.Tensor:
    """HTK's triangles are straight in Hz, Kaldi's in mel."""
    with warnings.catch_warnings(action="ignore"):  # At 512 points some of HTK's triangles are empty.
        return melscale_fbanks(257, 20.0, 8000.0, 128, 16000, norm=None, mel_scale="htk")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("", "divisor", 6.55582),
        ("fbank", "window", fbank.window("hann", 400)),
        ("fbank", "window", torch.hann_window(400, periodic=True).pow(0.85)),
        ("fbank", "bank", htk_bank()),
        ("fbank", "scale", 1.0),
        ("fbank", "preemphasis", 0.0),
    ],
    ids=["one deviation", "Hann", "periodic povey", "HTK mel", "no factor 32768", "no preemphasis"],
)
def test_wrong_constant_in_the_frontend_fails(
    model: AudioModel, arrays: dict[str, np.ndarray], where: str, name: str, value: object
) -> None:
    target = model.frontend.get_submodule(where)
    with patched([target], name, value), pytest.raises(AssertionError, match="largest difference"):
        _check_features(model, arrays)
