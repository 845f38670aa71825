"""Several data sets in one verdict: the methods that all of them have, their ranks, and the best against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.combinations import is_trial
from sousa_bench.analysis.factors import (
    BASE_FACTORS,
    COHORT_KEYS,
    SETTING_FACTORS,
    beside_others,
    cohort_identity,
    combination_label,
    counted_rows,
    shown,
)
from sousa_bench.analysis.flatten import SEEDLESS
from sousa_bench.analysis.stats.comparisons import METHODS, MODELS, pair_of
from sousa_bench.analysis.stats.folds import EACH_FOLD
from sousa_bench.analysis.stats.mean_ranks import Chances, MeanRanks, chances, mean_ranks, signed_rank
from sousa_bench.analysis.study import Study

MIN_DATA_SETS = 5  # for chances over data sets: of two equal methods one leads on all of four in 1 of 8 studies
OVER_ALL = "all"
SAME_KIND = ("weights.kind", "folds", "kind")
UNKNOWN = Chances(*(float("nan"),) * 4)


@dataclass(frozen=True, eq=False)
class DataSets:
    """What several data sets say of the methods that all of them have.

    Attributes:
        kind: What their runs have in common and those of other cohorts have not, in words.
        names: The data sets' names by cohort.
        accuracy: Mean test accuracies, a row a method, best mean rank first, and a column a cohort.
        ranks: Those of the methods, in the same order.
        chances: The first method against each other one: ``first``, ``second``, ``data_set`` (``all`` for a next one),
            ``cohort``, ``about`` (methods, or these trained models where the cohort shows no training luck),
            ``difference`` and the fields of ``Chances``, by the study's margin. These are NaN where a data set has too
            few players, and over fewer than ``MIN_DATA_SETS``.
        repeated: Cohorts that don't count, since one of more runs was tested on the same clips.
        apart: Data sets that don't count, since they have fewer than two or half of the others' methods.
        lacking: Methods that not all of the data sets have.
        same_players: Names of players that occur in several of the data sets.
    """

    kind: str
    names: Mapping[str, str]
    accuracy: pd.DataFrame
    ranks: MeanRanks
    chances: pd.DataFrame
    repeated: list[str]
    apart: list[str]
    lacking: list[str]
    same_players: list[str]


@lru_cache(maxsize=2)
def data_set_verdicts(study: Study) -> list[DataSets]:
    """The verdicts over the study's cohorts that differ in data and share at least two methods.

    Cohorts of one kind of weights, number of folds and kind of result are taken together. Epochs may differ, since
    methods are ranked within a cohort. Of cohorts that were tested on the same clips the one of most runs counts.
    Trials (``experiment=smoke``) have no part.
    """
    methods = _methods(study) if study.cohorts else pd.DataFrame()
    if not len(methods):
        return []
    counted = study.table[counted_rows(study.table)]
    counted = counted[~beside_others(counted)]
    identity = cohort_identity(study.table).loc[counted.index].groupby(counted["cohort"]).first()
    identity = identity.loc[sorted(set(methods["cohort"]), key=lambda name: (len(name), name))]
    keys = [key for key in SAME_KIND if key in identity and identity[key].nunique() > 1]
    found = []
    for _, group in identity.groupby(keys, sort=False) if keys else [("", identity)]:
        kind = "; ".join(f"{COHORT_KEYS[key]} {group[key].iloc[0] or 'none'}" for key in keys)
        found.append(_verdict(study, methods, group, kind))
    return [verdict for verdict in found if verdict is not None]


def _methods(study: Study) -> pd.DataFrame:
    """The combinations with a column ``method``: their label without what the data decide.

    Trials and baselines from nothing are left out. What the data decide are data, epochs, and each key of the data that
    is the same for all of a cohort.
    """
    frame = study.combinations[study.combinations["test_acc"].notna()]
    trial = [any(is_trial(study.results, row) for row in rows) for rows in frame["rows"]]
    frame = frame[~np.array(trial, dtype=bool)]
    frame = frame[~beside_others(frame)]
    extra = [key for key in study.factors if key not in BASE_FACTORS]
    of_data = [key for key in extra if key in SETTING_FACTORS or key.startswith("data.")]
    stepped = frame[~frame["strategy"].isin(SEEDLESS)]  # the epochs of the others say nothing
    of_data = [key for key in of_data if stepped.groupby("cohort")[key].nunique(dropna=False).max() == 1]
    kept = [key for key in extra if key not in of_data]
    names = [
        # What a label says beside its factors (a file of weights) belongs to the method.
        combination_label(row, kept) + row["combination"].removeprefix(combination_label(row, extra))
        for row in frame.to_dict("records")
    ]
    return frame.assign(method=names)


def _verdict(study: Study, methods: pd.DataFrame, identity: pd.DataFrame, kind: str) -> DataSets | None:
    """The verdict over cohorts that differ in data; None where fewer than two share two methods.

    Args:
        study: The study.
        methods: From ``_methods``.
        identity: What makes each of the cohorts, that of most runs first.
        kind: As ``DataSets.kind``.
    """
    clips = pd.Series([_test_clips(row) for row in identity.to_dict("records")], identity.index)
    cohorts = list(clips.drop_duplicates().index)
    table = methods.pivot(index="method", columns="cohort", values="test_acc")[cohorts]
    counting = _counting(table.notna())
    shared = table[counting].dropna().round(9)  # sums of the same numbers in another order are ties
    if len(counting) < 2:
        return None
    places = pd.DataFrame({"rank": shared.rank(ascending=False).mean(axis=1), "loss": -shared.mean(axis=1)})
    order = places.sort_values(["rank", "loss"], kind="stable").index
    shared = shared.loc[order]
    names = _names(methods, cohorts)
    own = {name: names[name] for name in counting}
    return DataSets(
        kind=kind,
        names=own,
        accuracy=shared,
        ranks=mean_ranks(shared.to_numpy()),
        chances=pd.DataFrame(_best_against_others(study, methods, shared, own)),
        repeated=sorted(set(clips.index) - set(cohorts)),
        apart=[names[name] for name in cohorts if name not in own],
        lacking=[name for name in table[counting].dropna(how="all").index if name not in shared.index],
        same_players=_same_players(study, counting),
    )


def _counting(there: pd.DataFrame) -> list[str]:
    """The data sets that have methods in common: those join that have half, and at least two, of the ones so far.

    Args:
        there: Whether each method (row) was run on each data set (column).
    """
    met = there.astype(int)
    order = ((met.T @ met) > 1).sum().sort_values(ascending=False, kind="stable").index
    chosen = [str(order[0])]
    for name in order[1:]:
        before = there[chosen].all(axis=1)
        if 2 * (before & there[name]).sum() >= max(before.sum(), 4):
            chosen.append(str(name))
    return [name for name in there if name in chosen]


def _test_clips(cohort: Mapping[Any, str]) -> tuple[str, ...]:
    """What tells the test clips of cohorts apart: their fingerprint, or, where folds have several, all of the data."""
    one = cohort.get("data.test_fingerprint", "")
    if one and not one.startswith(EACH_FOLD):
        return (one,)
    return tuple(cohort.get(key, "") for key in ("data", "data.fingerprint", "data.test_fingerprint"))


def _names(methods: pd.DataFrame, cohorts: Sequence[str]) -> dict[str, str]:
    """The data's name of each cohort, with the cohort where several have one name."""
    data = methods.groupby("cohort")["data"].first()[list(cohorts)].map(shown)
    several = data.duplicated(keep=False)
    return {name: f"{data[name]}, cohort {name}" if several[name] else str(data[name]) for name in cohorts}


def _same_players(study: Study, cohorts: Sequence[str]) -> list[str]:
    """Players whose name occurs in the test clips of several cohorts."""
    own: dict[str, set[str]] = {name: set() for name in cohorts}
    for clips in study.clip_sets:
        for name in set(study.table["cohort"].iloc[clips.rows]) & set(own):
            own[name].update(clips.players)
    counts = pd.Series([player for players in own.values() for player in players], dtype=object).value_counts()
    return sorted(counts.index[counts > 1])


def _best_against_others(
    study: Study, methods: pd.DataFrame, accuracy: pd.DataFrame, names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Rows of ``DataSets.chances``."""
    labels = methods.set_index(["cohort", "method"])["combination"]
    best, *others = accuracy.index
    pairs = {cohort: study.pairs[study.pairs["cohort"] == cohort] for cohort in accuracy}
    for other in others:
        differences = accuracy.loc[best] - accuracy.loc[other]
        for cohort, name in names.items():
            pair = pair_of(pairs[cohort], cohort, labels[cohort, best], labels[cohort, other])
            row = {"first": best, "second": other, "data_set": name, "cohort": cohort}
            about = MODELS if pair is None else pair["about"]
            yield {**row, "about": about, "difference": differences[cohort], **asdict(_chances(pair, study.margin))}
        over = signed_rank(differences.to_numpy(), study.margin) if len(names) >= MIN_DATA_SETS else UNKNOWN
        row = {"first": best, "second": other, "data_set": OVER_ALL, "cohort": ""}
        yield {**row, "about": METHODS, "difference": differences.mean(), **asdict(over)}


def _chances(pair: Mapping[str, Any] | None, margin: float) -> Chances:
    """The chances on one data set, from a comparison of the study; unknown without one or without its interval."""
    if pair is None or is_absent(pair["low"]):
        return UNKNOWN
    return chances(pair["difference"], pair["error"], pair["dof"], margin)
