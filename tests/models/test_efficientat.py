"""EfficientAT: loading official files strictly, preprocessing, and the network's particulars."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from building import build
from omegaconf import OmegaConf
from torchaudio.compliance import kaldi

from sousa_bench.errors import DataError, WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.efficientat import EfficientATFrontend
from sousa_bench.models.efficientat_channels import round_channels
from sousa_bench.models.efficientat_network import EfficientATBackbone, SqueezeExcitation

VARIANTS = {
    "tiny": {"width": 0.1, "checkpoint": None},
    "official": {"width": 0.1, "checkpoint": "https://example.invalid/mn01.pt"},
    "mn02": {"width": 0.2, "checkpoint": None},
}


def small(**options: object) -> AudioModel:
    return build("efficientat", variants=VARIANTS, **{"seed": 0, **options})  # type: ignore[arg-type]


def official_state(width: float = 0.1, classes: int = 527) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        backbone = EfficientATBackbone(width, classes)
    return {official_key(backbone, key): value for key, value in backbone.state_dict().items()}


def official_key(backbone: EfficientATBackbone, key: str) -> str:
    """Parts of a block are numbered in the official file, not named."""
    match = re.fullmatch(r"features\.(\d+)\.block\.(\w+)\.(.+)", key)
    if match is None:
        return key
    place = [name for name, _ in backbone.features[int(match[1])].block.named_children()].index(match[2])
    inner = "conc_se_layers.0." if match[2] == "squeeze_excitation" else ""
    return f"features.{match[1]}.block.{place}.{inner}{match[3]}"


def write(folder: Path, state: dict[str, torch.Tensor]) -> str:
    path = folder / "mn.pt"
    torch.save(state, path)
    return str(path)


class TestCheckpoint:
    def test_official_keys(self) -> None:
        keys = official_state(width=1.0)
        for key in (
            "features.0.0.weight",
            "features.1.block.0.0.weight",  # no expansion in the first block
            "features.1.block.1.1.running_var",
            "features.4.block.2.conc_se_layers.0.fc1.weight",
            "features.4.block.3.0.weight",
            "features.16.1.num_batches_tracked",
            "classifier.2.bias",
            "classifier.5.weight",
        ):
            assert key in keys

    def test_last_layer_is_dropped_when_the_classes_differ(self, tmp_path: Path) -> None:
        state = official_state()
        path = write(tmp_path, state)
        model = small(weights="official", checkpoint=path)
        own = model.backbone.state_dict()
        assert torch.equal(own["classifier.2.weight"], state["classifier.2.weight"])
        assert torch.equal(own["features.15.block.project.0.weight"], state["features.15.block.3.0.weight"])
        assert own["classifier.5.weight"].shape[0] == 40
        kept = small(weights="official", checkpoint=path, num_classes=527).backbone.state_dict()
        assert torch.equal(kept["classifier.5.weight"], state["classifier.5.weight"])

    @pytest.mark.parametrize(
        "key",
        ["features.0.0.weight", "features.4.block.1.conc_se_layers.0.fc2.bias", "features.9.block.0.1.running_var"],
    )
    def test_missing_key_is_an_error(self, tmp_path: Path, key: str) -> None:
        state = official_state()
        del state[key]
        with pytest.raises(WeightsError, match=r"missing \(1\)"):
            small(weights="official", checkpoint=write(tmp_path, state))

    def test_unexpected_key_is_an_error(self, tmp_path: Path) -> None:
        state = official_state() | {"features.4.block.1.conc_se_layers.1.fc1.weight": torch.zeros(1)}
        with pytest.raises(WeightsError, match=r"unexpected.*conc_se_layers\.1"):
            small(weights="official", checkpoint=write(tmp_path, state))

    def test_the_variant_follows_from_the_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, official_state(width=0.2))
        assert small(weights="official", checkpoint=path).variant == "mn02"
        with pytest.raises(WeightsError, match=r"embedding_channels=192, where .*=official has 96: .*=mn02"):
            small(weights="official", checkpoint=path, variant="official")
        with pytest.raises(WeightsError, match=r"embedding_channels=288.*fits none of official, tiny, mn01"):
            small(weights="official", checkpoint=write(tmp_path, official_state(width=0.3)))

    def test_tiny_has_no_official_weights(self) -> None:
        with pytest.raises(WeightsError, match="no official weights"):
            small(weights="official", variant="tiny")

    def test_same_seed_same_weights(self) -> None:
        assert small(seed=3).weights == small(seed=3).weights != small(seed=4).weights


class TestFrontend:
    def test_is_the_published_recipe(self) -> None:
        waveform = torch.rand(2, 40000) - 0.5
        features, mask = EfficientATFrontend()(waveform)
        assert mask is None
        signal = torch.nn.functional.conv1d(waveform[:, None], torch.tensor([[[-0.97, 1.0]]]))[:, 0]
        window = torch.hann_window(800, periodic=False)
        spectrum = torch.stft(signal, 1024, 320, 800, window, center=True, pad_mode="reflect", return_complex=True)
        bank, _ = kaldi.get_mel_banks(128, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0)
        mel = torch.nn.functional.pad(bank, (0, 1)) @ spectrum.abs().square()
        expected = ((mel + 1e-5).log() + 4.5) / 5
        torch.testing.assert_close(features, expected.transpose(1, 2), atol=1e-4, rtol=0)

    def test_a_clip_has_the_features_that_it_has_alone(self) -> None:
        frontend = EfficientATFrontend()
        lengths = torch.tensor([514, 12345, 12800, 12801, 30000, 32000])
        waveform = torch.rand(len(lengths), 32000) - 0.5
        together, _ = frontend(waveform, lengths)
        assert together.shape == (6, 100, 128)
        for clip, length, features in zip(waveform, lengths.tolist(), together, strict=True):
            alone, _ = frontend(clip[None, :length])
            frames = alone.shape[1]
            torch.testing.assert_close(features[:frames], alone[0], atol=2e-5, rtol=0)
            assert (features[frames:] == torch.tensor(frontend.pad_value)).all()

    def test_padding_is_the_value_of_silence(self) -> None:
        frontend = EfficientATFrontend()
        silence, _ = frontend(torch.zeros(1, 3200))
        torch.testing.assert_close(silence, torch.full_like(silence, frontend.pad_value))

    def test_too_short_to_mirror_is_an_error(self) -> None:
        with pytest.raises(DataError, match="at least 514 samples"):
            EfficientATFrontend()(torch.zeros(2, 32000), torch.tensor([32000, 513]))


class TestNetwork:
    @pytest.mark.parametrize(
        ("value", "rounded"), [(1.6, 8), (12, 16), (11.9, 16), (18, 24), (25.6, 24), (112 * 0.4, 48)]
    )
    def test_round_channels(self, value: float, rounded: int) -> None:
        assert round_channels(value) == rounded

    @pytest.mark.parametrize(("width", "parameters"), [(1.0, 4_876_831), (0.4, 983_599)])
    def test_parameter_counts_are_the_published_ones(self, width: float, parameters: int) -> None:
        assert sum(p.numel() for p in EfficientATBackbone(width, 527).parameters()) == parameters

    def test_squeeze_excitation_gate_is_a_plain_sigmoid(self) -> None:
        module, x = SqueezeExcitation(32), torch.randn(2, 32, 4, 5)
        torch.nn.init.normal_(module.fc2.weight)
        gate = 1 / (1 + torch.exp(-module.fc2(module.fc1(x.mean((2, 3))).clamp(min=0))))
        torch.testing.assert_close(module(x), x * gate[..., None, None])

    @pytest.mark.parametrize("training", [True, False])
    def test_gradient_checkpointing_changes_neither_gradients_nor_statistics(self, training: bool) -> None:
        plain = EfficientATBackbone(0.1, 40, dropout=0.0).train()
        for module in plain.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train(training)
        frugal = copy.deepcopy(plain)
        frugal.enable_gradient_checkpointing()
        features = torch.randn(2, 64, 128)
        for backbone in (plain, frugal):
            backbone(features).square().sum().backward()
        for (name, a), b in zip(plain.named_parameters(), frugal.named_parameters(), strict=True):
            torch.testing.assert_close(a.grad, b[1].grad, msg=name)
        for (name, a), b in zip(plain.named_buffers(), frugal.buffers(), strict=True):
            assert torch.equal(a, b), name
        assert all(m.momentum == 0.01 for m in frugal.modules() if isinstance(m, torch.nn.BatchNorm2d))
        assert int(frugal.features[0][1].num_batches_tracked) == int(training)

    def test_random_start_keeps_the_scale_with_frozen_statistics(self) -> None:
        backbone = EfficientATBackbone(0.25, 40).eval()
        with torch.no_grad():
            spread = backbone.maps(torch.randn(4, 200, 128)).std()
        assert 0.05 < spread < 100

    @pytest.mark.parametrize("weights", ["random", "official"])
    def test_maps_are_channels_last(self, tmp_path: Path, weights: str) -> None:
        checkpoint = write(tmp_path, official_state()) if weights == "official" else None
        backbone = copy.deepcopy(small(weights=weights, checkpoint=checkpoint).backbone)
        maps = backbone.maps(torch.randn(2, 200, 128))
        assert maps.is_contiguous(memory_format=torch.channels_last)

    def test_runs_under_bfloat16_autocast(self) -> None:
        backbone = EfficientATBackbone(0.1, 40)
        with torch.autocast("cpu", torch.bfloat16):
            logits = backbone(torch.randn(2, 64, 128))
        logits.float().sum().backward()
        assert logits.isfinite().all()

    def test_every_parameter_gets_a_gradient(self) -> None:
        model = small()
        model(torch.rand(4, 32000) - 0.5, torch.tensor([32000, 32000, 9000, 20000])).square().sum().backward()
        assert [n for n, p in model.backbone.named_parameters() if p.grad is None] == []


class TestConf:
    def test_variants_of_the_config(self) -> None:
        root = OmegaConf.create({"seed": 1, "weights": "random"})
        root.model = OmegaConf.load(Path(__file__).parents[2] / "conf/model/efficientat.yaml")
        variants = OmegaConf.to_container(root, resolve=True)["model"]["variants"]  # type: ignore[index, call-overload]
        assert variants["official"] == variants["mn10"]
        published = {name: v for name, v in variants.items() if name not in ("official", "tiny")}
        assert len(published) == 8
        for name, numbers in published.items():
            assert numbers["width"] == int(name[2:]) / 10
            assert f"/{name}_as_mAP_" in numbers["checkpoint"]
        tiny = build("efficientat", variant="tiny")
        assert 300_000 < sum(p.numel() for p in tiny.backbone.parameters()) < 1_300_000
