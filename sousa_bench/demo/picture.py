"""What a recording looks like: its waveform, and the features that the model itself hears, as one SVG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sousa_bench.analysis.plots.bitmap import bitmap
from sousa_bench.data.augmentation import FULL_SCALE
from sousa_bench.inference.audio import Recording
from sousa_bench.inference.predictor import Predictor
from sousa_bench.models.htsat_frontend import HtsatFrontend

WIDTH, WAVE_HEIGHT, FEATURE_HEIGHT, AXIS = 1000, 140, 240, 26
LEAST_SECONDS = 0.2
"""A shorter clip's features are those of the clip and silence: BEATs needs 16 frames."""


@dataclass(frozen=True)
class Sound:
    """A recording as it is drawn.

    Attributes:
        low: (columns,) lowest samples, -1..1.
        high: (columns,) highest.
        seconds: Of the whole recording.
        beginning: (samples,) int16 at the model's rate: as much as one window of the model.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    seconds: float
    beginning: NDArray[np.int16]

    @classmethod
    def read(cls, path: Path, predictor: Predictor) -> Sound:
        """Read a file once.

        Raises:
            BadClip: It holds no usable audio.
        """
        recording = Recording(path, predictor.sample_rate)
        most, piece = round(predictor.max_duration * predictor.sample_rate), max(predictor.sample_rate // 500, 1)
        lows, highs, kept = [], [], np.zeros(0, np.int16)
        for block in recording.blocks():
            if len(kept) < most:
                kept = np.concatenate([kept, block[: most - len(kept)]])
            if len(block):
                starts = np.arange(0, len(block), piece)
                lows.append(np.minimum.reduceat(block, starts))
                highs.append(np.maximum.reduceat(block, starts))
        low, high = np.concatenate(lows), np.concatenate(highs)
        starts = np.unique(np.linspace(0, len(low), WIDTH, endpoint=False).astype(int))
        return cls(
            np.minimum.reduceat(low, starts) / FULL_SCALE,
            np.maximum.reduceat(high, starts) / FULL_SCALE,
            recording.seconds,
            kept,
        )


@torch.inference_mode()
def features(predictor: Predictor, clip: NDArray[np.int16]) -> NDArray[np.float32]:
    """(frames, bins): what the model's front end makes of a clip."""
    least = round(LEAST_SECONDS * predictor.sample_rate)
    padded = np.pad(clip, (0, max(0, least - len(clip))))
    waveform = torch.from_numpy(padded)[None].to(predictor.device).float() / FULL_SCALE
    found, _ = predictor.model.features(waveform, torch.tensor([len(padded)], device=predictor.device))
    return found[0].float().cpu().numpy()


def drawing(predictor: Predictor, sound: Sound) -> str:
    """The SVG: the waveform with its seconds, below it the features of the window that is heard first."""
    shown = features(predictor, sound.beginning)
    heard = len(sound.beginning) / predictor.sample_rate
    frontend = predictor.model.frontend
    repeated = isinstance(frontend, HtsatFrontend) and frontend.mode != "stretch"
    end = "repeated until it fills the model's input" if repeated else f"0 to {heard:.2f} s"
    title = f"Spectrogram as the model hears it: {shown.shape[1]} mel bins, {len(shown)} frames, {end}"
    top = WAVE_HEIGHT + 2 * AXIS
    height = top + FEATURE_HEIGHT + 4
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img" aria-label="Waveform and spectrogram" '
        'font-size="15" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        f'<path id="waveform" d="{_outline(sound)}" fill="#4c78a8" stroke="#4c78a8" stroke-width="0.6"/>'
        f"{_ticks(sound.seconds)}"
        f'<text x="0" y="{top - 8}">{title}</text>'
        f'<image id="spectrogram" x="0" y="{top}" width="{WIDTH}" height="{FEATURE_HEIGHT}" '
        f'preserveAspectRatio="none" href="{bitmap(shown)}"/></svg>'
    )


def _outline(sound: Sound) -> str:
    """A closed path along the highest samples and back along the lowest, scaled to the loudest."""
    peak = max(float(sound.high.max()), -float(sound.low.min()), 1e-6)
    x = np.linspace(0, WIDTH, len(sound.high))
    middle, scale = WAVE_HEIGHT / 2, 0.48 * WAVE_HEIGHT / peak
    there = [f"{a:.1f},{middle - scale * b:.1f}" for a, b in zip(x, sound.high, strict=True)]
    back = [f"{a:.1f},{middle - scale * b:.1f}" for a, b in zip(x[::-1], sound.low[::-1], strict=True)]
    return "M" + "L".join(there + back) + "Z"


def _ticks(seconds: float) -> str:
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600) if seconds / s <= 10), 3600)
    marks = []
    for number in range(int(seconds / step + 1e-9) + 1):
        x = WIDTH * number * step / seconds
        anchor = "start" if number == 0 else "middle" if x < WIDTH - 30 else "end"
        marks.append(f'<text x="{x:.1f}" y="{WAVE_HEIGHT + 18}" text-anchor="{anchor}">{number * step:g} s</text>')
    return "".join(marks)
