"""OpenBEATs where it is not BEATs: ESPnet's files and the authors', short clips, the padding rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from building import CONF, build, clips
from omegaconf import OmegaConf
from torch import Tensor

from sousa_bench.errors import WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.official_file import objection_to, variant_told
from tests.cases import check_each
from tests.parity.reference import table

SMALL = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 16,
    "embed_dim": 16,
}
CFG = {
    **SMALL,
    "max_distance": 800,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "dropout": 0.1,
    "codebook_vocab_size": 1024,
    "fbank_mean": 15.41663,
    "fbank_std": 6.55582,
}
PADS = ("patch_embedding_pad.weight", "raw2fbank_pad.weight")


def espnet_state() -> dict[str, Tensor]:
    """Tensors of ESPnet's file, its widths and depth cut down."""
    generator, state = torch.Generator().manual_seed(0), {}
    tied = torch.randn(320, 16, generator=generator)
    for entry in table("openbeats")["keys"]:
        layer = re.search(r"layers\.(\d+)\.", entry["key"])
        if layer is None or int(layer[1]) < SMALL["encoder_layers"]:
            shape = [n // 32 if n in (64, 512, 1024, 4096) else n for n in entry["shape"]]
            state[entry["key"]] = torch.randn(shape, generator=generator) * 0.2
            if "relative_attention_bias" in entry["key"]:
                state[entry["key"]] = tied.clone()
    return state


def small(state: dict[str, Tensor], folder: Path, cfg: object = None, **options: object) -> AudioModel:
    """The model of ESPnet's container, or with a ``cfg`` of the authors'."""
    path = folder / "epoch_latest.pth"
    own = {re.sub(r"^encoder\.", "", key): value for key, value in state.items() if not key.startswith("decoder.")}
    torch.save(state if cfg is None else {"cfg": cfg, "model": own}, path)
    variants = {"official": SMALL}
    return build("openbeats", weights="official", checkpoint=str(path), variants=variants, **options)  # type: ignore[arg-type]


def test_espnets_file_fills_the_network_and_keeps_its_head(tmp_path: Path) -> None:
    state = espnet_state()
    model = small(state, tmp_path, num_classes=None)
    own = model.backbone.state_dict()
    assert torch.equal(own["encoder.layers.1.fc2.weight"], state["encoder.encoder.layers.1.fc2.weight"])
    assert torch.equal(own["predictor.weight"], state["decoder.linear_out.weight"])
    assert model.classes == ()  # in which order stands in another file
    assert small(state, tmp_path).fresh == ("predictor",)


def test_the_authors_file_is_taken_with_and_without_the_masks_kernels(tmp_path: Path) -> None:
    state = espnet_state()
    model = small(state, tmp_path, CFG)
    assert model.backbone.encoder.layers[0].dropout.p == 0.1
    assert model.fresh == ("predictor",)
    bare = {key: value for key, value in state.items() if not key.endswith(PADS)}
    again = small(bare, tmp_path, CFG).backbone.state_dict()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, again[key]), key


@pytest.mark.slow
def test_each_missing_and_each_further_key_is_an_error(tmp_path: Path) -> None:
    whole = espnet_state()

    def check(key: str) -> None:
        with pytest.raises(WeightsError, match=r"missing (\(1\)|encoder\.layers)|fits none of"):
            small({name: value for name, value in whole.items() if name != key}, tmp_path, num_classes=None)

    check_each((key for key in whole if not key.endswith(PADS)), check)
    with pytest.raises(WeightsError, match=r"unexpected \(1\): encoder\.layers\.1\.fc3\.bias"):
        small(whole | {"encoder.encoder.layers.1.fc3.bias": torch.zeros(1)}, tmp_path)


@pytest.mark.parametrize(
    ("left_out", "says"), [("deep_norm", "deep_norm=False"), ("max_distance", "max_distance=1280")]
)
def test_what_a_cfg_leaves_out_is_as_the_official_code_has_it(left_out: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"its cfg has {says} "):
        small(espnet_state(), tmp_path, {key: value for key, value in CFG.items() if key != left_out})


def test_a_cfg_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="must hold 'cfg'"):
        small(espnet_state(), tmp_path, "large")


def test_statistics_of_a_files_own_are_a_question(tmp_path: Path) -> None:
    """The authors' package reads them in the file, ESPnet does not; a run's config has to say which."""
    state, other = espnet_state(), {**CFG, "fbank_mean": 15.66439}
    with pytest.raises(
        WeightsError, match=r"add model\.fbank_mean=15\.66439, or as ESPnet model\.fbank_mean=15\.41663"
    ):
        small(state, tmp_path, other)
    for mean in (15.66439, 15.41663):
        model = small(state, tmp_path, other, fbank_mean=mean)
        assert (model.frontend.mean, model.frontend.divisor) == (mean, 2 * 6.55582)
    assert small(state, tmp_path, fbank_std=5.0).frontend.divisor == 10


def test_a_variant_follows_from_the_file(tmp_path: Path) -> None:
    """And a file of the authors' is none of BEATs'."""
    path = tmp_path / "x.pt"
    for dim, layers, variant in ((768, 12, "official"), (1024, 24, "large")):
        state = {"post_extract_proj.weight": torch.zeros(dim, 512)}
        state |= {f"encoder.layers.{i}.fc1.bias": torch.zeros(1) for i in range(layers)}
        for content in ({"cfg": CFG, "model": state}, {f"encoder.{key}": value for key, value in state.items()}):
            torch.save(content, path)
            node = OmegaConf.to_container(OmegaConf.load(CONF / "openbeats.yaml"), resolve=False)
            assert isinstance(node, dict)
            node |= {"weights": "official", "checkpoint": str(path)}
            assert variant_told(node) == variant
            beats = {**node, "name": "beats", "_target_": "sousa_bench.models.beats.build"}
            assert "is a checkpoint of openbeats" in str(objection_to(beats))


def test_a_token_is_padding_when_any_sample_under_it_is() -> None:
    model = build("openbeats")
    waveform, lengths = clips(2.0, 1.0, 0.7, 0.25)
    features, mask = model.features(waveform, lengths)
    assert mask is not None
    columns = model.backbone.token_mask(mask, features.shape[1] // 16 * 8).unflatten(1, (-1, 8))
    assert columns.eq(columns[:, :, :1]).all()
    for length, column in zip(lengths, columns[:, :, 0], strict=True):
        last = [(16 * i + 15) * 160 + 400 for i in range(len(column))]  # samples up to each column's end
        assert column.tolist() == [end > int(length) for end in last]


def test_a_short_clip_is_repeated_at_its_own_length() -> None:
    model = build("openbeats").eval()
    waveform, lengths = clips(1.0, 0.1)
    once = waveform[1:, :1600]
    with torch.no_grad():
        alone = model(once.repeat(1, 3))
        torch.testing.assert_close(model(once), alone)
        torch.testing.assert_close(model(waveform, lengths)[1:], alone)
