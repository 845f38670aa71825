"""Proof that a written package gives the run's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sousa_bench.data.augmentation import FULL_SCALE
from sousa_bench.data.decode import SHORTEST
from sousa_bench.errors import UserError
from sousa_bench.export.onnx_graph import INPUT, OUTPUT, Grid
from sousa_bench.inference.predictor import Predictor

TOLERANCE = 1e-4
"""Largest difference of logits, absolute where they are below 1, else relative to the largest of them."""


class CheckError(UserError):
    """An exported package that gives other numbers than the run."""


def check(draft: Path, graph: Path, run: Predictor) -> dict[str, Any]:
    """Compare the graph under onnxruntime, and the merged weights, with the run's own model at several lengths.

    Args:
        draft: A whole package.
        graph: Its ONNX file.
        run: The run, its adapter not merged.

    Returns:
        What ``config.json`` says of the check.

    Raises:
        CheckError: The numbers differ by more than :data:`TOLERANCE`.
    """
    session = open_session(graph)
    merged = Predictor.open(draft)
    grid = Grid(round(run.quantum * run.sample_rate), round(run.max_duration * run.sample_rate))
    worst = {"onnx": 0.0, "weights": 0.0}
    samples = lengths(grid, run.sample_rate)
    for number, size in enumerate(samples):
        clips = noise_bursts(size, 1 + number % 2, seed=number)
        kept = [clip[: grid.most] for clip in clips]
        wanted = run.logits(kept)
        scale = max(1.0, float(np.abs(wanted).max()))
        for what, given in {"onnx": logits(session, clips), "weights": merged.logits(kept)}.items():
            error = float(np.abs(given - wanted).max()) / scale
            if not error <= TOLERANCE:  # NaN too
                raise CheckError(
                    f"the exported {what} of {run.place} give other logits than the run for a clip of {size} samples: "
                    f"by {error:.1e} of the largest (tolerance {TOLERANCE:.0e}); no package was written"
                )
            worst[what] = max(worst[what], error)
    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "seconds": [round(size / run.sample_rate, 4) for size in samples],
        "tolerance": TOLERANCE,
        "onnx_error": worst["onnx"],
        "weights_error": worst["weights"],
    }


def lengths(grid: Grid, sample_rate: int) -> list[int]:
    """Samples of the clips that are compared: the ends, both sides of a step, between steps, and too long."""
    inside = [round(SHORTEST * sample_rate), grid.step - 1, grid.step, grid.step + 1, round(0.57 * grid.most)]
    return sorted({min(size, grid.most) for size in inside if size > 0} | {grid.most, grid.most + grid.step // 2})


def noise_bursts(samples: int, count: int, seed: int) -> np.ndarray:
    """(count, samples) int16: decaying bursts of noise with silence between them, as different as clips are."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, samples)) * 0.3
    period = rng.integers(samples // 4 + 1, samples // 2 + 2, (count, 1))
    burst = noise * np.exp(-12 * (np.arange(samples) % period) / period)
    return np.clip(np.rint(burst * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def open_session(graph: Path) -> onnxruntime.InferenceSession:
    """The graph on the CPU, in as many threads as torch has."""
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def logits(session: onnxruntime.InferenceSession, clips: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """(clips, classes) float32 of int16 clips of one length."""
    waveform = np.stack(list(clips)).astype(np.float32) / np.float32(FULL_SCALE)
    return np.asarray(session.run([OUTPUT], {INPUT: waveform})[0])
