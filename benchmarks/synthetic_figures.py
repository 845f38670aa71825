"""The pictures of docs/synthetic.md: `python benchmarks/synthetic_figures.py docs/images`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.rudiments import DISPLAY
from sousa_bench.data.synthetic import SAMPLE_RATE
from sousa_bench.data.synthetic.drums import DRUMS, make_bank
from sousa_bench.data.synthetic.performance import SOUSA_TAIL_MS, Performance, Player, make_player, perform
from sousa_bench.data.synthetic.rooms import render

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN: tuple[str, ...] = ("single_paradiddle", "flam_accent", "single_ratamacue", "multiple_bounce_roll")
"""One rudiment of each family, and the buzz roll."""

SECONDS = 2.4
HOP = 256
FLOOR_DB = -60.0
COLOURS = {"accent": "#b2182b", "tap": "#2166ac", "diddle": "#1b7837", "grace": "#e08214", "buzz": "#762a83"}


def _professional() -> Player:
    cast = (make_player(0, "target", number) for number in range(60))
    return next(player for player in cast if (player.tier, player.dominant_hand) == ("professional", "right"))


def _example(slug: str, drum: int) -> tuple[Performance, NDArray[np.int16]]:
    rng = np.random.default_rng(0)
    performance = perform(slug, 100, _professional(), "even", rng)
    samples = int((performance.duration_ms + SOUSA_TAIL_MS) * SAMPLE_RATE / 1000)
    return performance, render(performance.strokes, samples, make_bank("target", drum), "target", 1, 0, rng)


def spectrogram_db(audio: NDArray[np.int16], window: int = 1024, hop: int = HOP) -> NDArray[np.float64]:
    """Power spectrogram relative to its maximum, dB: (window / 2 + 1 bins, frames)."""
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64), window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)).T ** 2
    return np.maximum(10 * np.log10(power / power.max() + 1e-12), FLOOR_DB)


def spectrograms() -> "go.Figure":
    """Four rudiments on a drum with snares (left) and on a tonal one (right)."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    drums = (0, 5)
    titles = [f"{DISPLAY[slug]} · {DRUMS['target'][drum].name}" for slug in SHOWN for drum in drums]
    figure = make_subplots(len(SHOWN), 2, subplot_titles=titles, vertical_spacing=0.06, horizontal_spacing=0.06)
    for row, slug in enumerate(SHOWN, 1):
        for column, drum in enumerate(drums, 1):
            image = spectrogram_db(_example(slug, drum)[1][: int(SECONDS * SAMPLE_RATE)])
            time = np.arange(image.shape[1]) * HOP / SAMPLE_RATE
            kilohertz = np.arange(image.shape[0]) * SAMPLE_RATE / 1024 / 1000
            keep = kilohertz <= 8
            heat = go.Heatmap(
                x=time, y=kilohertz[keep], z=image[keep], colorscale="Inferno", zmin=FLOOR_DB, zmax=0, showscale=False
            )
            figure.add_trace(heat, row, column)
    figure.update_yaxes(title_text="kHz", col=1)
    figure.update_xaxes(title_text="seconds", row=len(SHOWN))
    return figure.update_layout(width=900, height=760, template="simple_white", margin={"t": 40, "b": 50})


def onsets() -> "go.Figure":
    """Waveforms with every stroke where the labels put it: its height is its velocity, its colour its type."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = [DISPLAY[slug] for slug in SHOWN]
    figure = make_subplots(len(SHOWN), 1, subplot_titles=titles, shared_xaxes=True, vertical_spacing=0.06)
    for row, slug in enumerate(SHOWN, 1):
        performance, audio = _example(slug, 2)
        step = 16
        wave = audio[: int(SECONDS * SAMPLE_RATE) // step * step].astype(float).reshape(-1, step) / 32768
        envelope = np.stack([wave.min(1), wave.max(1)], 1).ravel()
        time = np.arange(len(envelope)) * step / 2 / SAMPLE_RATE
        line = {"color": "#bbbbbb", "width": 1}
        figure.add_trace(go.Scatter(x=time, y=envelope, line=line, showlegend=False), row, 1)
        strokes = performance.strokes[performance.strokes["actual_time_ms"] < SECONDS * 1000]
        for kind, colour in COLOURS.items():
            chosen = strokes[strokes["stroke_type"] == kind]
            if len(chosen) == 0:
                continue
            x = np.repeat(chosen["actual_time_ms"] / 1000, 3)
            y = np.stack([np.zeros(len(chosen)), chosen["actual_velocity"] / 127, np.full(len(chosen), np.nan)], 1)
            figure.add_trace(
                go.Scatter(x=x, y=y.ravel(), mode="lines", name=kind, line={"color": colour, "width": 2},
                           legendgroup=kind, showlegend=kind not in {trace.name for trace in figure.data}),
                row, 1,
            )  # fmt: skip
            names = {"x": chosen["actual_time_ms"] / 1000, "y": chosen["actual_velocity"] / 127 + 0.1}
            if kind != "buzz":
                marks = go.Scatter(**names, mode="text", text=chosen["hand"], showlegend=False)
                figure.add_trace(marks, row, 1)
    figure.update_xaxes(title_text="seconds", row=len(SHOWN))
    return figure.update_layout(width=1200, height=1000, template="simple_white", margin={"t": 40, "b": 50})


def main(arguments: list[str] | None = None) -> None:
    """Write `synthetic_spectrograms.png` and `synthetic_onsets.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go, e.g. docs/images")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (("spectrograms", spectrograms()), ("onsets", onsets())):
        path = folder / f"synthetic_{name}.png"
        figure.write_image(path)
        print(path)


if __name__ == "__main__":
    main()
