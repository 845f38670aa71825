"""The study's notes: what was not compared, what could not be decided, what must be known of the runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import beside_others, weights_files
from sousa_bench.analysis.flatten import SEEDLESS
from sousa_bench.models.weight_files import SMALL_NETWORKS
from sousa_bench.results.result import EVALUATED
from sousa_bench.system.text_table import amount

if TYPE_CHECKING:
    from sousa_bench.analysis.study import Study

MAX_NAMED = 4
OWN_HEAD = "weights.own_head"
ONE_GROUP = re.compile(r"(, )?all \d+ test clips are by one [^:]+: whether .*? can't be told for others")
"""What a run says of a test by one group, see ``sousa_bench.results.predictions.outcome_warnings``."""


def limitations(study: Study) -> list[str]:
    """Sentences on what was not compared, could not be decided, or must be known of the runs."""
    frame = study.combinations
    said = []
    if study.cohorts:
        cohorts = "; ".join(f"{name}: {what}" for name, what in study.cohorts.items())
        said.append(
            "Runs that differ in data, test clips, weights or epochs are not compared with one another. Cohorts: "
            f"{cohorts}."
        )
    said += [*_clips(frame), *_folds(study, frame[frame["folds"] > 0])]
    for note, rows in frame[frame["note"] != ""].groupby("note", sort=False):
        said.append(f"{len(rows)} of {amount(len(frame), 'combination')}: {note}.")
    return [
        *said,
        *_embedded(study.table),
        *_weights(study.table),
        *_from_nothing(study.table),
        *_heads(study.table),
        *_warnings(study),
        *_config_folder(study.table),
    ]


def _clips(frame: pd.DataFrame) -> Iterator[str]:
    """Where combinations of a cohort were not all tested on the same clips."""
    for cohort, rows in frame[frame["shared_clips"] >= 0].groupby("cohort"):
        if rows["shared_clips"].nunique() > 1:
            yield f"Cohort {cohort}: " + (
                "not all combinations have the same folds; each comparison is on the folds that both have."
                if (rows["folds"] > 0).all()
                else "not all runs were tested on the same clips; only those that were are compared."
            )


def _folds(study: Study, frame: pd.DataFrame) -> Iterator[str]:
    """How a cross-validation was taken together, and what it lacks."""
    if not len(frame):
        return
    group = study.task.group
    most = frame.sort_values("folds", ascending=False, kind="stable").iloc[0]
    yield (
        f"Cross-validation: {amount(len(frame), 'combination')} over up to {most['folds']} of {most['of_folds']} "
        "folds. The mean and ± are over folds; intervals and comparisons pool the folds' test predictions, in which "
        f"each {group} was heard once, by a model that had not learnt from that {group}, and are clustered by {group}."
    )
    trained = study.table[EVALUATED].isna() if EVALUATED in study.table else pd.Series(True, study.table.index)
    was_trained = np.array([bool(trained[rows].all()) for rows in frame["rows"]])
    lacking = frame[(frame["missing"] != "").to_numpy() & was_trained]
    for row in lacking.head(MAX_NAMED).to_dict("records"):
        parts = row["missing"].split(", ")
        more = f" and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else ""
        yield (
            f"{row['combination']}: no completed run of fold {', '.join(parts[:MAX_NAMED])}{more}; its numbers are "
            f"over {row['folds']} of {row['of_folds']} folds."
        )
    if len(lacking) > MAX_NAMED:
        yield f"{len(lacking) - MAX_NAMED} more combinations lack folds: see missing in combinations.csv."
    for shared in study.shared_clips:
        sets = [study.clip_sets[number] for number in shared.sets]
        if sum(len(clips.players) for clips in sets) > len(shared.clips.players) > 0:
            yield f"Some {study.task.groups} were tested in more than one fold; each of them counts as one cluster."
            break
    pooled = [
        (row, len(study.shared_clips[row["shared_clips"]].sets))
        for row in frame.to_dict("records")
        if row["shared_clips"] >= 0
    ]
    for row, size in [(row, size) for row, size in pooled if size < row["folds"]][:MAX_NAMED]:
        yield (
            f"{row['combination']}: only {size} of its {row['folds']} folds have predictions on the clips of the "
            "others; the interval and the comparisons are over these."
        )


def _config_folder(table: pd.DataFrame) -> Iterator[str]:
    """Runs whose configs lay elsewhere: no command of the report names a folder that only a file vouches for."""
    if "command" in table and table["command"].astype(str).str.contains(r"\s(?:--config-dir|-cd)\b").any():
        yield (
            "Some runs were started with --config-dir. The commands here leave it out: add it where you trust the "
            "folder."
        )


def _warnings(study: Study) -> Iterator[str]:
    """How many runs said that something about their numbers must be known."""
    if _of_one_group(study).any():
        yield (
            f"The test clips of a fold are by one {study.task.group}: whether its score is more than luck can't be "
            "told for others by that fold alone, only by all together."
        )
    warned = warned_runs(study)
    if len(warned):
        first = str(warned["warnings"].iloc[0])
        first = first[:200] + ("…" if len(first) > 200 else "")
        carry = "carries" if len(warned) == 1 else "carry"
        yield f"{len(warned)} of {amount(len(study.table), 'run')} {carry} warnings, the first: {first}"


def warned_runs(study: Study) -> pd.DataFrame:
    """Rows of the table whose result carries a warning; what folds of one group say each is told of all at once."""
    if "warnings" not in study.table:
        return study.table.iloc[:0].assign(warnings="")
    table = study.table.assign(warnings=study.table["warnings"].where(study.table["warnings"].map(_is_text), ""))
    folds = _of_one_group(study)
    table.loc[folds, "warnings"] = table.loc[folds, "warnings"].map(lambda text: ONE_GROUP.sub("", text).strip(", "))
    return table[table["warnings"] != ""]


def _of_one_group(study: Study) -> pd.Series:
    """Whether a row is a fold, of several, that says of its test clips that one group made them all."""
    rows = [row for rows in study.combinations.loc[study.combinations["folds"] > 1, "rows"] for row in rows]
    if "warnings" not in study.table:
        return pd.Series(False, study.table.index)
    says = study.table["warnings"].map(lambda text: _is_text(text) and bool(ONE_GROUP.search(text)))
    return says & study.table.index.isin(rows)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _embedded(table: pd.DataFrame) -> Iterator[str]:
    """Runs from the package's small pretrained weights say nothing about the published models."""
    if "weights.kind" in table:
        count = int(((table["weights.kind"] == "embedded") & (table["status"] == "completed")).sum())
        if count:
            yield f"{count} of {amount(len(table), 'run')}: {SMALL_NETWORKS}"


def _weights(table: pd.DataFrame) -> Iterator[str]:
    """Models whose runs started from different files of weights."""
    if (files := weights_files(table)) is None:
        return
    done = table[(table["status"] == "completed") & files.notna()]
    for (cohort, model), rows in done.groupby(["cohort", "model"]):
        if files[rows.index].nunique() > 1:
            yield f"Cohort {cohort}: runs of {model} started from different weights files; mind that."


def _from_nothing(table: pd.DataFrame) -> Iterator[str]:
    """Networks that nobody has pretrained beside others that were."""
    done = table[table["status"] == "completed"]
    for (cohort, model), _ in done[beside_others(done)].groupby(["cohort", "model"]):
        yield (
            f"Cohort {cohort}: {model}, which nobody has pretrained, began at random weights, has epochs of its own "
            "and no part in the main effects."
        )


def _heads(table: pd.DataFrame) -> Iterator[str]:
    """Cohorts in which some runs started from a trained head."""
    if OWN_HEAD not in table:
        return
    stepped = table[(table["status"] == "completed") & ~table["strategy"].isin(SEEDLESS)]
    for cohort, rows in stepped.groupby("cohort"):
        if rows[OWN_HEAD].notna().nunique() > 1:  # results say it where it is so
            yield (
                f"Cohort {cohort}: some runs started from a head that was trained on the same classes, others from a "
                f"new one ({OWN_HEAD}); mind that."
            )
