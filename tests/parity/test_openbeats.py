from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sousa_bench.models import fbank
from sousa_bench.models.beats_network import split_mask

from . import reference
from .patching import patched

pytestmark = [pytest.mark.parity, pytest.mark.slow]

# Size, its key table and the prefix of its golden arrays.
SIZES = {"large": ("keys.json", ""), "base": ("keys_base.json", "base_")}


def ones(key: str, shape: tuple[int, ...]) -> Tensor:
    assert key.endswith("_pad.weight")
    return torch.ones(shape)


def cfg(size: str) -> dict[str, Any]:
    """The ``cfg`` of an official file: fields of the pretraining too, and none that its defaults give."""
    facts = reference.table("openbeats", "config.json")["checkpoint"]
    values = dict(facts["cfg_large"]["value"])
    if size == "base":
        values |= facts["cfg_base"]["value"]
    return {key: value for key, value in values.items() if key not in ("defaults", "others")}


def official_file(path: Path, size: str) -> Path:
    state = reference.rebuild("openbeats", ones, SIZES[size][0])
    torch.save({"cfg": cfg("base"), "model": state} if size == "base" else state, path)
    return path


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("openbeats")


@pytest.fixture(scope="module", params=SIZES)
def run(
    request: pytest.FixtureRequest, scratch: Callable[[str], Path], arrays: dict[str, np.ndarray]
) -> SimpleNamespace:
    """A size's model, and one forward pass of the golden clips with everything that it computed on the way."""
    size, prefix = request.param, SIZES[request.param][1]
    path = official_file(scratch({"large": "epoch_latest.pth", "base": "OpenBEATs-Base-i3.pt"}[size]), size)
    model = reference.model("openbeats", path, num_classes=None if size == "large" else 40)
    assert model.variant == {"large": "large", "base": "official"}[size]
    path.unlink()
    backbone = model.backbone
    seen = reference.watched_beats(backbone)
    seen.watch("tokens", backbone.encoder)
    waveform = torch.from_numpy(arrays["waveform"])
    logits, (features, mask) = model(waveform), model.features(waveform)
    values = reference.Intermediates(dict(seen.values))
    return SimpleNamespace(
        model=model, prefix=prefix, features=features, mask=mask, logits=logits, seen=values, live=seen
    )


of_the_large = pytest.mark.parametrize("run", ["large"], indirect=True)  # there are such golden data of it alone


def heard(run: SimpleNamespace, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, mean over the tokens that are no padding, and the mask of the tokens, all of one pass."""
    logits, (_, mask) = run.model(waveform, lengths), run.model.features(waveform, lengths)
    tokens = run.live.values["tokens"]
    padding = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    if mask is not None:
        padding = run.model.backbone.token_mask(mask, tokens.shape[1])
    return logits, torch.stack([clip[~own].mean(0) for clip, own in zip(tokens, padding, strict=True)]), padding


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features, arrays["features"], reference.FEATURES, "features")
    assert run.mask is None


def test_what_one_pass_computes(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    run.seen.compare(arrays, run.prefix)
    tokens = run.seen.values["tokens"]
    expected = arrays[f"{run.prefix}embedding_mean"]
    reference.assert_relative(tokens.mean(1), expected, reference.LOGITS, "embedding")
    if not run.prefix:
        chosen = tokens[:, torch.from_numpy(arrays["token_index"])]
        reference.assert_relative(chosen, arrays["tokens"], reference.LOGITS, "tokens")
        reference.assert_relative(run.logits, arrays["logits"], reference.LOGITS, "logits")
        reference.assert_relative(run.logits.sigmoid(), arrays["probs"], reference.LOGITS, "probabilities")


def test_padding(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    waveform, lengths = torch.from_numpy(arrays["waveform"]), torch.from_numpy(arrays["padded_from_sample"])
    logits, embedding, mask = heard(run, waveform, lengths)
    assert np.array_equal(mask.numpy(), arrays["padded_token_mask"])
    expected = arrays[f"{run.prefix}padded_embedding_mean"]
    reference.assert_relative(embedding, expected, reference.LOGITS, "embedding")
    if not run.prefix:
        reference.assert_relative(logits, arrays["padded_logits"], reference.LOGITS, "logits")


def test_a_short_clip_is_repeated(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    start, end = arrays["short_from_to"]
    short = torch.from_numpy(arrays["waveform"])[:, start:end].contiguous()
    expected = arrays[f"{run.prefix}short_embedding_mean"]
    reference.assert_relative(heard(run, short)[1], expected, reference.LOGITS, "embedding")
    in_a_row = nn.functional.pad(short, (0, 8000 - short.shape[1]))
    _, embedding, _ = heard(run, in_a_row, torch.full((len(short),), short.shape[1]))
    reference.assert_relative(embedding, expected, reference.LOGITS, "embedding in a longer row")


@pytest.mark.parametrize("run", ["large"], indirect=True)  # there are such golden data of it alone
def test_ten_seconds(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    long = torch.from_numpy(np.tile(arrays["waveform"], (1, 3))[:, : int(arrays["long_samples"])])
    logits, embedding, _ = heard(run, long)
    reference.assert_relative(embedding, arrays["long_embedding_mean"], reference.LOGITS, "embedding")
    reference.assert_relative(logits, arrays["long_logits"], reference.LOGITS, "logits")


of_the_base = pytest.mark.parametrize("run", ["base"], indirect=True)  # a third of the time


def _check(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    found = run.model.backbone.tokens(run.features)[0].mean(1)
    reference.assert_relative(found, arrays["base_embedding_mean"], reference.LOGITS, "embedding")


@of_the_base
def test_right_constants_pass(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    """The yardstick of the tests below: the same comparison, nothing patched."""
    _check(run, arrays)


@of_the_base
@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("", "activation", nn.GELU(approximate="tanh")),
        ("", "residual_scale", 1.0),
        ("", "residual_scale", 48**0.25),
        (".self_attn_layer_norm", "eps", 1e-3),
    ],
    ids=["tanh GELU", "plain residual", "another depth", "layer norm eps"],
)
def test_wrong_constant_in_the_network_fails(
    run: SimpleNamespace, arrays: dict[str, np.ndarray], where: str, name: str, value: object
) -> None:
    layers = [layer.get_submodule(where.removeprefix(".")) for layer in run.model.backbone.encoder.layers]
    with patched(layers, name, value), pytest.raises(AssertionError, match="relative error"):
        _check(run, arrays)


@of_the_base
@pytest.mark.parametrize(
    ("where", "name", "value"),
    [("", "divisor", 6.55582), ("", "mean", 15.66439), ("fbank", "window", fbank.window("hann", 400))],
    ids=["one deviation", "another mean", "Hann"],
)
def test_wrong_constant_in_the_frontend_fails(
    run: SimpleNamespace, arrays: dict[str, np.ndarray], where: str, name: str, value: object
) -> None:
    with patched([run.model.frontend.get_submodule(where)], name, value):
        features, _ = run.model.features(torch.from_numpy(arrays["waveform"]))
    with pytest.raises(AssertionError, match="largest difference"):
        reference.assert_close(features, arrays["features"], reference.FEATURES, "features")


@of_the_base
def test_the_padding_rule_of_beats_fails(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    waveform, lengths = torch.from_numpy(arrays["waveform"]), torch.from_numpy(arrays["padded_from_sample"])
    with patched([run.model.backbone], "token_mask", lambda mask, tokens: split_mask(waveform_mask(lengths), tokens)):
        _, embedding, _ = heard(run, waveform, lengths)
    with pytest.raises(AssertionError, match="relative error"):
        reference.assert_relative(embedding, arrays["base_padded_embedding_mean"], reference.LOGITS, "embedding")


def waveform_mask(lengths: Tensor) -> Tensor:
    return torch.arange(64000) >= lengths[:, None]
