"""How long a network takes for one clip on the CPU."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from sousa_bench.catalogue.model_facts import model_node
from sousa_bench.config.instantiate import build
from sousa_bench.models.base import AudioModel
from sousa_bench.models.multiply_adds import CLIP_SECONDS

REPEATS = 5


def add_latency(found: Sequence[dict[str, Any]], threads: int | None) -> None:
    """Add ``latency_ms`` and ``threads`` to the variants of some models, in place.

    Args:
        found: As :func:`sousa_bench.catalogue.model_facts.model_facts` gives them.
        threads: Of the CPU; None: as many as torch takes.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for model in found:
        for row in model["variants"]:
            print(f"timing {model['model']} {row['variant']} …", file=sys.stderr)
            made = build(model_node(model["model"]), variant=row["variant"])
            row |= {"latency_ms": 1e3 * latency(made), "threads": torch.get_num_threads()}


@torch.inference_mode()
def latency(model: AudioModel) -> float:
    """Seconds from waveform to logits of one clip, the median of a few passes after one that warms up."""
    model.eval()
    samples = CLIP_SECONDS * model.sample_rate
    noise = torch.rand(1, samples, generator=torch.Generator().manual_seed(0)) - 0.5
    lengths = torch.tensor([samples])
    taken = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        model(noise, lengths)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])
