"""What is drawn of a recording for models that hear a spectrogram, and for one that hears the waveform."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sousa_bench.demo.picture import Sound, drawing
from tests.models.building import build


@pytest.mark.parametrize(("name", "drawn"), [("whisper", "80 mel bins"), ("wavlm", "the waveform itself, 0 to 1.00 s")])
def test_a_spectrogram_is_drawn_where_there_is_one(name: str, drawn: str) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    sound = Sound(noise[:500].clip(max=0) / 32768, noise[:500].clip(min=0) / 32768, 1.0, noise)
    model = build(name)
    predictor = SimpleNamespace(model=model, sample_rate=model.sample_rate, device=torch.device("cpu"), task=None)
    svg = drawing(predictor, sound)  # type: ignore[arg-type]
    assert drawn in svg
    assert svg.count("<image") == svg.count('spectrogram" font') == (name == "whisper")
    assert 'id="waveform"' in svg
