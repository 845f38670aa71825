"""The frequency that a front end gives for a bin is one that this bin hears."""

import pytest
import torch
from building import build


@pytest.mark.parametrize(
    "name", ["ast", "htsat", "beats", "efficientat", "ced", "dasheng", "eat", "passt", "openbeats", "whisper"]
)
def test_a_tone_is_loudest_where_its_frequency_is_marked(name: str) -> None:
    model = build(name).eval()
    centres = model.frontend.centres()
    assert centres is not None
    assert (centres.diff() >= 0).all()
    time = torch.arange(model.sample_rate) / model.sample_rate
    for pitch in (300.0, 1000.0, 4000.0):
        features, _ = model.features(0.3 * torch.sin(2 * torch.pi * pitch * time)[None])
        loudest = int(features[0, 20:60].mean(dim=0).argmax())
        assert len(centres) == features.shape[2]
        assert float(centres[loudest]) == pytest.approx(pitch, rel=0.05, abs=20)
