"""What a cohort's methods are held against: a linear probe of the same model, whose features nothing has tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from sousa_bench.analysis.combinations import own_training, trained
from sousa_bench.analysis.factors import NO_COHORT, from_nothing
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.study import Study
from sousa_bench.config.distillation import RUN

PROBES = ("probe", "head")
"""Strategies that leave the pretrained features as they are; the first that a model has is its baseline."""
BASELINES = ("probe", "knn", "head", "full")
"""What ``experiment=baselines`` runs."""
OF_METHODS = ("strategy", "augmentation")
TUNED = ("peft.", "trainer.", "augmentation.", "teacher.")
"""Factors that a baseline doesn't share with the method that is held against it."""


class Held(NamedTuple):
    """A method beside its baseline.

    Attributes:
        row: The method's combination.
        baseline: The baseline's name; None where its model has none.
        pair: Their comparison, method minus baseline; None where they weren't compared.
    """

    row: Mapping[Any, Any]
    baseline: str | None
    pair: Mapping[str, Any] | None


def held_against_baselines(study: Study, cohort: str) -> list[Held]:
    """The methods of a cohort, best first, each beside the baseline of its model; what trained from nothing is one."""
    rows = trained(study.combinations, study.results)
    rows = rows[(rows["cohort"] == cohort) & ~from_nothing(rows)]
    shared = [key for key in study.factors if key not in OF_METHODS and not key.startswith(TUNED)]
    taught = _taught(study.table)
    own = pd.Series([not taught.iloc[list(runs)].any() for runs in rows["rows"]], rows.index, dtype=bool)
    are_probes = rows["strategy"].isin(PROBES) & own
    probes = rows[are_probes]
    order = probes.assign(place=probes["strategy"].map(PROBES.index)).sort_values(["place", "augmentation"])
    of_model: dict[tuple[Any, ...], str] = {}
    for row in order.to_dict("records"):
        of_model.setdefault(tuple(str(row[key]) for key in shared), row["combination"])
    held = []
    for row in rows[~are_probes].to_dict("records"):
        baseline = of_model.get(tuple(str(row[key]) for key in shared))
        pair = None if baseline is None else pair_of(study.pairs, cohort, row["combination"], baseline)
        held.append(Held(row, baseline, pair))
    return held


def lacking_baselines(study: Study) -> Iterator[tuple[Mapping[Any, Any], list[str]]]:
    """For each model of a cohort that has no probe, not even an unfinished one: its best combination, what to run."""
    own = study.table[own_training(study.results) & ~_taught(study.table)]
    places = own["cohort"].where(own["cohort"] != NO_COHORT, own["data"])  # of unfinished ones only the data are known
    begun = set(zip(places, own["model"], own["strategy"], strict=True))
    for job in study.results.waiting():
        asked = dict(item.partition("=")[::2] for item in job.overrides)
        if asked.get(RUN, "null") == "null":
            begun.add((asked.get("data"), asked.get("model"), asked.get("peft")))
    seen: set[tuple[Any, Any]] = set()
    for cohort in dict.fromkeys(study.combinations["cohort"]):
        for row, baseline, _ in held_against_baselines(study, str(cohort)):
            model = row["model"]
            known = {name for place, other, name in begun if other == model and place in (cohort, row["data"], None)}
            if baseline is None and (cohort, model) not in seen and not known & set(PROBES):
                seen.add((cohort, model))
                yield row, [name for name in BASELINES if name not in known]


def _taught(table: pd.DataFrame) -> pd.Series:
    """Which runs learnt from a teacher: no baselines, whatever they tune."""
    return table["lineage.teacher"].notna() if "lineage.teacher" in table else pd.Series(False, table.index)
