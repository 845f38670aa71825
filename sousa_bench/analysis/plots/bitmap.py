"""A picture of many numbers as a PNG in a data address: spectrograms."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import hex_to_rgb, sequential


def bitmap(shown: NDArray[np.float32]) -> str:
    """(frames, bins) as a data address: low bins at the bottom, the quietest two percent black."""
    low, high = np.percentile(shown, (2, 100))
    level = np.clip((shown.T[::-1] - low) / max(float(high - low), 1e-9), 0, 1)
    colours = np.array([hex_to_rgb(colour) for colour in sequential.Viridis], dtype=float)
    places = np.linspace(0, 1, len(colours))
    pixels = np.stack([np.interp(level, places, colours[:, channel]) for channel in range(3)], axis=-1)
    file = BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
