from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from . import decibels, reference
from .patching import patched

pytestmark = [pytest.mark.parity, pytest.mark.slow]


def counter(key: str, shape: tuple[int, ...]) -> Tensor:
    assert key.endswith("num_batches_tracked")
    return torch.zeros(shape, dtype=torch.int64)


def audioset_state() -> dict[str, Tensor]:
    """The file with AudioSet's head: the encoder under the original's keys, and four tensors more."""
    encoder = reference.rebuild("dasheng", counter)
    table = reference.table("dasheng", "keys_audioset.json")
    head = reference.rebuild_keys(table, [entry for entry in table["keys"] if entry.get("rule")])
    return {entry["key"]: encoder[entry["same_as"]] for entry in table["keys"] if entry.get("same_as")} | head


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("dasheng")


@pytest.fixture(scope="module")
def run(scratch: Callable[[str], Path], arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    """One forward pass of the golden clips, by the AudioSet file, with everything that it computed on the way."""
    path = scratch("dasheng_audioset_mAP497.pt")
    torch.save(audioset_state(), path)
    model = reference.model("dasheng", path)
    assert model.variant == "official"
    return decibels.forward(model, arrays)


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features.transpose(1, 2), arrays["features"], decibels.TOLERANCE, "features")
    assert run.mask is None


def test_intermediates(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    run.seen.compare(arrays)
    reference.assert_relative(run.tokens, arrays["tokens_f16"], reference.HALF, "tokens")


def test_embedding_logits_and_probabilities(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_relative(run.tokens.mean(1), arrays["embedding"], reference.LOGITS, "embedding")
    logits = run.model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits")
    reference.assert_relative(logits.sigmoid(), arrays["probs"], reference.LOGITS, "probabilities")


def test_ten_seconds(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    features, _ = run.model.features(decibels.resized(arrays, "s10_samples"))
    decibels.assert_features(features, arrays, "s10_")
    embedding = run.model.backbone.embedding(features)
    reference.assert_relative(embedding, arrays["s10_embedding"], reference.LOGITS, "embedding of 10 s")
    reference.assert_relative(run.model.backbone(features), arrays["s10_logits"], reference.LOGITS, "logits of 10 s")


def test_more_frames_than_positions_go_through_in_pieces(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """As the authors' package does it."""
    features, _ = run.model.features(decibels.resized(arrays, "long_samples"))
    assert list(features.transpose(1, 2).shape) == arrays["long_features_shape"].tolist()
    backbone = run.model.backbone
    embedding, logits = backbone.embedding(features), backbone(features)
    reference.assert_relative(embedding, arrays["long_original_embedding"], reference.LOGITS, "embedding")
    reference.assert_relative(logits, arrays["long_original_logits"], reference.LOGITS, "logits")
    # The hub's code fills the last piece with zeros, attends to them, and cuts their tokens off.
    normalised = F.pad(backbone.normalised(features), (0, 0, 0, -features.shape[1] % 1008))
    tokens = torch.cat([backbone.encode(backbone.tokens(piece)) for piece in normalised.split(1008, dim=1)], dim=1)
    tokens = tokens[:, : arrays["long_tokens_per_clip"]]
    reference.assert_relative(tokens.mean(1), arrays["long_hf_embedding"], reference.LOGITS, "embedding as on the hub")


def test_padding_mask(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The package cuts nothing off and masks: its features are those of the whole rows."""
    waveform, lengths = torch.from_numpy(arrays["waveform"]), torch.from_numpy(arrays["padded_x_length"])
    _, mask = run.model.features(waveform, lengths)
    backbone = run.model.backbone
    assert np.array_equal(backbone.token_mask(mask).numpy(), arrays["padded_token_mask"])
    embedding = backbone.embedding(run.features, mask)
    reference.assert_relative(embedding, arrays["padded_embedding"], reference.LOGITS, "embedding")
    reference.assert_relative(backbone(run.features, mask), arrays["padded_logits"], reference.LOGITS, "logits")
    assert reference.relative(backbone.embedding(run.features), arrays["padded_embedding"]) > 100 * reference.LOGITS


def test_neighbours_in_a_call_change_nothing(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The official front end takes the loudest value of a whole call; here that has to be done by hand."""
    decibels.assert_joint(run.model, arrays)


@pytest.mark.parametrize("container", ["hub", "original"])
def test_the_other_files_give_the_same_embedding(
    container: str, scratch: Callable[[str], Path], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    """They have no head, so that a new one takes its place, with a norm of its own."""
    if container == "hub":
        path = scratch("model.safetensors")
        save_file(reference.rebuild("dasheng", counter), path)
    else:
        path = scratch("dasheng_base.pt")
        state = decibels.original_state("dasheng", run.model.frontend)
        torch.save({"model": state, "config": {"embed_dim": 768, "depth": 12}}, path)
    model = reference.model("dasheng", path, num_classes=40)
    embedding = model.backbone.embedding(run.features)
    reference.assert_relative(embedding, arrays["embedding"], reference.LOGITS, "embedding")
    assert model.backbone.classifier.layernorm.weight.eq(1).all()
    assert model.backbone(run.features).shape == (len(run.features), 40)


def test_right_constants_pass(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparison, nothing patched."""
    reference.assert_logits(run.model, run.features, arrays)


@pytest.mark.parametrize("wrong", decibels.WRONG_NETWORKS)
def test_wrong_constant_in_the_network_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray], wrong: str) -> None:
    objects, name, value = decibels.WRONG_NETWORKS[wrong](run.model.backbone)
    with patched(objects, name, value), pytest.raises(AssertionError, match="relative error"):
        reference.assert_logits(run.model, run.features, arrays)


def test_a_padded_last_piece_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    features, _ = run.model.features(decibels.resized(arrays, "long_samples")[:1])
    with patched([run.model.backbone], "pad_last", True):
        embedding = run.model.backbone.embedding(features)
    with pytest.raises(AssertionError, match="relative error"):
        reference.assert_relative(embedding, arrays["long_original_embedding"][:1], reference.LOGITS, "embedding")
