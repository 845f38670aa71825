from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from sousa_bench.models.base import AudioModel
from sousa_bench.models.swin import SwinBlock

from . import reference

pytestmark = [pytest.mark.parity, pytest.mark.slow]
N_FFT = 1024


def architecture(key: str, shape: tuple[int, ...]) -> Tensor:
    """What ``config.json`` says of the tensors that are not random; written apart from the code under test."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("melW"):
        return melscale_fbanks(shape[0], 50.0, 14000.0, shape[1], 32000, norm="slaney", mel_scale="slaney")
    if ".stft.conv_" in key:
        angle = 2 * np.pi * np.outer(np.arange(shape[0]), np.arange(N_FFT)) / N_FFT
        wave = np.cos(angle) if "conv_real" in key else -np.sin(angle)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
        return torch.from_numpy((wave * hann).astype(np.float32)).reshape(shape)
    if key.endswith("relative_position_index"):
        row, column = np.divmod(np.arange(64), 8)
        return torch.from_numpy((row[:, None] - row + 7) * 15 + (column[:, None] - column + 7))
    assert key.endswith("attn_mask"), key
    side = 8 * int(np.sqrt(shape[0]))
    region = np.zeros((side, side))
    slices = (slice(0, -8), slice(-8, -4), slice(-4, None))
    for number, (rows, columns) in enumerate((r, c) for r in slices for c in slices):
        region[rows, columns] = number
    windows = region.reshape(side // 8, 8, side // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
    return torch.from_numpy(np.where(windows[:, None] == windows[:, :, None], 0.0, -100.0).astype(np.float32))


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.golden("htsat")


@pytest.fixture(scope="module")
def checkpoint(scratch: Callable[[str], Path]) -> Path:
    path = scratch("HTSAT_AudioSet_Saved_1.ckpt")
    state = reference.rebuild("htsat", architecture)
    torch.save({"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.5.9", "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> AudioModel:
    return reference.model("htsat", checkpoint)


@pytest.fixture(scope="module")
def run(model: AudioModel, arrays: dict[str, np.ndarray]) -> SimpleNamespace:
    """One forward pass of the golden clips with everything that it computed on the way."""
    trunk, seen = model.backbone.trunk, reference.Intermediates()
    waveform = torch.from_numpy(arrays["waveform"])
    flat = partial(torch.flatten, start_dim=1, end_dim=2)
    seen.watch("patch_embed_after_norm", trunk.patch_embed, flat)
    for number, stage in enumerate(trunk.layers):
        for place, block in enumerate(stage.blocks):
            seen.watch(f"stage{number}_block{place}", block, flat)
        if number < len(trunk.layers) - 1:
            seen.watch(f"stage{number}_out_after_merge", stage, flat)
    seen.values["power_spectrogram"] = model.frontend.logmel.power(waveform)[:, None]
    features, mask = model.features(waveform)
    framewise = model.backbone.framewise(features)
    return SimpleNamespace(features=features, mask=mask, framewise=framewise, seen=seen)


def test_features(run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    reference.assert_close(run.features[:, None], arrays["logmel"], reference.DECIBELS, "logmel")
    assert run.mask is None


def test_intermediates(model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    # The last stage merges nothing: its output is its last block's.
    run.seen.values["stage3_out_after_merge"] = run.seen.values["stage3_block1"]
    run.seen.compare(arrays)
    image = model.backbone.image(run.features)
    reference.assert_relative(image, arrays["image_f16"], reference.HALF, "image")
    reference.assert_relative(reference.probe(image, 512), arrays["image_probe"], reference.LOGITS, "image")
    tokens = model.backbone.tokens(run.features).flatten(1, 2)
    reference.assert_relative(tokens, arrays["tokens_after_norm"], reference.LOGITS, "tokens after norm")


def test_embedding_and_logits(model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    embedding = model.backbone.tokens(run.features).mean((1, 2))
    reference.assert_relative(embedding, arrays["embedding_latent"], reference.LOGITS, "embedding")
    logits = model(torch.from_numpy(arrays["waveform"]))
    reference.assert_relative(logits, arrays["logits"], reference.LOGITS, "logits")
    reference.assert_relative(logits.sigmoid(), arrays["probs"], reference.LOGITS, "probabilities")
    reference.assert_relative(
        run.framewise.sigmoid(), arrays["framewise_every32_f16"], reference.HALF, "framewise output"
    )


def test_repeat_mode(checkpoint: Path, arrays: dict[str, np.ndarray]) -> None:
    model = reference.model("htsat", checkpoint, length_mode="repeat")
    features, _ = model.features(torch.from_numpy(arrays["waveform"]))
    image = model.backbone.image(features)
    reference.assert_relative(image, arrays["repeat_mode_image_f16"], reference.HALF, "image")
    embedding = model.backbone.tokens(features).mean((1, 2))
    reference.assert_relative(embedding, arrays["repeat_mode_embedding_latent"], reference.LOGITS, "embedding")
    framewise = model.backbone.framewise(features).sigmoid()
    reference.assert_relative(framewise, arrays["repeat_mode_framewise_every32_f16"], reference.HALF, "framewise")
    logits = model.backbone(features)
    reference.assert_relative(logits, arrays["repeat_mode_logits"], reference.LOGITS, "logits")


def test_lengths_change_nothing_for_whole_clips(
    model: AudioModel, checkpoint: Path, arrays: dict[str, np.ndarray]
) -> None:
    """The training path: clips of their own lengths in a batch that is padded beyond them, in both modes."""
    waveform = torch.from_numpy(arrays["waveform"])
    padded = F.pad(waveform, (0, 16000))
    lengths = torch.full((len(waveform),), waveform.shape[1])
    reference.assert_relative(model(padded, lengths), arrays["logits"], reference.LOGITS, "logits")
    repeating = reference.model("htsat", checkpoint, length_mode="repeat")
    logits = repeating(padded, lengths)
    reference.assert_relative(logits, arrays["repeat_mode_logits"], reference.LOGITS, "repeat mode logits")


def test_averaged_file_with_float_tables(
    checkpoint: Path, scratch: Callable[[str], Path], run: SimpleNamespace, arrays: dict[str, np.ndarray]
) -> None:
    """The authors' weight averaging casts every tensor to float32 and keeps nothing but the state dict."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    path = scratch("averaged.ckpt")
    torch.save({"state_dict": {key: value.float() for key, value in state.items()}}, path)
    averaged = reference.model("htsat", path)
    assert averaged.backbone.bn0.num_batches_tracked.dtype == torch.int64
    reference.assert_relative(averaged.backbone(run.features), arrays["logits"], reference.LOGITS, "logits")


@pytest.fixture
def blocks(model: AudioModel) -> list[SwinBlock]:
    return [block for block in model.backbone.modules() if isinstance(block, SwinBlock)]


def _logits_fail(model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(AssertionError, match="relative error"):
        reference.assert_relative(model.backbone(run.features[:1]), arrays["logits"][:1], reference.LOGITS, "logits")


def _features_fail(model: AudioModel, arrays: dict[str, np.ndarray]) -> None:
    features, _ = model.features(torch.from_numpy(arrays["waveform"]))
    with pytest.raises(AssertionError, match="largest difference"):
        reference.assert_close(features[:, None], arrays["logmel"], reference.DECIBELS, "logmel")


def test_tanh_gelu_fails(
    model: AudioModel,
    blocks: list[SwinBlock],
    run: SimpleNamespace,
    arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for block in blocks:
        monkeypatch.setattr(block.mlp.act, "approximate", "tanh")
    _logits_fail(model, run, arrays)


def test_attention_scale_fails(
    model: AudioModel,
    blocks: list[SwinBlock],
    run: SimpleNamespace,
    arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for block in blocks:
        monkeypatch.setattr(block.attention, "scale", 1.1 * block.attention.scale)
    _logits_fail(model, run, arrays)


def test_unmasked_shift_fails(
    model: AudioModel,
    blocks: list[SwinBlock],
    run: SimpleNamespace,
    arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for block in blocks:
        monkeypatch.setattr(block.attention, "mask", None)
    _logits_fail(model, run, arrays)


def test_layer_norm_eps_fails(
    model: AudioModel, run: SimpleNamespace, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in model.backbone.modules():
        if isinstance(module, nn.LayerNorm):
            monkeypatch.setattr(module, "eps", 1e-3)
    _logits_fail(model, run, arrays)


def test_symmetric_hann_fails(
    model: AudioModel, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.frontend.logmel, "window", torch.hann_window(N_FFT, periodic=False))
    _features_fail(model, arrays)


def test_htk_mel_bank_fails(model: AudioModel, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    bank = melscale_fbanks(513, 50.0, 14000.0, 64, 32000, norm="slaney", mel_scale="htk")
    monkeypatch.setattr(model.frontend.logmel, "bank", bank)
    _features_fail(model, arrays)
