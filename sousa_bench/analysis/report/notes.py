"""Sentences beside the answer: what was not compared, what could not be decided, what must be known of the runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import weights_files
from sousa_bench.analysis.stats.pairs import ALPHA, smallest_p
from sousa_bench.models.weight_files import DEMONSTRATION
from sousa_bench.results.result import EVALUATED

if TYPE_CHECKING:
    from sousa_bench.analysis.study import Study

MAX_NAMED = 4


def say(made: Study) -> None:
    """Sentences on what was not compared, or could not be decided."""
    if made.cohorts:
        words = "; ".join(f"{name}: {what}" for name, what in made.cohorts.items())
        made.notes.append(
            "Runs that differ in data, test clips, weights or epochs are not compared with one another. Cohorts: "
            f"{words}."
        )
    _say_clips(made)
    _say_folds(made)
    for word in made.combinations.loc[made.combinations["note"] != "", "note"].unique():
        count = int((made.combinations["note"] == word).sum())
        made.notes.append(f"{count} of {len(made.combinations)} combinations: {word}.")
    _say_demonstration(made)
    _say_weights(made)
    _say_warnings(made)
    _say_config_folder(made)
    for cohort, pairs in made.pairs.groupby("cohort") if len(made.pairs) else ():
        players = int(pairs["players"].max())
        if smallest_p(players) * len(pairs) > ALPHA:
            made.notes.append(
                f"Cohort {cohort}: with {players} players no sign-flip p value can be below "
                f"{smallest_p(players):.2g}, so "
                f"none of {len(pairs)} comparisons can be clear after Holm's correction. Test on more players, or "
                "filter "
                "to fewer combinations."
            )


def _say_clips(made: Study) -> None:
    """Where combinations of a cohort were not all tested on the same clips."""
    for cohort, rows in made.combinations.groupby("cohort"):
        if rows.loc[rows["ground"] >= 0, "ground"].nunique() < 2:
            continue
        if (rows["folds"] > 0).all():
            word = "not all combinations have the same folds; each comparison is on the folds that both have."
        else:
            word = "not all runs were tested on the same clips; only those that were are compared."
        made.notes.append(f"Cohort {cohort}: {word}")


def _say_folds(made: Study) -> None:
    """How a cross-validation was taken together, and what it lacks."""
    frame = made.combinations[made.combinations["folds"] > 0]
    if not len(frame):
        return
    most = frame.sort_values("folds", ascending=False, kind="stable").iloc[0]
    made.notes.append(
        f"Cross-validation: {len(frame)} combinations over up to {most['folds']} of {most['of_folds']} folds. The mean "
        "and ± are over folds; intervals and comparisons pool the folds' test predictions, in which each player was "
        "heard once, by a model that had not learnt from that player, and are clustered by player."
    )
    trained = made.table[EVALUATED].isna() if EVALUATED in made.table else pd.Series(True, made.table.index)
    was_trained = np.array([bool(trained[rows].all()) for rows in frame["rows"]])
    lacking = frame[(frame["missing"] != "").to_numpy() & was_trained]
    for row in lacking.head(MAX_NAMED).to_dict("records"):
        parts = row["missing"].split(", ")
        more = f" and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else ""
        made.notes.append(
            f"{row['combination']}: no completed run of fold {', '.join(parts[:MAX_NAMED])}{more}; its numbers are "
            f"over {row['folds']} of {row['of_folds']} folds."
        )
    if len(lacking) > MAX_NAMED:
        made.notes.append(f"{len(lacking) - MAX_NAMED} more combinations lack folds: see missing in combinations.csv.")
    for ground in made.grounds:
        sets = [made.clip_sets[number] for number in ground.sets]
        if sum(len(clips.players) for clips in sets) > len(ground.clips.players) > 0:
            made.notes.append("Some players were tested in more than one fold; each of them counts as one cluster.")
            break
    left = [row for row in frame.to_dict("records") if row["ground"] >= 0 and _pooled(made, row) < row["folds"]]
    for row in left[:MAX_NAMED]:
        made.notes.append(
            f"{row['combination']}: only {_pooled(made, row)} of its {row['folds']} folds have predictions on the "
            "clips of the others; the interval and the comparisons are over these."
        )


def _pooled(made: Study, row: Mapping[Any, Any]) -> int:
    return len(made.grounds[row["ground"]].sets)


def _say_config_folder(made: Study) -> None:
    """Runs whose configs lay elsewhere: no command of the report names a folder that only a file vouches for."""
    if "command" in made.table and made.table["command"].astype(str).str.contains(r"\s(?:--config-dir|-cd)\b").any():
        made.notes.append(
            "Some runs were started with --config-dir. The commands here leave it out: add it where you trust the "
            "folder."
        )


def _say_warnings(made: Study) -> None:
    """How many runs said that something about their numbers must be known."""
    warned = warned_runs(made)
    if len(warned):
        example = str(warned["warnings"].iloc[0])
        made.notes.append(
            f"{len(warned)} of {len(made.table)} runs carry warnings, the first: "
            f"{example[:200]}{'…' if len(example) > 200 else ''}"
        )


def warned_runs(made: Study) -> pd.DataFrame:
    """Rows of the table whose result carries a warning."""
    if "warnings" not in made.table:
        return made.table.iloc[:0].assign(warnings="")
    return made.table[made.table["warnings"].map(lambda value: isinstance(value, str) and value != "")]


def _say_demonstration(made: Study) -> None:
    """Runs from the package's small pretrained weights say nothing about the published models."""
    if "weights.kind" in made.table:
        count = int(((made.table["weights.kind"] == "embedded") & (made.table["status"] == "completed")).sum())
        if count:
            made.notes.append(f"{count} of {len(made.table)} runs: {DEMONSTRATION}")


def _say_weights(made: Study) -> None:
    """Name models whose runs started from different files of weights."""
    if (files := weights_files(made.table)) is None:
        return
    done = made.table[(made.table["status"] == "completed") & files.notna()]
    for (cohort, model), rows in done.groupby(["cohort", "model"]):
        if files[rows.index].nunique() > 1:
            made.notes.append(f"Cohort {cohort}: runs of {model} started from different weights files; mind that.")
