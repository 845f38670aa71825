"""The test predictions of one run, clip by clip, and what stands out in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtr

from sousa_bench.data.saved_task import is_sousa
from sousa_bench.results.metrics import mean_average_precision
from sousa_bench.results.player_variance import clustered
from sousa_bench.system.files import replaced
from sousa_bench.task import Task, counted

OF_SOUSA = ("skill_tier", "tempo_bpm", "soundfont", "augmentation_preset")
COLUMNS = ("sample_id", "group", "label", "class", *OF_SOUSA)
AS_RANDOM = ", which is what random weights give"
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


def several_above_chance(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | pd.Series
) -> tuple[float, float, int]:
    """Mean area under ROC against 0.5, with the groups as the sample, where a clip may have several labels.

    What a clip adds to an area is its placement among the clips that have, or lack, the class; sums by group give the
    variance (Obuchowski 1997, Biometrics 53, 567-578), here of the mean over classes, at least that of independent
    clips. As in `clustered`, a group's square counts the more the more of a class it holds, and groups of unlike shares
    leave fewer degrees of freedom (Kish's effective number of groups, less one).

    Args:
        logits: (clips, classes).
        labels: (clips, classes) of 0 and 1.
        groups: (clips,) names.

    Returns:
        One-sided p value, mean area, and over how many classes: those that clips of two groups have and of two groups
        lack. NaN, NaN and 0 without any.
    """
    codes, names = pd.factorize(np.asarray(groups))
    areas, of_groups, of_clips, shares = [], np.zeros(len(names)), np.zeros(len(codes)), np.zeros(len(names))
    for number in range(labels.shape[1]):
        there = labels[:, number] > 0
        held = _most_held(there, codes)
        if held.max() < 1:
            area, moves = _placements(logits[:, number], there)
            areas.append(area)
            of_groups += np.bincount(codes, weights=moves) / np.sqrt(1 - held)
            of_clips += moves
            shares += held / held.sum()
    if not areas:
        return float("nan"), float("nan"), 0
    count, area = len(areas), float(np.mean(areas))
    independent = (of_clips**2).sum() * len(of_clips) / (len(of_clips) - 1)
    error = float(np.sqrt(max((of_groups**2).sum(), independent))) / count
    dof = max(count**2 / (shares**2).sum() - 1, 1.0)
    if area <= 0.5 or not error > 0:
        return float(area <= 0.5), area, count
    return float(stdtr(dof, (0.5 - area) / error)), area, count


def _most_held(there: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Each group's share of the clips that have a class or of those that lack it, the larger one; 1 where none do."""
    sides = [np.bincount(codes[side], minlength=codes.max() + 1) for side in (there, ~there)]
    largest: np.ndarray = np.max([side / side.sum() if side.any() else np.ones(len(side)) for side in sides], axis=0)
    return largest


def _placements(scores: np.ndarray, there: np.ndarray) -> tuple[float, np.ndarray]:
    """A class's area under ROC, and by how much each clip moves it, (clips,)."""
    ranks = pd.Series(scores)
    counts = np.where(there, there.sum(), (~there).sum())
    among_others = (ranks.rank() - ranks.groupby(there).rank()).to_numpy() / (len(there) - counts)
    right = np.where(there, among_others, 1 - among_others)
    area = float(right[there].mean())
    return area, (right - area) / counts


def outcome_warnings(
    logits: np.ndarray,
    labels: np.ndarray,
    task: Task,
    groups: np.ndarray | pd.Series,
    *,
    partial: bool,
    random_weights: bool,
    split: str = "test",
) -> list[str]:
    """What a reader of the test accuracy must know.

    Args:
        logits: (clips, classes).
        labels: (clips,), or (clips, classes) of 0 and 1 where a clip may have several.
        task: What the logits answer.
        groups: (clips,) names.
        partial: Only some batches of the test split were used.
        random_weights: The run started from random weights.
        split: Whose clips they are: ``test``, ``val``, ``train`` or ``all``.
    """
    messages = []
    kind = "" if split == "all" else f"{split} "
    clips = len(labels)
    if partial:
        messages.append(f"only {clips} test clips were used (trainer.eval_batches): the metrics are no comparison")
    if task.several:
        return messages + _warnings_of_several(logits, labels, task, groups, kind, random_weights)
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    hits = int(right.sum())
    if len(np.unique(predicted)) == 1:
        messages.append(f"the model predicts one class for every {kind}clip: {task.classes[predicted[0]]}")
    chance = max(int(np.bincount(labels).max()) / clips, 1 / len(task.classes))
    p = above_chance(right, groups, chance)
    if np.isnan(p):
        messages.append(
            f"all {clips} {kind}clips are by one {task.group}: whether the {kind}accuracy {hits / clips:.4f} is more "
            "than luck can't be told for others"
        )
    elif p > 0.05:
        of_groups = f" by {counted(len(set(groups)), task.group)}" if task.grouped else ""
        messages.append(
            f"{kind}accuracy {hits / clips:.4f} is not above chance ({hits} of {clips} clips{of_groups}; {chance:.4f} "
            "by always naming one class)" + (AS_RANDOM if random_weights else "")
        )
    return messages


def _warnings_of_several(
    logits: np.ndarray,
    labels: np.ndarray,
    task: Task,
    groups: np.ndarray | pd.Series,
    kind: str,
    random_weights: bool,
) -> list[str]:
    score = f"mean average precision {mean_average_precision(logits, labels):.4f}"
    groups_there = len(set(groups))
    if groups_there == 1:
        return [
            f"all {len(labels)} {kind}clips are by one {task.group}: whether the {score} is more than luck can't be "
            "told for others"
        ]
    p, area, classes = several_above_chance(logits, labels, groups)
    if not p > 0.05:
        return []
    of_groups = f" by {groups_there} {task.groups}" if task.grouped else ""
    return [
        f"{score} is not above chance (area under ROC {area:.4f}, mean over {classes} {task.nouns}, p = {p:.2f}; "
        f"{len(labels)} clips{of_groups}; an area of 0.5 is luck)" + (AS_RANDOM if random_weights else "")
    ]
