"""What a recording looks like: waveform, timeline of answers, and the features that the model hears, as one SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from plotly.colors import qualitative

from sousa_bench.analysis.plots.bitmap import bitmap
from sousa_bench.data.augmentation import FULL_SCALE
from sousa_bench.inference.answer import stretch_text
from sousa_bench.inference.audio import Recording
from sousa_bench.inference.predictor import Predictor
from sousa_bench.models.htsat_frontend import HtsatFrontend
from sousa_bench.task import Task

WIDTH, WAVE_HEIGHT, FEATURE_HEIGHT, AXIS = 1000, 140, 240, 26
MARGIN = 76
"""On the left, for the frequencies."""
BAND = 30
"""Height of the timeline."""
LETTER = 8.0
"""Width of a letter, at most about; a stretch that is too narrow for its words shows them to the pointer alone."""
NOTHING = "#d9d9d9"
PITCHES = (20000, 10000, 5000, 2000, 1000, 500, 200, 100, 50)
LINE = 16
"""Least distance of two frequencies; low ones lie closer together than their words are high."""
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


def drawing(predictor: Predictor, sound: Sound, timeline: Sequence[Mapping[str, Any]] = ()) -> str:
    """The SVG: the waveform with its seconds, a timeline below it, and the features of the window that is heard first.

    Args:
        predictor: The model.
        sound: The recording.
        timeline: Of the answer's record; empty: none is drawn.
    """
    shown = features(predictor, sound.beginning)
    heard = len(sound.beginning) / predictor.sample_rate
    frontend = predictor.model.frontend
    repeated = isinstance(frontend, HtsatFrontend) and frontend.mode != "stretch"
    end = "repeated until it fills the model's input" if repeated else f"0 to {heard:.2f} s"
    band = BAND + 8 if timeline else 0
    top = WAVE_HEIGHT + 2 * AXIS + band
    drawn = shown.shape[1] > 1
    height = top + FEATURE_HEIGHT + 4 if drawn else top
    return (
        f'<svg viewBox="{-MARGIN} 0 {WIDTH + MARGIN} {height}" width="100%" role="img" '
        f'aria-label="Waveform{", timeline" if timeline else ""}{", spectrogram" if drawn else ""}" '
        'font-size="15" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        f'<path id="waveform" d="{_outline(sound)}" fill="#4c78a8" stroke="#4c78a8" stroke-width="0.6"/>'
        f"{_ticks(sound.seconds)}{_stretches(timeline, sound.seconds, predictor.task)}"
        f"{_spectrogram(shown, frontend.centres(), end, top) if drawn else _no_spectrogram(end, top)}</svg>"
    )


def _spectrogram(shown: NDArray[np.float32], centres: torch.Tensor | None, end: str, top: float) -> str:
    title = f"Spectrogram as the model hears it: {shown.shape[1]} mel bins, {len(shown)} frames, {end}"
    return (
        f'<text x="0" y="{top - 8}">{title}</text>'
        f'<image id="spectrogram" x="0" y="{top}" width="{WIDTH}" height="{FEATURE_HEIGHT}" '
        f'preserveAspectRatio="none" href="{bitmap(shown)}"/>'
        f"{_pitches(centres, top)}"
    )


def _no_spectrogram(end: str, top: float) -> str:
    return f'<text x="0" y="{top - 8}">The model hears the waveform itself, {end}</text>'


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


def _stretches(timeline: Sequence[Mapping[str, Any]], seconds: float, task: Task) -> str:
    """The timeline under the seconds of the waveform: a box a stretch, one colour a class."""
    colours: dict[str, str] = {}
    boxes = []
    for part in timeline:
        place, words = stretch_text(part, task)
        named = part["accepted"] if task.several else None if part["probability"] is None else [part]
        key = ", ".join(item["name"] for item in named or ())
        colour = colours.setdefault(key, qualitative.Pastel[len(colours) % len(qualitative.Pastel)]) if key else NOTHING
        x, width = (WIDTH * value / seconds for value in (part["start"], part["end"] - part["start"]))
        y = WAVE_HEIGHT + AXIS
        fits = LETTER * len(words) <= width
        text = f'<text x="{x + width / 2:.1f}" y="{y + 20}" text-anchor="middle">{html.escape(words)}</text>'
        boxes.append(
            f"<g><title>{html.escape(f'{place}: {words}')}</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAND}" fill="{colour}" stroke="white"/>'
            f"{text if fits else ''}</g>"
        )
    return f'<g id="timeline" fill="#111" font-size="14">{"".join(boxes)}</g>' if boxes else ""


def _pitches(centres: torch.Tensor | None, top: float) -> str:
    """Frequencies beside the spectrogram, each at the height of the bin that hears it."""
    if centres is None:
        return ""
    hertz = centres.cpu().numpy()
    marks, above = [], top - LINE
    for pitch in (pitch for pitch in PITCHES if hertz[0] <= pitch <= hertz[-1]):
        share = (float(np.interp(pitch, hertz, np.arange(len(hertz)))) + 0.5) / len(hertz)
        y = top + FEATURE_HEIGHT * (1 - share)
        if y < above + LINE:
            continue
        above = y
        name = f"{pitch / 1000:g} kHz" if pitch >= 1000 else f"{pitch} Hz"
        marks.append(
            f'<line x1="-6" x2="0" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor"/>'
            f'<text x="-10" y="{y + 5:.1f}" text-anchor="end">{name}</text>'
        )
    return f'<g id="hertz">{"".join(marks)}</g>'
