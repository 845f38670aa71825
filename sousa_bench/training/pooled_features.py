"""What the head's last layer takes of each clip, computed once: what methods without steps are fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sousa_bench.data.datamodule import Clips, EvalBatches
from sousa_bench.training.classifier import Classifier

Array = NDArray[np.float64]
Split = tuple[Array, NDArray[np.int64]]
"""(clips, columns), and labels: (clips,), or (clips, classes) of 0 and 1."""


@dataclass(frozen=True)
class Fitted:
    """What a fit found.

    Attributes:
        loss: Mean cross-entropy of the training clips.
        facts: For the result's block ``peft``.
        steps: That it took, if any.
        warnings: Of the run.
        logits: (validation clips, classes) that the network must now give, where that isn't sure; in their order.
    """

    loss: float
    facts: Mapping[str, Any]
    steps: int = 0
    warnings: list[str] = field(default_factory=list)
    logits: Array | None = None


@dataclass(frozen=True)
class PooledFeatures:
    """Features of a split.

    Attributes:
        clips: The split.
        index: (pieces,) positions in its ``pieces``.
        rows: (pieces, columns).
    """

    clips: Clips
    index: NDArray[np.int64]
    rows: Array

    @classmethod
    @torch.no_grad()
    def of(cls, module: Classifier, split: str, size: int, limit: int | None) -> PooledFeatures:
        """Compute them, with a model that hands them on; at most ``limit`` batches of ``size`` pieces."""
        if limit is None:
            module.inputs.fill(split)
        batches = EvalBatches(module.clips[split], size, limit=limit)
        rows = [module.inputs.plain(split, batch.index).logits().double().cpu().numpy() for batch in batches]
        return cls(module.clips[split], np.concatenate([batch.index for batch in batches]), np.concatenate(rows))

    def by_clip(self) -> Split:
        """Of a clip of several windows their mean, whose linear logits are the mean of the windows' logits."""
        return self.mean(self.rows)

    def mean(self, values: Array) -> Split:
        """The means of the pieces' values (pieces, any) of each clip, and the clips' labels."""
        index, means = self.clips.pieces.mean(self.index, values)
        return means, self.clips.labels.numpy()[index]

    def labels(self) -> NDArray[np.int64]:
        """Of each piece, those of its clip."""
        labels: NDArray[np.int64] = self.clips.labels.numpy()[self.clips.pieces.clip[self.index]]
        return labels
