from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from building import build, clips
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from sousa_bench.errors import ConfigError, DataError, WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.htsat_frontend import LogMel, stretch


@pytest.fixture(scope="module")
def model() -> AudioModel:
    return build("htsat").eval()


def bicubic(x: torch.Tensor, frames: int) -> torch.Tensor:
    return F.interpolate(x[None, None], (frames, x.shape[-1]), mode="bicubic", align_corners=True)[0, 0]


def test_stretch_is_torchs_bicubic_for_each_clip() -> None:
    x = torch.randn(6, 700, 5)
    counts, repeats = torch.tensor([700, 401, 301, 37, 2, 1]), torch.tensor([1, 2, 3, 27, 5, 1])
    stretched = stretch(x, counts, repeats, 1024)
    for row, (count, times) in enumerate(zip(counts, repeats, strict=True)):
        expected = bicubic(x[row, :count].repeat(int(times), 1), 1024)
        torch.testing.assert_close(stretched[row], expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("mode", ["stretch", "repeat", "repeatpad"])
def test_features_depend_on_the_clip_alone(mode: str) -> None:
    model = build("htsat", length_mode=mode)
    waveform, lengths = clips(3.0, 1.7, 0.01, rate=32000)
    both, mask = model.features(waveform, lengths)
    assert mask is None
    for row in range(3):
        alone, _ = model.features(waveform[row : row + 1, : lengths[row]], lengths[row : row + 1])
        torch.testing.assert_close(both[row : row + 1], alone, atol=2e-3, rtol=0)
    waveform[1, lengths[1] :] = 1.0
    torch.testing.assert_close(model.features(waveform, lengths)[0], both)


@pytest.mark.parametrize("mode", ["stretch", "repeat"])
def test_lengths_give_what_whole_clips_give(mode: str) -> None:
    """Batched by its own frames or handed over whole, as the official code takes it: one result."""
    model = build("htsat", length_mode=mode).eval()
    waveform, lengths = clips(3.1, 1.7, rate=32000)
    batched = model(waveform, lengths)
    for row in range(2):
        torch.testing.assert_close(
            model(waveform[row : row + 1, : lengths[row]]), batched[row : row + 1], atol=1e-4, rtol=0
        )


def test_image_is_pieces_of_time_above_each_other(model: AudioModel) -> None:
    features = torch.arange(1024.0)[None, :, None] + torch.arange(64) / 64
    with torch.no_grad():  # A fresh BatchNorm changes nothing but a factor next to 1.
        image = model.backbone.image(features)
    assert image.shape == (1, 1, 256, 256)
    for row, column in ((0, 0), (63, 255), (64, 0), (130, 7), (255, 255)):
        frame, bin_ = row // 64 * 256 + column, row % 64
        assert image[0, 0, row, column] == pytest.approx(frame + bin_ / 64, rel=1e-4)


def test_longer_input_is_averaged_over_crops(model: AudioModel) -> None:
    features = torch.randn(1, 1202, 64) * 20 - 25
    starts = range(0, 1202 - 600 - 1, 300)
    assert list(starts) == [0, 300, 600]
    expected = torch.stack([model.backbone(features[:, start : start + 600]) for start in starts]).mean(0)
    torch.testing.assert_close(model.backbone(features), expected)
    with pytest.raises(DataError, match="at most 2050 frames"):
        model.backbone(torch.zeros(1, 2051, 64))
    assert model.features(*clips(12.0, rate=32000))[0].shape == (1, 1024, 64)  # In training: the first 1024 frames.


def test_token_semantic_head_sees_time(model: AudioModel) -> None:
    """A change in the last quarter of the clip changes the last eighth of the steps most."""
    features = torch.full((1, 1024, 64), -40.0)
    changed = features.clone()
    changed[:, 960:] = 0.0
    difference = (model.backbone.framewise(changed) - model.backbone.framewise(features)).abs().mean((0, 2))
    assert difference.shape == (32,)
    assert difference[-4:].mean() > difference[:-4].mean()


def test_unknown_length_mode() -> None:
    with pytest.raises(ConfigError, match=r"length_mode=loop is unknown.*stretch, repeat, repeatpad"):
        build("htsat", length_mode="loop")


def test_official_size() -> None:
    model = build("htsat", variant="official", num_classes=None)
    # The key table of the official file: its parameters without the DFT kernels, the mel bank and the unused head.
    assert sum(p.numel() for p in model.backbone.parameters()) == 29_963_431
    head = model.backbone.get_submodule(model.head_name)
    assert head.weight.shape == (527, 768, 2, 3)
    assert model.sample_rate == 32000


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> tuple[transformers.ClapModel, Path]:
    """A CLAP model of the hub's layout with small numbers, saved by transformers."""
    torch.manual_seed(0)
    audio = {"patch_embeds_hidden_size": 24, "depths": [2, 2, 2], "num_attention_heads": [2, 4, 8], "hidden_size": 96}
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 9,
    }
    config = transformers.ClapConfig(audio_config={**audio, "num_hidden_layers": 3}, text_config=text)
    model = transformers.ClapModel(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    norm = model.audio_model.audio_encoder.batch_norm
    nn.init.normal_(norm.running_mean, -25, 5)
    nn.init.uniform_(norm.running_var, 200, 300)
    folder = tmp_path_factory.mktemp("clap")
    model.save_pretrained(folder)
    return model, folder


SMALL = {"clap": {"dim": 24, "depths": [2, 2, 2], "heads": [2, 4, 8]}}


def test_clap_equals_transformers(clap: tuple[transformers.ClapModel, Path]) -> None:
    """Front end against ClapFeatureExtractor, trunk against ClapModel, through the hub's own container."""
    theirs, folder = clap
    ours = build("htsat", weights="official", checkpoint=str(folder), variants=SMALL).eval()
    assert (ours.variant, ours.sample_rate) == ("clap", 48000)
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", frequency_min=50)
    waveform, lengths = clips(4.0, 2.7, rate=48000)
    cut = [clip[:length].numpy() for clip, length in zip(waveform, lengths, strict=True)]
    inputs = extractor(cut, sampling_rate=48000, return_tensors="pt")
    expected = inputs["input_features"].float()[:, 0]
    features, _ = ours.features(waveform, lengths)
    # Where their float64 waveform ends in exact silence, both say -100 dB.
    torch.testing.assert_close(features, expected, atol=2e-3, rtol=0)
    with torch.no_grad():
        pooled = theirs.audio_model(input_features=expected[:, None]).pooler_output
        torch.testing.assert_close(ours.backbone.tokens(expected).mean((1, 2)), pooled, atol=1e-5, rtol=1e-5)


def test_clap_and_audioset_files_are_told_apart(clap: tuple[transformers.ClapModel, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"sample_rate=48000,.*=official has 32000,.*give model\.variant=clap"):
        build("htsat", weights="official", checkpoint=str(clap[1]), variant="official", variants=SMALL)
    save_file({"sed_model.bn0.weight": torch.ones(64)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"give model\.variant=official"):
        build("htsat", weights="official", checkpoint=str(tmp_path / "w.safetensors"), variant="clap")


def test_file_of_another_mel_bank_is_refused(tmp_path: Path) -> None:
    bank = LogMel(32000, 320, 64, 0.0, 16000.0).bank.contiguous()
    save_file({"sed_model.logmel_extractor.melW": bank}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="another mel bank"):
        build("htsat", weights="official", checkpoint=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("name", ["ast", "htsat"])
def test_checkpointing_changes_nothing_but_memory(name: str) -> None:
    waveform, lengths = clips(1.5, 1.0, rate=32000)
    plain, saving = build(name), build(name)
    saving.backbone.enable_gradient_checkpointing()
    kept = []
    for model in (plain, saving):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            loss = model(waveform, lengths).square().mean()
        loss.backward()
        kept.append(sum(sizes))
    for (key, first), second in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if "k_proj.bias" not in key:  # Its true gradient is zero; what is left is rounding.
            torch.testing.assert_close(first.grad, second.grad, atol=1e-7, rtol=1e-5)
    assert kept[1] < 0.6 * kept[0]


@pytest.mark.parametrize("name", ["ast", "htsat"])
def test_bfloat16_autocast(name: str) -> None:
    model = build(name).eval()
    waveform, lengths = clips(1.5, 1.0, rate=32000)
    exact = model(waveform, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(waveform, lengths)
        rough.float().square().mean().backward()
    assert np.linalg.norm((rough.float() - exact).detach()) < 0.05 * np.linalg.norm(exact.detach())


@pytest.mark.parametrize("name", ["ast", "htsat"])
def test_frozen_layers_before_the_first_trained_one_keep_nothing(name: str) -> None:
    model = build(name)
    model.backbone.requires_grad_(False)
    model.backbone.get_submodule(model.head_name).requires_grad_(True)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        model(*clips(1.0, 1.0, rate=32000)).sum()
    head = sum(p.numel() for p in model.backbone.get_submodule(model.head_name).parameters())
    assert sum(sizes) < 20 * head
