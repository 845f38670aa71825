"""The verdict: one line a cohort that says which combination leads, how sure that is, and what would do as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.digits import percent, percent_interval
from sousa_bench.analysis.report.blocks import Line
from sousa_bench.analysis.standings import Standings
from sousa_bench.analysis.study import Study

NOTHING_COMPLETED = "No run has completed, so there is nothing to compare."
LIGHTER = 2  # times fewer trainable parameters, at least, that make another worth naming
MOST_BEHIND = 0.05  # more than that nobody calls as good
SHARES = ("", "", "half", "a third", "a quarter", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth", "a tenth")


def verdicts(study: Study) -> list[Line]:
    """The line of each cohort, or the one that says why there is none; not escaped for any format."""
    found = study.standings
    if not found:
        return [NOTHING_COMPLETED]
    lines = [named_verdict(cohort) for cohort in found]
    return [at_chance_words(study), *lines] if study.at_chance else lines


def named_verdict(cohort: Standings) -> Line:
    """A verdict that says of which cohort it is, where there are several."""
    name, said = verdict(cohort)
    return f"{cohort.cohort}: {name}" if cohort.study.cohorts else name, said


def at_chance_words(study: Study) -> str:
    """That no run learnt anything."""
    runs = len(study.done)
    who = "The only completed run is not" if runs == 1 else f"None of the {runs} completed runs is"
    return f"{who} above chance: nothing was learnt, so what follows ranks luck."


def verdict(cohort: Standings) -> tuple[str, str]:
    """The line of one cohort, the leader's name in bold."""
    study, leader = cohort.study, cohort.leader
    score = "mAP " if study.task.several else ""
    interval = percent_interval(leader["acc_low"], leader["acc_high"], cohort.digits)
    said = f": {score}{percent(leader['test_acc'], cohort.digits)}"
    said += f" [{interval}]" if not is_absent(leader["acc_low"]) else ""
    said += " (of these trained models only)" if cohort.of_models_only and len(cohort.rows) > 1 else ""
    return cohort.full_name, f"{said}. {'; '.join(_others(cohort))}."


def _others(cohort: Standings) -> list[str]:
    """What is said of the others."""
    others = len(cohort.rows) - 1
    if not others:
        return ["It is the only combination"]
    if cohort.untested:
        return [f"{_counted(others, others)} could not be tested against it"]
    tested, tied = int(cohort.rows["p_best"].notna().sum()), len(cohort.tied)
    if not tied:
        said = f"It is clearly better than {_counted(tested, tested, inside=True)}"
    else:
        said = f"{_counted(tied, tested)} {'ties' if tied == 1 else 'tie'}"
    return [said, *_lighter(cohort)]


def _counted(number: int, of: int, inside: bool = False) -> str:
    if number < of:
        return f"{number} of {of} others"
    words = {1: "The other one", 2: "Both others"}.get(of, f"All {of} others")
    return f"{words[0].lower()}{words[1:]}" if inside else words


def _lighter(cohort: Standings) -> list[str]:
    """The other one with the fewest trainable parameters of those that are as good within the margin, else that tie."""
    mine, margin = float(cohort.leader["trainable_params"]), cohort.study.margin
    found = []
    for row in cohort.rows.to_dict("records"):
        pair = cohort.leads.get(str(row["combination"]))
        params = float(row["trainable_params"])
        if pair is None or not (LIGHTER * params <= mine and params < mine):
            continue
        within = _within(pair, margin)
        if within == margin or (within is not None and row["best_set"]):
            found.append((within > margin, params, -row["test_acc"], within, row))
    if not found:
        return []
    *_, within, row = min(found, key=lambda each: each[:3])
    name = cohort.names[str(row["combination"])]
    return [f"{name} is as good within {100 * within:g} point{'s' * (within != 0.01)} {_share(row, mine)}"]


def _within(pair: Mapping[str, Any], margin: float) -> float | None:
    """Whole points, at least the margin, that the leader is ahead at most at 95 %, all comparisons being made at once.

    None: unknown, or more than ``MOST_BEHIND``.
    """
    high = pair["simultaneous_high"]
    if is_absent(high) or not pair["error"] > 0 or high > MOST_BEHIND:
        return None
    return margin if high <= margin else math.ceil(round(100 * high, 9)) / 100


def _share(row: Mapping[Any, Any], whole: float) -> str:
    params = float(row["trainable_params"])
    if not params:
        return "without a trainable parameter"
    times = round(whole / params)
    share = SHARES[times] if times < len(SHARES) else f"1/{times}"
    return f"at {share} of the trainable parameters"
