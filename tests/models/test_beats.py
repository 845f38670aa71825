"""BEATs: loading official files strictly, preprocessing, masks, and the network against plain formulas."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from building import build
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.compliance import kaldi

from sousa_bench.errors import ConfigError, DataError, WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.beats import BeatsFrontend
from sousa_bench.models.beats_network import RelativePositionBias, SelfAttention, split_mask
from tests.cases import check_each

SMALL = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 2,
    "embed_dim": 16,
    "conv_pos": 8,
    "conv_pos_groups": 4,
}
CFG = {
    **SMALL,
    "input_patch_size": 16,
    "num_buckets": 320,
    "max_distance": 800,
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_bias": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "activation_fn": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.2,
    "activation_dropout": 0.0,
    "dropout_input": 0.3,
    "encoder_layerdrop": 0.05,
    "layer_wise_gradient_decay_ratio": 0.6,
    "finetuned_model": False,
}


def small(**options: object) -> AudioModel:
    return build("beats", variants={"tiny": SMALL, "official": SMALL}, **{"seed": 0, **options})  # type: ignore[arg-type]


def official_state(classes: int | None = 527) -> dict[str, torch.Tensor]:
    """Tensors of an official file for SMALL, its keys and shapes written out from the published key list."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "post_extract_proj.weight": (32, 16),
        "post_extract_proj.bias": (32,),
        "patch_embedding.weight": (16, 1, 16, 16),
        "layer_norm.weight": (16,),
        "layer_norm.bias": (16,),
        "encoder.pos_conv.0.bias": (32,),
        "encoder.pos_conv.0.weight_g": (1, 1, 8),
        "encoder.pos_conv.0.weight_v": (32, 8, 8),
        "encoder.layer_norm.weight": (32,),
        "encoder.layer_norm.bias": (32,),
    }
    for i in range(2):
        layer = f"encoder.layers.{i}."
        for name in ("q", "k", "v", "out"):
            shapes |= {layer + f"self_attn.{name}_proj.weight": (32, 32), layer + f"self_attn.{name}_proj.bias": (32,)}
        shapes |= {
            layer + "self_attn.grep_a": (1, 2, 1, 1),
            layer + "self_attn.grep_linear.weight": (8, 16),
            layer + "self_attn.grep_linear.bias": (8,),
            layer + "fc1.weight": (64, 32),
            layer + "fc1.bias": (64,),
            layer + "fc2.weight": (32, 64),
            layer + "fc2.bias": (32,),
        }
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {layer + norm + ".weight": (32,), layer + norm + ".bias": (32,)}
    if classes is not None:
        shapes |= {"predictor.weight": (classes, 32), "predictor.bias": (classes,)}
    state = {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes.items()}
    table = torch.randn(320, 2, generator=generator)
    return state | {f"encoder.layers.{i}.self_attn.relative_attention_bias.weight": table.clone() for i in range(2)}


def write(folder: Path, state: dict[str, torch.Tensor], cfg: dict[str, object] | None = None) -> str:
    path = folder / "beats.pt"
    torch.save({"cfg": cfg or CFG, "model": state, "label_dict": {0: "/m/0"}}, path)
    return str(path)


class TestCheckpoint:
    def test_pretrained_file_fills_all_but_the_head(self, tmp_path: Path) -> None:
        state = official_state(classes=None)
        model = small(weights="official", checkpoint=write(tmp_path, state))
        own = model.backbone.state_dict()
        assert torch.equal(own["encoder.layers.1.fc2.weight"], state["encoder.layers.1.fc2.weight"])
        assert torch.equal(own["post_extract_proj.bias"], state["post_extract_proj.bias"])
        g, v = state["encoder.pos_conv.0.weight_g"], state["encoder.pos_conv.0.weight_v"]
        kernel = g * v / v.norm(dim=(0, 1), keepdim=True)
        torch.testing.assert_close(model.backbone.encoder.pos_conv.conv.weight, kernel)
        assert own["predictor.weight"].shape == (40, 32)
        assert (model.weights.kind, model.weights.origin, len(model.weights.sha256)) == ("official", "beats.pt", 64)

    def test_dropout_rates_come_from_the_file(self, tmp_path: Path) -> None:
        backbone = small(weights="official", checkpoint=write(tmp_path, official_state())).backbone
        assert backbone.encoder.layers[0].dropout.p == 0.1
        assert backbone.encoder.layers[0].self_attn.dropout == 0.2
        assert backbone.dropout_input.p == 0.3

    def test_fine_tuned_head_is_kept_only_for_as_many_classes(self, tmp_path: Path) -> None:
        state = official_state(classes=50)
        path = write(tmp_path, state)
        kept = small(weights="official", checkpoint=path, num_classes=50).backbone.predictor
        assert torch.equal(kept.weight, state["predictor.weight"])
        fresh = small(weights="official", checkpoint=path, num_classes=40).backbone.predictor
        assert fresh.weight.shape == (40, 32)
        assert not torch.equal(fresh.weight, state["predictor.weight"][:40])

    def test_no_class_count_means_the_files_own(self, tmp_path: Path) -> None:
        path = write(tmp_path, official_state(classes=50))
        model = small(weights="official", checkpoint=path, num_classes=None)
        assert model.backbone.predictor.out_features == 50

    @pytest.mark.slow
    def test_each_missing_key_is_an_error(self, tmp_path: Path) -> None:
        def check(key: str) -> None:
            state = official_state()
            del state[key]
            with pytest.raises(WeightsError, match=rf"missing (\(1\)|{re.escape(key)})"):
                small(weights="official", checkpoint=write(tmp_path, state))

        check_each((key for key in official_state() if not key.startswith("predictor")), check)

    def test_half_a_head_is_an_error(self, tmp_path: Path) -> None:
        state = official_state(classes=40)
        del state["predictor.bias"]
        with pytest.raises(WeightsError, match=r"missing.*predictor\.bias"):
            small(weights="official", checkpoint=write(tmp_path, state))

    def test_unexpected_key_is_an_error(self, tmp_path: Path) -> None:
        state = official_state() | {"encoder.layers.2.fc1.bias": torch.zeros(64)}
        with pytest.raises(WeightsError, match=r"unexpected.*encoder\.layers\.2\.fc1\.bias"):
            small(weights="official", checkpoint=write(tmp_path, state))

    def test_untied_position_tables_are_an_error(self, tmp_path: Path) -> None:
        state = official_state()
        state["encoder.layers.1.self_attn.relative_attention_bias.weight"][0, 0] += 1
        with pytest.raises(WeightsError, match="differs from layer 0"):
            small(weights="official", checkpoint=write(tmp_path, state))

    @pytest.mark.parametrize(
        ("field", "value"), [("encoder_layers", 3), ("deep_norm", False), ("activation_fn", "relu")]
    )
    def test_another_network_is_an_error(self, tmp_path: Path, field: str, value: object) -> None:
        path = write(tmp_path, official_state(), {**CFG, field: value})
        with pytest.raises(WeightsError, match=f"{field}={value!r}"):
            small(weights="official", checkpoint=path)

    def test_bare_state_dict_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.pt"
        torch.save(official_state(), path)
        with pytest.raises(WeightsError, match="'cfg' beside 'model'"):
            small(weights="official", checkpoint=str(path))

    def test_misspelt_variant_field_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="encoder_layer"):
            build("beats", variants={"tiny": {"encoder_layer": 2}})


class TestSeed:
    def test_same_seed_same_weights_and_untouched_global_generator(self) -> None:
        before = torch.get_rng_state()
        first, second, other = small(seed=3), small(seed=3), small(seed=4)
        assert torch.equal(before, torch.get_rng_state())
        assert first.weights == second.weights != other.weights
        assert first.weights.origin == "seed 3"


class TestFrontend:
    def test_is_kaldis_filter_bank_of_the_scaled_waveform(self) -> None:
        waveform = torch.rand(3, 20000) - 0.5
        features, mask = BeatsFrontend()(waveform)
        assert mask is None
        for clip, found in zip(waveform, features, strict=True):
            bank = kaldi.fbank(clip[None] * 32768, num_mel_bins=128, sample_frequency=16000)
            torch.testing.assert_close(found, (bank - 15.41663) / (2 * 6.55582), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("samples", [2800, 16000, 40123, 48000, 64000, 80000])
    def test_mask_is_the_official_cut_of_the_sample_mask(self, samples: int) -> None:
        lengths = torch.tensor([1, 159, 160, 161, samples // 3, samples - 1, samples])
        features, mask = BeatsFrontend()(torch.zeros(len(lengths), samples), lengths)
        sample_mask = torch.arange(samples) >= lengths[:, None]
        frames = features.shape[1]
        kept = sample_mask[:, : samples - samples % frames]
        assert mask is not None
        assert torch.equal(mask, kept.view(len(lengths), frames, -1).all(-1))
        assert not mask[-1].any()

    def test_frames_after_the_end_hold_the_value_of_silence(self) -> None:
        frontend = BeatsFrontend()
        waveform = F.pad(torch.rand(1, 8000) - 0.5, (0, 8000))
        features, _ = frontend(waveform, torch.tensor([8000]))
        assert torch.allclose(features[0, 50:], torch.tensor(frontend.pad_value), atol=1e-6)
        alone, _ = frontend(waveform[:, :8000])
        torch.testing.assert_close(features[:, : alone.shape[1]], alone)

    def test_too_short_for_a_patch_is_an_error(self) -> None:
        with pytest.raises(DataError, match="at least 16 frames"):
            BeatsFrontend()(torch.zeros(1, 2799))


class TestMask:
    @given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 300))
    @settings(max_examples=60, deadline=None)
    def test_split_mask_is_all_over_each_even_chunk(self, parts: int, length: int, padding: int) -> None:
        parts = min(parts, length)
        mask = torch.arange(length)[None] >= length - min(padding, length)
        chunk = length // parts
        expected = [bool(mask[0, i * chunk : (i + 1) * chunk].all()) for i in range(parts)]
        assert split_mask(mask, parts)[0].tolist() == expected

    def test_masked_patches_have_no_influence(self) -> None:
        backbone = small().backbone.eval()
        features = torch.randn(2, 160, 128)
        mask = torch.zeros(2, 160, dtype=torch.bool)
        mask[1, 96:] = True
        with torch.no_grad():
            before = backbone(features, mask)
            features[1, 96:] = 100.0
            after = backbone(features, mask)
            unmasked = backbone(features)
        torch.testing.assert_close(after, before)
        torch.testing.assert_close(unmasked[0], before[0])
        assert (unmasked[1] - before[1]).abs().max() > 1e-4

    def test_no_padding_is_the_same_as_no_mask(self) -> None:
        backbone = small().backbone.eval()
        features = torch.randn(2, 100, 128)
        torch.testing.assert_close(backbone(features, torch.zeros(2, 100, dtype=torch.bool)), backbone(features))


class TestNetwork:
    def test_buckets(self) -> None:
        bias = RelativePositionBias(320, 800, 12)
        bucket = dict(zip(range(-1000, 1001), bias.buckets(1001).tolist(), strict=True))
        assert [bucket[o] for o in (0, -1, -79, 1, 79)] == [0, 1, 79, 161, 239]
        far = 80 + int(math.log(200 / 80) / math.log(800 / 80) * 80)
        assert (bucket[-200], bucket[200]) == (far, 160 + far)
        assert (bucket[-80], bucket[-800], bucket[1000]) == (80, 159, 319)

    def test_bias_rows_are_queries(self) -> None:
        bias = RelativePositionBias(320, 800, 2)
        values, buckets = bias(5), bias.buckets(5)
        assert values.shape == (1, 2, 5, 5)
        assert torch.equal(values[0, :, 1, 4], bias.table.weight[buckets[4 - 1 + 4]])

    def test_attention_is_softmax_of_scores_plus_gated_bias(self) -> None:
        attention = SelfAttention(32, 2, dropout=0.0).eval()
        torch.nn.init.uniform_(attention.grep_a, 0.5, 1.5)
        x, bias = torch.randn(3, 7, 32), torch.randn(1, 2, 7, 7)
        key_mask = torch.zeros(3, 1, 1, 7)
        key_mask[2, ..., 5:] = -math.inf
        q, k, v = (getattr(attention, f"{n}_proj")(x).view(3, 7, 2, 16).transpose(1, 2) for n in ("q", "k", "v"))
        gates = torch.sigmoid(attention.grep_linear(q).view(3, 2, 7, 2, 4).sum(-1))
        gate = gates[..., :1] * (gates[..., 1:] * attention.grep_a - 1) + 2
        weights = (q @ k.transpose(-1, -2) / 4 + gate * bias + key_mask).softmax(-1)
        expected = attention.out_proj((weights @ v).transpose(1, 2).reshape(3, 7, 32))
        torch.testing.assert_close(attention(x, bias, key_mask), expected, atol=1e-5, rtol=1e-4)

    def test_gradient_checkpointing_changes_no_gradient(self) -> None:
        plain = small().backbone.train()
        frugal = copy.deepcopy(plain)
        frugal.enable_gradient_checkpointing()
        features, mask = torch.randn(2, 64, 128), torch.zeros(2, 64, dtype=torch.bool)
        mask[1, 40:] = True
        for backbone in (plain, frugal):
            backbone(features, mask).square().sum().backward()
        for (name, a), b in zip(plain.named_parameters(), frugal.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad), name

    def test_runs_under_bfloat16_autocast(self) -> None:
        backbone = small().backbone
        features, mask = torch.randn(2, 64, 128), torch.zeros(2, 64, dtype=torch.bool)
        mask[1, 40:] = True
        exact = backbone(features, mask)
        with torch.autocast("cpu", torch.bfloat16):
            logits = backbone(features, mask)
        assert logits.isfinite().all()
        logits.float().sum().backward()
        assert (logits - exact).norm() / exact.norm() < 0.05

    def test_every_parameter_gets_a_gradient(self) -> None:
        model = small()
        model(torch.rand(2, 16000) - 0.5, torch.tensor([16000, 9000])).square().sum().backward()
        assert [n for n, p in model.backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


class TestConf:
    def test_variants_of_the_config(self) -> None:
        tiny = build("beats", variant="tiny")
        assert 300_000 < sum(p.numel() for p in tiny.backbone.parameters()) < 1_300_000
        official = build("beats", variant="official", num_classes=527)
        assert sum(p.numel() for p in official.backbone.parameters()) == 90_717_055
