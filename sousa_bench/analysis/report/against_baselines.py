"""Whether any method beats the linear probe of its model, and by how much: a cohort's answer in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sousa_bench.analysis.baselines import Held, held_against_baselines
from sousa_bench.analysis.columns import DIFFERENCE, SIMULTANEOUS, is_absent
from sousa_bench.analysis.report.conclusion import named
from sousa_bench.analysis.study import Study


def against_baselines(study: Study) -> list[str]:
    """The sentences of each cohort; none where nothing was learnt, or no method was trained."""
    if study.at_chance:
        return []
    sentences = []
    for cohort in dict.fromkeys(study.combinations["cohort"]):
        said = _cohort(study, str(cohort))
        if said and study.cohorts:
            said[0] = _after(f"Cohort {cohort}: ", said[0])
        sentences += said
    return sentences


def _cohort(study: Study, cohort: str) -> list[str]:
    held = held_against_baselines(study, cohort)
    if not held:
        return []
    if all(each.baseline is None for each in held):
        return [
            "No baseline has completed beside these methods, so nothing tells whether any beats a linear probe: "
            "experiment=baselines, on the same data and weights and with as many epochs, would."
        ]
    lacking = dict.fromkeys(str(each.row["model"]) for each in held if each.baseline is None)
    more = [f"No baseline has run for {', '.join(lacking)}."] if lacking else []
    compared = [(each, pair) for each in held if (pair := each.pair) is not None and not is_absent(pair["p_adjusted"])]
    if not compared:
        return ["No method could be compared with the linear probe of its model.", *more]
    verdict = _verdict(compared)
    if not study.luck[cohort].dof:
        verdict = _after("Of these trained models only: ", verdict)
    return [verdict, *_worse(compared), *more]


def _after(beginning: str, sentence: str) -> str:
    return f"{beginning}{sentence[0].lower()}{sentence[1:]}"


def _verdict(compared: Sequence[tuple[Held, Mapping[str, Any]]]) -> str:
    better = [each for each, pair in compared if pair["clear"] and pair["difference"] > 0]
    first, pair = max(compared, key=lambda both: both[1]["difference"])
    interval = "" if is_absent(pair["simultaneous_low"]) else f" (simultaneous 95 % interval {SIMULTANEOUS.cell(pair)})"
    most = f"{first.row['combination']}, by {DIFFERENCE.cell(pair)}{interval} against {first.baseline}"
    of = f"{len(compared)} combination{'s' if len(compared) > 1 else ''}"
    if not better:
        return f"No method clearly beats the linear probe of its model ({of} compared); the first against it is {most}."
    does = "beats" if len(better) == 1 else "beat"
    return f"{len(better)} of {of} clearly {does} the linear probe of the same model; by the most {most}."


def _worse(compared: Sequence[tuple[Held, Mapping[str, Any]]]) -> list[str]:
    names = [each.row["combination"] for each, pair in compared if pair["clear"] and pair["difference"] < 0]
    return [f"Clearly worse than the linear probe: {named(names)}."] if names else []
