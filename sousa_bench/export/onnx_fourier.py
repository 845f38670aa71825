"""Fourier kernels that a graph computes when it is opened, instead of carrying them: 24 kB for 4.2 MB."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

KERNELS = ".power.kernels"
"""How the front ends' kernels are called, see :class:`sousa_bench.export.onnx_frontends.PowerSpectrum`."""
ROUNDING = 3e-7
"""Of kernels up to 1: a product of two rounded numbers against a rounded product."""


def compute_kernels(model: onnx.ModelProto) -> None:
    """Replace, in place, kernels that are a Fourier transform times a window by nodes that multiply the two.

    A runtime does that once, since they depend on constants alone. Other kernels (of frames that are centred and
    pre-emphasised) stay.
    """
    graph = model.graph
    for tensor in [each for each in graph.initializer if each.name.endswith(KERNELS)]:
        kernels = numpy_helper.to_array(tensor)
        parts = _parts(kernels)
        if np.abs(_product(parts) - kernels).max() > ROUNDING:
            continue
        graph.initializer.remove(tensor)
        name = {key: f"{tensor.name}.{key}" for key in (*parts, "products", "turns", "values", "waves")}
        graph.initializer.extend(numpy_helper.from_array(value, name[key]) for key, value in parts.items())
        nodes = [
            helper.make_node("Mul", [name["frequencies"], name["samples"]], [name["products"]]),
            helper.make_node("Mod", [name["products"], name["n_fft"]], [name["turns"]]),
            helper.make_node("Gather", [name["table"], name["turns"]], [name["values"]], axis=1),
            helper.make_node("Reshape", [name["values"], name["shape"]], [name["waves"]]),
            helper.make_node("Mul", [name["waves"], name["window"]], [tensor.name]),
        ]
        for place, node in enumerate(nodes):
            graph.node.insert(place, node)


def _parts(kernels: np.ndarray) -> dict[str, np.ndarray]:
    """What such kernels follow from; their first row is the window, since a cosine of frequency 0 is 1."""
    count, _, length = kernels.shape
    n_fft = count - 2
    angle = np.arange(n_fft) * (2 * np.pi / n_fft)
    return {
        "frequencies": np.arange(count // 2)[:, None],
        "samples": np.arange(length)[None],
        "n_fft": np.array(n_fft),
        "table": np.stack((np.cos(angle), -np.sin(angle))).astype(np.float32),
        "shape": np.array(kernels.shape),
        "window": kernels[0, 0],
    }


def _product(parts: dict[str, np.ndarray]) -> np.ndarray:
    turns = parts["frequencies"] * parts["samples"] % parts["n_fft"]
    product: np.ndarray = parts["table"][:, turns].reshape(parts["shape"]) * parts["window"]
    return product
