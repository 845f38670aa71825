"""The test predictions of one run, clip by clip, and what stands out in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from sousa_bench.system.files import replaced

COLUMNS = ("sample_id", "player", "label", "rudiment", "skill_tier", "tempo_bpm", "soundfont", "augmentation_preset")


def write_predictions(path: Path, table: pd.DataFrame, logits: np.ndarray) -> None:
    """Write one row a clip: who played what, what was predicted, and all logits.

    Args:
        path: The Parquet file; it appears whole or not at all.
        table: The clips, in the order of ``logits``.
        logits: (clips, classes) float32.
    """
    frame = table[[column for column in COLUMNS if column in table]].reset_index(drop=True)
    frame = frame.assign(predicted=logits.argmax(axis=1), logits=list(logits))
    with replaced(path) as draft:
        frame.to_parquet(draft, index=False)


def outcome_warnings(
    logits: np.ndarray, labels: np.ndarray, names: Sequence[str], *, partial: bool, random_weights: bool
) -> list[str]:
    """What a reader of the test accuracy must know.

    Args:
        logits: (clips, classes).
        labels: (clips,).
        names: Class names.
        partial: Only some batches of the test split were used.
        random_weights: The run started from random weights.
    """
    messages = []
    predicted = logits.argmax(axis=1)
    clips, hits = len(labels), int((predicted == labels).sum())
    if partial:
        messages.append(f"only {clips} test clips were used (trainer.eval_batches): the metrics are no comparison")
    if len(np.unique(predicted)) == 1:
        messages.append(f"the model predicts one class for every test clip: {names[predicted[0]]}")
    chance = max(int(np.bincount(labels).max()) / clips, 1 / len(names))
    if binomtest(hits, clips, chance, alternative="greater").pvalue > 0.05:
        messages.append(
            f"test accuracy {hits / clips:.4f} is not above chance ({hits} of {clips} clips; {chance:.4f} by always "
            "naming one class)" + (", which is what random weights give" if random_weights else "")
        )
    return messages
