"""The logits of a run's model on some clips, in the batches of the run's own test."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from sousa_bench.data.datamodule import Clips, EvalBatches
from sousa_bench.errors import UserError
from sousa_bench.inference.predictor import Predictor

PRECISIONS = ("auto", "32-true", "bf16-mixed")
LONG = 500


@dataclass(frozen=True)
class Heard:
    """What the model said.

    Attributes:
        clips: The clips, in the order of the rows.
        logits: (clips, classes) float32.
        seconds: That it took.
    """

    clips: Clips
    logits: Tensor
    seconds: float


def hear(predictor: Predictor, clips: Clips) -> Heard:
    """Run the model over clips.

    Args:
        predictor: Its ``batch_size`` counts.
        clips: Decoded.

    Raises:
        UserError: A logit is not finite.
    """
    started = time.perf_counter()
    logits = torch.zeros(len(clips), len(predictor.labels))
    batches = EvalBatches(clips, predictor.batch_size)
    quiet = len(clips) < LONG
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=len(clips), unit=" clips", disable=quiet, leave=False, mininterval=interval, file=sys.stderr
    ) as bar:
        for batch in batches:
            rows = predictor.logits([clips.store.read(int(i)) for i in batch.index])
            logits[torch.from_numpy(batch.index)] = torch.from_numpy(rows)
            bar.update(len(batch.index))
    if not torch.isfinite(logits).all():
        raise UserError(f"{predictor.place}: the model answers with numbers that are not finite; run it again")
    return Heard(clips, logits, time.perf_counter() - started)
