"""Latency of one clip and throughput of a batch, waveform to logits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sousa_bench.benchmark.setup import Setup
from sousa_bench.config.composing import composed


@dataclass(frozen=True)
class Inference:
    """Figures of one model.

    Attributes:
        setup: What was run.
        seconds_of_audio: Length of each clip.
        batch: Clips of a batch.
        latency_ms: Median for a single clip.
        clips_per_second: In batches.
    """

    setup: str
    seconds_of_audio: float
    batch: int
    latency_ms: float
    clips_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """Plain fields."""
        return asdict(self)


@torch.inference_mode()
def inference(overrides: Sequence[str], *, repeats: int, seconds: float = 5.0, batch: int = 16) -> Inference:
    """Time a model with its adapters in place, as ``evaluate`` and ``predict`` use it.

    Args:
        overrides: Which model.
        repeats: Passes that the medians are of, after one that warms up.
        seconds: Length of the clips.
        batch: Clips of a batch.
    """
    setup = Setup.of(composed(overrides))
    model = setup.module.model.eval()
    samples = round(seconds * model.sample_rate)
    noise = torch.rand(batch, samples, generator=torch.Generator().manual_seed(0)).sub(0.5).to(setup.device)

    def median(clips: torch.Tensor) -> float:
        taken = []
        for _ in range(repeats + 1):
            lengths = torch.full((len(clips),), samples, device=setup.device)
            setup.synchronize()
            started = time.perf_counter()
            with setup.autocast:
                model(clips, lengths)
            setup.synchronize()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken[1:])

    return Inference(" ".join(overrides), seconds, batch, 1e3 * median(noise[:1]), batch / median(noise))
