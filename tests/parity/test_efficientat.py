from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from sousa_bench.models import efficientat as frontend
from sousa_bench.models.efficientat_network import InvertedResidual, SqueezeExcitation
from sousa_bench.models.fbank import mel_bank

from . import reference
from .patching import patched

pytestmark = pytest.mark.parity

# Variant, its key table and the prefix of its golden arrays.
WIDTHS = {"official": ("keys.json", ""), "mn04": ("keys_mn04_as.json", "mn04_")}


def counters(key: str, shape: tuple[int, ...]) -> Tensor:
    assert key.endswith("num_batches_tracked")
    return torch.zeros(shape, dtype=torch.int64)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("efficientat")


@pytest.fixture(scope="module", params=WIDTHS)
def run(
    request: pytest.FixtureRequest, scratch: Callable[[str], Path], arrays: dict[str, np.ndarray]
) -> SimpleNamespace:
    """A width's model, and one forward pass of the golden clips with everything that it computed on the way."""
    keys, prefix = WIDTHS[request.param]
    path = scratch(f"{request.param}.pt")
    torch.save(reference.rebuild("efficientat", counters, keys), path)
    model, seen = reference.model("efficientat", path, variant=request.param), reference.Intermediates()
    for index, module in enumerate(model.backbone.features):
        seen.watch(f"features_{index:02d}", module)
    features, mask = model.features(torch.from_numpy(arrays["waveform"]))
    model.backbone(features)
    return SimpleNamespace(model=model, prefix=prefix, features=features, mask=mask, values=dict(seen.values))


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features.transpose(1, 2), arrays["features"], reference.FEATURES, "features")
    assert run.mask is None


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.Intermediates(run.values).compare(arrays, run.prefix)


def test_embedding_and_logits(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    embedding = run.model.backbone.maps(run.features).mean((2, 3))
    reference.assert_relative(embedding, arrays[f"{run.prefix}embedding"], reference.LOGITS, "embedding")
    logits = run.model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays[f"{run.prefix}logits"], reference.LOGITS, "logits")


def test_whole_rows_with_lengths_are_the_same(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The batched path for clips of unequal length mirrors each at its own end: here that is the row's."""
    waveform = torch.from_numpy(arrays["waveform"])
    logits = run.model(waveform, torch.full((len(waveform),), waveform.shape[1]))
    reference.assert_relative(logits, arrays[f"{run.prefix}logits"], reference.LOGITS, "logits")


def test_another_class_count_drops_the_last_layer_alone(
    scratch: Callable[[str], Path], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    variant = next(name for name, (_, prefix) in WIDTHS.items() if prefix == run.prefix)
    path = scratch("again.pt")
    state = reference.rebuild("efficientat", counters, WIDTHS[variant][0])
    torch.save(state, path)
    model = reference.model("efficientat", path, num_classes=40, variant=variant)
    assert torch.equal(model.backbone.classifier[2].weight, state["classifier.2.weight"])
    assert model.backbone(run.features).shape == (len(run.features), 40)
    embedding = model.backbone.maps(run.features).mean((2, 3))
    reference.assert_relative(embedding, arrays[f"{run.prefix}embedding"], reference.LOGITS, "embedding")


def _check_logits(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    logits = run.model.backbone(run.features)
    reference.assert_relative(logits, arrays[f"{run.prefix}logits"], reference.LOGITS, "logits")


def _check_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    features, _ = run.model.features(torch.from_numpy(arrays["waveform"]))
    reference.assert_close(features.transpose(1, 2), arrays["features"], reference.FEATURES, "features")


def test_right_constants_pass(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparisons, nothing patched."""
    _check_logits(run, arrays)
    _check_features(run, arrays)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (nn.BatchNorm2d, "eps", 1e-5),
        (SqueezeExcitation, "gate", nn.Hardsigmoid()),
        (InvertedResidual, "residual", False),
    ],
    ids=["BatchNorm eps", "hard sigmoid gate", "no residual"],
)
def test_wrong_constant_in_the_network_fails(
    run: SimpleNamespace, arrays: dict[str, np.ndarray], kind: type[nn.Module], name: str, value: object
) -> None:
    modules = [module for module in run.model.backbone.modules() if isinstance(module, kind)]
    assert modules
    with patched(modules, name, value), pytest.raises(AssertionError, match="relative error"):
        _check_logits(run, arrays)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", nn.functional.pad(torch.hann_window(800, periodic=True), (112, 112))),
        # HTK's triangles are straight in Hz, Kaldi's in mel.
        ("bank", melscale_fbanks(513, 0.0, 15000.0, 128, 32000, norm=None, mel_scale="htk")),
        ("bank", mel_bank(128, 1024, 32000, 0.0, 16000.0).t()),
    ],
    ids=["periodic Hann", "HTK mel", "fmax 16 kHz"],
)
def test_wrong_constant_in_the_frontend_fails(
    run: SimpleNamespace, arrays: dict[str, np.ndarray], name: str, value: Tensor
) -> None:
    assert getattr(run.model.frontend, name).shape == value.shape
    with patched([run.model.frontend], name, value), pytest.raises(AssertionError, match="largest difference"):
        _check_features(run, arrays)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("PREEMPHASIS", 0.0), ("LOG_OFFSET", 1e-6), ("SHIFT", 4.0)])
def test_wrong_number_in_the_frontend_fails(
    run: SimpleNamespace, arrays: dict[str, np.ndarray], name: str, value: float
) -> None:
    with patched([frontend], name, value), pytest.raises(AssertionError, match="largest difference"):
        _check_features(run, arrays)
