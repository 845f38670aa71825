"""The test predictions of one run, clip by clip, and what stands out in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtr

from sousa_bench.data.saved_task import is_sousa
from sousa_bench.results.player_variance import clustered
from sousa_bench.system.files import replaced
from sousa_bench.task import Task

OF_SOUSA = ("skill_tier", "tempo_bpm", "soundfont", "augmentation_preset")
COLUMNS = ("sample_id", "group", "label", "class", *OF_SOUSA)
SOUSA_COLUMNS = {"group": "player", "class": "rudiment"}
"""What two columns have been called since before there were other tasks, and are called where the task says so."""


def write_predictions(path: Path, table: pd.DataFrame, logits: np.ndarray, task: Task) -> None:
    """Write one row a clip: its group, its label or labels, what was predicted, and all logits.

    The two columns `group` and `class` are called `player` and `rudiment` where the task calls them so. What only
    SOUSA says of a clip is left out where no clip of others says it. With several
    labels a clip, `label` holds a list, and there is no `predicted`.

    Args:
        path: The Parquet file; it appears whole or not at all.
        table: The clips, in the order of ``logits``.
        logits: (clips, classes) float32.
        task: What the logits answer.
    """
    known = [column for column in COLUMNS if column in table]
    if not is_sousa(task):
        known = [column for column in known if column not in OF_SOUSA or not _is_unknown(table[column])]
    frame = table[known].reset_index(drop=True)
    if not task.several:
        frame = frame.assign(predicted=logits.argmax(axis=1))
    own = {task.group, task.noun}
    frame = frame.assign(logits=list(logits)).rename(
        columns={now: then for now, then in SOUSA_COLUMNS.items() if then in own}
    )
    with replaced(path) as draft:
        frame.to_parquet(draft, index=False)


def _is_unknown(values: pd.Series) -> bool:
    return bool((values.isna() | (values == "unknown")).all())


def above_chance(right: np.ndarray, players: np.ndarray | pd.Series, chance: float) -> float:
    """One-sided p value of a share of right clips against chance, with the players as the sample.

    The variance is what independent clips have at chance, times the design effect: how many times as far apart the
    players are as independent clips would put them, at least once (Rao and Scott 1992, Biometrics 48, 577-585).

    Args:
        right: (clips,) bool.
        players: (clips,) names.
        chance: Share that luck would give.

    Returns:
        From 0 to 1; NaN for one player above chance, whose clips tell nothing of others.
    """
    codes, _ = pd.factorize(np.asarray(players))
    [share], [variance], [dof] = clustered(
        np.bincount(codes, weights=right).astype(np.float64), np.bincount(codes).astype(np.float64)
    )
    if share <= chance:
        return 1.0
    independent = share * (1 - share) / len(right)
    design_effect = max(1.0, variance / independent) if independent > 0 else 1.0
    error = np.sqrt(design_effect * chance * (1 - chance) / len(right))
    return float(stdtr(dof, (chance - share) / error))


def outcome_warnings(
    logits: np.ndarray,
    labels: np.ndarray,
    task: Task,
    groups: np.ndarray | pd.Series,
    *,
    partial: bool,
    random_weights: bool,
) -> list[str]:
    """What a reader of the test accuracy must know.

    Args:
        logits: (clips, classes).
        labels: (clips,), or (clips, classes) of 0 and 1 where a clip may have several.
        task: What the logits answer.
        groups: (clips,) names.
        partial: Only some batches of the test split were used.
        random_weights: The run started from random weights.
    """
    messages = []
    clips = len(labels)
    if partial:
        messages.append(f"only {clips} test clips were used (trainer.eval_batches): the metrics are no comparison")
    if task.several:
        return messages
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    hits = int(right.sum())
    if len(np.unique(predicted)) == 1:
        messages.append(f"the model predicts one class for every test clip: {task.classes[predicted[0]]}")
    chance = max(int(np.bincount(labels).max()) / clips, 1 / len(task.classes))
    p = above_chance(right, groups, chance)
    if np.isnan(p):
        messages.append(
            f"all {clips} test clips are by one {task.group}: whether the test accuracy {hits / clips:.4f} is more "
            "than luck can't be told for others"
        )
    elif p > 0.05:
        of_groups = f" by {len(set(groups))} {task.groups}" if task.grouped else ""
        messages.append(
            f"test accuracy {hits / clips:.4f} is not above chance ({hits} of {clips} clips{of_groups}; {chance:.4f} "
            "by always naming one class)" + (", which is what random weights give" if random_weights else "")
        )
    return messages
