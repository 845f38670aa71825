from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from . import decibels, reference
from .patching import patched

pytestmark = pytest.mark.parity

# Variant, its key table and the prefix of its golden arrays.
BASE = pytest.param("official", marks=pytest.mark.slow)
SIZES = {"official": ("keys.json", ""), "ced-tiny": ("keys_tiny.json", "tiny_")}


def counter(key: str, shape: tuple[int, ...]) -> Tensor:
    assert key.endswith("num_batches_tracked")
    return torch.zeros(shape, dtype=torch.int64)


def official_file(path: Path, keys: str) -> Path:
    save_file(reference.rebuild("ced", counter, keys), path)
    return path


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("ced")


@pytest.fixture(scope="module", params=[BASE, "ced-tiny"])
def run(
    request: pytest.FixtureRequest, scratch: Callable[[str], Path], arrays: dict[str, np.ndarray]
) -> SimpleNamespace:
    """A size's model, and one forward pass of the golden clips with everything that it computed on the way."""
    keys, prefix = SIZES[request.param]
    model = reference.model("ced", official_file(scratch("model.safetensors"), keys))
    assert model.variant == request.param
    return decibels.forward(model, arrays, prefix)


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features.transpose(1, 2), arrays["features"], decibels.TOLERANCE, "features")
    assert run.mask is None


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    run.seen.compare(arrays, run.prefix)
    if not run.prefix:
        reference.assert_relative(run.tokens, arrays["tokens_f16"], reference.HALF, "tokens")


def test_embedding_logits_and_probabilities(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_relative(run.tokens.mean(1), arrays[f"{run.prefix}embedding"], reference.LOGITS, "embedding")
    logits = run.model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays[f"{run.prefix}logits"], reference.LOGITS, "logits")
    reference.assert_relative(logits.sigmoid(), arrays[f"{run.prefix}probs"], reference.LOGITS, "probabilities")


def test_ten_seconds(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    features, _ = run.model.features(decibels.resized(arrays, "s10_samples"))
    decibels.assert_features(features, arrays, "s10_")
    reference.assert_relative(run.model.backbone(features), arrays[f"{run.prefix}s10_logits"], reference.LOGITS, "10 s")
    if not run.prefix:
        embedding = run.model.backbone.embedding(features)
        reference.assert_relative(embedding, arrays["s10_embedding"], reference.LOGITS, "embedding of 10 s")


of_the_base = pytest.mark.parametrize("run", [BASE], indirect=True)  # there are such golden data of that size alone


@of_the_base
def test_more_frames_than_positions_go_through_in_pieces(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """As the hub's code does it for one clip; here both go through together."""
    waveform, backbone = decibels.resized(arrays, "long_samples"), run.model.backbone
    features, _ = run.model.features(waveform)
    reference.assert_relative(backbone.embedding(features), arrays["long_hf_embedding"], reference.LOGITS, "embedding")
    reference.assert_relative(backbone(features), arrays["long_hf_logits"], reference.LOGITS, "logits")
    # The original code has the same pieces, and the mean of their probabilities.
    normalised = backbone.normalised(features)
    normalised = F.pad(normalised, (0, 0, 0, -normalised.shape[1] % 1012))
    tokens = [backbone.encode(backbone.tokens(piece)) for piece in normalised.split(1012, dim=1)]
    assert sum(part.shape[1] for part in tokens) == arrays["long_tokens_per_clip"]
    probabilities = torch.stack([backbone.classifier(part.mean(1)).sigmoid() for part in tokens]).mean(0)
    reference.assert_relative(probabilities, arrays["long_original_probs"], reference.LOGITS, "probabilities")


@of_the_base
def test_neighbours_in_a_call_change_nothing(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The official front end takes the loudest value of a whole call; here that has to be done by hand."""
    decibels.assert_joint(run.model, arrays)


@of_the_base
def test_the_original_file_gives_the_same(
    scratch: Callable[[str], Path], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    path = scratch("audiotransformer_base_mAP_4999.pt")
    torch.save(decibels.original_state("ced", run.model.frontend), path)
    logits = reference.model("ced", path).backbone(run.features)
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits of the .pt")


def _check_logits(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    logits = run.model.backbone(run.features[:1])
    reference.assert_relative(logits, arrays[f"{run.prefix}logits"][:1], reference.LOGITS, "logits")


def test_right_constants_pass(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparison, nothing patched."""
    _check_logits(run, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", decibels.WRONG_NETWORKS)
def test_wrong_constant_in_the_network_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray], wrong: str) -> None:
    objects, name, value = decibels.WRONG_NETWORKS[wrong](run.model.backbone)
    with patched(objects, name, value), pytest.raises(AssertionError, match="relative error"):
        _check_logits(run, arrays)


@pytest.mark.slow
def test_swapped_order_of_tokens_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """Time-major tokens give the same logits, since their positions come with them: the probes tell them apart."""
    backbone = run.model.backbone
    swapped = backbone.positions(backbone.patches(backbone.normalised(run.features))).transpose(2, 3).flatten(2)
    run.seen.values["tokens_with_positions"] = swapped.transpose(1, 2)
    with pytest.raises(AssertionError, match="relative error"):
        run.seen.compare(arrays, run.prefix)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", decibels.WRONG_FRONTENDS)
def test_wrong_constant_in_the_frontend_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray], wrong: str) -> None:
    objects, name, value = decibels.WRONG_FRONTENDS[wrong](run.model.frontend)
    with patched(objects, name, value):
        features, _ = run.model.features(torch.from_numpy(arrays["waveform"]))
    with pytest.raises(AssertionError, match="largest difference"):
        reference.assert_close(features.transpose(1, 2), arrays["features"], decibels.TOLERANCE, "features")


@pytest.mark.slow
def test_reversed_positions_fail(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    positions = run.model.backbone.positions
    swapped = nn.Parameter(positions.time.flip(-1))
    with patched([positions], "time", swapped), pytest.raises(AssertionError, match="relative error"):
        _check_logits(run, arrays)
