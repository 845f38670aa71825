import numpy as np
import pytest
import torch
import torchaudio
from building import build, clips
from torch.nn import functional as F

from sousa_bench.errors import DataError
from sousa_bench.models.ast import AstBackbone
from sousa_bench.models.base import AudioModel
from sousa_bench.models.fbank import KaldiFbank


@pytest.fixture(scope="module")
def model() -> AudioModel:
    return build("ast").eval()


@pytest.mark.parametrize(("kind", "name", "scale"), [("hann", "hanning", 1.0), ("povey", "povey", 32768.0)])
def test_filter_bank_is_torchaudios(kind: str, name: str, scale: float) -> None:
    waveform, _ = clips(1.0, 1.0)
    expected = [
        torchaudio.compliance.kaldi.fbank(
            clip[None] * scale,
            window_type=name,
            num_mel_bins=128,
            sample_frequency=16000,
            dither=0.0,
            frame_shift=10,
            htk_compat=True,
            use_energy=False,
        )
        for clip in waveform
    ]
    bank = KaldiFbank(kind, scale=scale)
    torch.testing.assert_close(bank(waveform), torch.stack(expected), atol=2e-5, rtol=0)
    assert bank.frames(16000) == expected[0].shape[0]
    assert bank.frames(torch.tensor([0, 399, 400, 560])).tolist() == [0, 0, 1, 2]


def test_filter_bank_refuses_less_than_a_frame() -> None:
    with pytest.raises(DataError, match=r"399 samples.*400 samples at 16000 Hz"):
        KaldiFbank("hann")(torch.zeros(1, 399))


def test_without_lengths_the_official_1024_frames(model: AudioModel) -> None:
    short, _ = clips(2.0)
    features, mask = model.features(short)
    assert features.shape == (1, 1024, 64)
    assert mask is None
    torch.testing.assert_close(features[:, 198:], torch.full((1, 826, 64), 4.2677393 / (2 * 4.5689974)))
    assert model.frontend.pad_value == pytest.approx(0.46703, abs=1e-5)
    long, _ = clips(11.0)
    assert model.features(long)[0].shape == (1, 1024, 64)


def test_features_depend_on_the_clip_alone(model: AudioModel) -> None:
    waveform, lengths = clips(3.0, 1.7)
    both, _ = model.features(waveform, lengths)
    alone, _ = model.features(waveform[1:, : lengths[1]], lengths[1:])
    own = alone.shape[1]
    torch.testing.assert_close(both[1:, :own], alone, atol=1e-5, rtol=0)
    assert (both[1, own:] == model.frontend.pad_value).all()
    # What stands behind the clip's end, say a neighbour's noise, is not seen.
    waveform[1, lengths[1] :] = 1.0
    assert torch.equal(model.features(waveform, lengths)[0], both)


def test_positions_of_shorter_input_come_from_the_middle(model: AudioModel) -> None:
    backbone: AstBackbone = model.backbone
    table = backbone.trunk.embeddings.position_embeddings
    rows, columns = backbone.grid
    grid = table[0, 2:].view(rows, columns, -1)
    for wanted in (1, 38, 39, columns - 1):
        start = int(columns / 2) - int(wanted / 2)
        expected = grid[:, start : start + wanted].reshape(rows * wanted, -1)
        assert torch.equal(backbone.positions(wanted)[0, 2:], expected)
        assert torch.equal(backbone.positions(wanted)[0, :2], table[0, :2])
    assert backbone.positions(columns) is table


def test_positions_of_longer_input_are_interpolated(model: AudioModel) -> None:
    backbone: AstBackbone = model.backbone
    rows, columns = backbone.grid
    grid = backbone.trunk.embeddings.position_embeddings[0, 2:].view(rows, columns, -1).permute(2, 0, 1)
    expected = F.interpolate(grid[None], (rows, columns + 30), mode="bilinear")[0].permute(1, 2, 0).flatten(0, 1)
    torch.testing.assert_close(backbone.positions(columns + 30)[0, 2:], expected)


def test_shorter_clips_cost_less_and_longer_ones_work(model: AudioModel) -> None:
    for seconds, frames in ((0.5, 48), (4.0, 398), (12.0, 1198)):
        features, _ = model.features(*clips(seconds))
        assert features.shape[1] == frames
        assert model.backbone.embed(features).shape[1] == 2 + 4 * ((frames - 16) // 10 + 1)
        assert model.backbone(features).shape == (1, 40)


def test_official_size() -> None:
    model = build("ast", variant="official")
    # The official file's 86,594,063 with 40 classes for 527, of 768 weights and a bias each.
    assert sum(p.numel() for p in model.backbone.parameters()) == 86_594_063 - 487 * 769
    assert (model.weights.kind, model.weights.origin, model.variant) == ("random", "seed 1", "official")
    assert model.backbone.trunk.config._attn_implementation == "sdpa"


def test_seed_decides(model: AudioModel) -> None:
    again, other = build("ast"), build("ast", seed=2)
    assert again.weights == model.weights
    assert other.weights.sha256 != model.weights.sha256
    waveform, lengths = clips(3.0, 2.0)
    assert np.array_equal(again.eval()(waveform, lengths).detach(), model(waveform, lengths).detach())
