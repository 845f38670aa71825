"""What is surely no drum: measured on real and synthetic clips, and on what is none."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sousa_bench.data.decode import decode, to_int16
from sousa_bench.inference.strokes import CONTRAST, contrast, has_strokes, is_silent
from tests.trained import ROOT, Trained

RATE = 16_000
SAMPLE = Path(os.environ.get("SOUSA_SAMPLE", ROOT.parent / "shared" / "sousa_sample"))


def coloured(seed: int, slope: float) -> np.ndarray:
    """Five seconds of noise whose power falls with frequency to the power ``slope``."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=5 * RATE))
    frequency = np.fft.rfftfreq(5 * RATE, 1 / RATE).clip(min=0.2)
    noise = np.fft.irfft(spectrum / frequency ** (slope / 2), 5 * RATE)
    return 0.7 * noise / np.abs(noise).max()


TIME = np.arange(5 * RATE) / RATE
STEADY = {
    **{f"tone of {f} Hz": 0.8 * np.sin(2 * np.pi * f * TIME + 0.7) for f in (5, 20, 50, 60, 100, 150, 440, 3000, 7000)},
    "white noise": coloured(0, 0),
    "pink noise": coloured(1, 1),
    "brown noise": coloured(2, 2),
    "offset": np.full(5 * RATE, 0.5),
    "a tone that begins and ends": 0.5 * np.sin(2 * np.pi * 440 * TIME) * ((TIME > 2) & (TIME < 3)),
    "noise that begins": coloured(3, 0) * (TIME > 2),
    "hum": sum(0.3 / k * np.sin(2 * np.pi * 50 * k * TIME) for k in range(1, 10)) + 0.002 * coloured(4, 0),
}


@pytest.mark.parametrize("name", STEADY)
def test_steady_sounds_hold_no_stroke(name: str):
    assert not has_strokes(to_int16(STEADY[name].astype(np.float32)), RATE)


def test_silence_is_told_from_a_steady_sound():
    assert is_silent(np.zeros(RATE, np.int16))
    assert is_silent(np.ones(RATE, np.int16))
    assert not is_silent(np.full(RATE, -20, np.int16))


@pytest.mark.parametrize("at", [0.0, 1.0, 4.9])
def test_one_stroke_is_enough_wherever_it_lies(at: float):
    clip = np.zeros(5 * RATE, np.float32)
    first = round(at * RATE)
    time = np.arange(len(clip) - first) / RATE
    clip[first:] = 0.5 * np.exp(-40 * time) * np.random.default_rng(0).normal(size=len(time)).clip(-2, 2)
    assert has_strokes(to_int16(clip), RATE)


def test_no_synthetic_clip_is_called_drumless(finished: Trained):
    for path in finished.audio().values():
        clips, _ = decode(str(path), (RATE, 2 * RATE), 10.0)
        assert all(has_strokes(clip, rate) for rate, clip in clips.items())


def test_no_real_clip_is_called_drumless():
    if not SAMPLE.is_dir():
        pytest.skip(f"needs the sample data in {SAMPLE} (SOUSA_SAMPLE)")
    audio: list[str | BytesIO] = sorted(map(str, (SAMPLE / "generator").glob("audio/*/*.flac")))[::4]
    for file in (SAMPLE / "hub").glob("audio/*.parquet"):
        audio += [BytesIO(item["bytes"]) for item in pd.read_parquet(file, columns=["audio"])["audio"]][::4]
    assert len(audio) >= 50
    weakest = min(contrast(decode(item, (RATE,), 10.0)[0][RATE], RATE) for item in audio)
    assert weakest > CONTRAST + 3
