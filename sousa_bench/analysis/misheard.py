"""The test clips that all combinations, or nearly all, got wrong: where a label may be wrong or two classes alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sousa_bench.analysis.clip_sets import ClipSet

if TYPE_CHECKING:
    from sousa_bench.analysis.study import Study

NEARLY_ALL = 0.9
"""Share of the combinations on a clip that must mishear it."""


@dataclass(frozen=True)
class Misheard:
    """Clips of one label each that at least two combinations were tested on, and those that nearly all mishear.

    Attributes:
        table: A row a clip that nearly all mishear, the most and the most alike first: ``clip``, ``group`` ("" where
            none is known), ``true_class``, ``heard_as`` (the wrong class that most runs gave, of equals the first),
            ``heard_runs``, ``wrong_runs``, ``runs``, ``wrong_combinations``, ``combinations``, ``data``, ``clip_set``
            (number in ``Study.clip_sets``).
        clips: How many clips there are in all.
        by_all: How many no combination recognises.
    """

    table: pd.DataFrame
    clips: int
    by_all: int


def misheard_clips(study: Study) -> Misheard:
    """What all mishear, over all runs but those that say of themselves that they learnt nothing.

    A combination mishears a clip where more than half of its runs do.
    """
    frames, clips, lucky = [pd.DataFrame()], 0, study.no_more_than_luck
    for number, each in enumerate(study.clip_sets):
        place = {row: index for index, row in enumerate(each.rows) if row not in lucky}
        cells = [[place[row] for row in rows if row in place] for rows in study.combinations["rows"]]
        cells = [cell for cell in cells if cell]
        if not each.task.several and len(cells) > 1:
            clips += len(each.label)
            data = str(study.table["data"].iloc[each.rows[0]])
            frames.append(_of_one_set(each, cells).assign(data=data, clip_set=number))
    table = pd.concat(frames, ignore_index=True)
    if not len(table):
        return Misheard(pd.DataFrame(), clips, 0)
    share = table["wrong_combinations"] / table["combinations"]
    alike = table["heard_runs"] / table["runs"]
    table = table.iloc[np.lexsort([table["clip"], -alike, -share])].reset_index(drop=True)
    return Misheard(table, clips, int((share == 1).sum()))


def _of_one_set(clips: ClipSet, cells: list[list[int]]) -> pd.DataFrame:
    """A row a clip, in the clips' order."""
    wrong = ~clips.correct
    mishearing = np.sum([wrong[cell].mean(axis=0) > 0.5 for cell in cells], axis=0)
    there = np.flatnonzero(mishearing >= NEARLY_ALL * len(cells))
    runs = np.sort(np.concatenate(cells))
    wrong = wrong[np.ix_(runs, there)]
    heard, times = _most_often(clips.predicted[np.ix_(runs, there)], wrong, len(clips.task.classes))
    classes = np.array([clips.task.display(name) for name in clips.task.classes], dtype=object)
    names = np.array(clips.players, dtype=object)
    group = "" if clips.player is None or not clips.task.grouped else names[clips.player[there]]
    return pd.DataFrame(
        {
            "clip": clips.sample_id[there],
            "group": group,
            "true_class": classes[clips.label[there]],
            "heard_as": classes[heard],
            "heard_runs": times,
            "wrong_runs": wrong.sum(axis=0),
            "runs": len(runs),
            "wrong_combinations": mishearing[there],
            "combinations": len(cells),
        }
    )


def _most_often(
    predicted: NDArray[np.int16], wrong: NDArray[np.bool_], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each column the class that most of its wrong answers give, of equals the lowest, and how many do."""
    run, clip = np.nonzero(wrong)
    answers, times = np.unique(clip * classes + predicted[run, clip], return_counts=True)
    order = np.lexsort([answers, -times, answers // classes])
    first = order[np.unique(answers[order] // classes, return_index=True)[1]]
    return answers[first] % classes, times[first]
