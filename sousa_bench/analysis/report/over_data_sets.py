"""The section on several data sets: how methods rank over them, and how sure that is."""

from __future__ import annotations

from typing import Any

from sousa_bench.analysis.columns import DIFFERENCE, Column, measures, p_value
from sousa_bench.analysis.report.blocks import Block, Heading, Options, Table, Text
from sousa_bench.analysis.report.conclusion import in_points, named, others_in_words
from sousa_bench.analysis.stats.comparisons import MODELS
from sousa_bench.analysis.stats.data_sets import MIN_DATA_SETS, OVER_ALL, DataSets, data_set_verdicts
from sousa_bench.analysis.study import Study
from sousa_bench.task import Task


def over_all_data(study: Study) -> list[str]:
    """For the answer: which method ranks best over several data sets, and what can be concluded from them."""
    return [" ".join(_answer(item)) for item in data_set_verdicts(study)]


def over_data_sets(study: Study, options: Options) -> list[Block]:
    """Mean ranks with their critical difference, and the method of the best one against the others."""
    blocks: list[Block] = []
    for item in data_set_verdicts(study):
        kind = f" ({item.kind})" if item.kind else ""
        blocks += [
            Heading(f"Over {len(item.names)} data sets{kind}", short="" if blocks else "Data sets"),
            Text([" ".join(_answer(item)), " ".join(_minded(item, study.task))]),
            _rank_table(item, study.task),
            Heading(f"{item.accuracy.index[0]} against the others, by data set", 3),
            Text([_chance_words(item, study.margin)]),
            _chance_table(item, max(options.top, 10)),
        ]
    return blocks


def _answer(item: DataSets) -> list[str]:
    ranks, names = item.ranks, list(item.names.values())
    methods = item.accuracy.index
    tied = [name for name, mean in zip(methods[1:], ranks.mean[1:], strict=True) if mean == ranks.mean[0]]
    of_kind = f" ({item.kind})" if item.kind else ""
    said = [
        f"Over {len(names)} data sets{of_kind} ({named(names)}) the best mean rank of {len(methods)} methods is that "
        f"of {methods[0]}, {ranks.mean[0]:.2f}{f', shared by {named(tied)}' if tied else ''}."
    ]
    if len(names) < ranks.needed:
        said.append(
            f"On so few data sets no two of {len(methods)} methods can be told apart, whatever their ranks: that takes "
            f"{ranks.needed} at least."
        )
        return said
    test = f"{ranks.test} test, p {p_value(ranks.p)}; critical difference {ranks.critical:.2f}"
    letters = set(ranks.groups[0])
    same = [name for name, own in zip(methods[1:], ranks.groups[1:], strict=True) if letters & set(own)]
    every = len(methods) - 1
    if same:
        said.append(f"{others_in_words(len(same), every)} can't be told from it ({test}): {named(same)}.")
    else:
        said.append(f"{others_in_words(every, every)} can be told from it ({test}).")
    return said


def _minded(item: DataSets, task: Task) -> list[str]:
    """What must be known of the data sets."""
    said = []
    count = len(item.names)
    if count < MIN_DATA_SETS:
        said.append(
            f"{count} data sets say little of a next one: of two equal methods, one leads on all {count} in "
            f"{2 / 2**count:.0%} of cases."
        )
    said.append("The tests take each data set for a separate draw.")
    if item.same_players:
        count, first = len(item.same_players), item.same_players[0]
        one, same = ("person", "people") if task.group == "player" else (task.group, task.groups)
        found = f"{task.groups} occur in more than one of them by name (such as {first}): if they are the same {same}"
        if count == 1:
            found = f"{task.group} occurs in more than one of them by name ({first}): if it is the same {one}"
        said.append(f"Here {count} {found}, the data sets count for fewer.")
    if item.repeated:
        said.append(f"Cohorts tested on the same clips as one of more runs don't count: {named(item.repeated)}.")
    if item.apart:
        said.append(f"Data sets with fewer than two or half of these methods don't count: {named(item.apart)}.")
    if item.lacking:
        said.append(f"Not run on all of them, so left out: {named(item.lacking)}.")
    return said


def _rank_table(item: DataSets, task: Task) -> Table:
    columns = [
        Column("method", "method", text=True),
        Column("mean", "mean rank", ".2f", "lower", "1: first on every data set; ties share the mean of their places"),
        Column("group", "group", text=True, help="methods that share a letter can't be told apart"),
        *(Column(cohort, f"{measures(task)['test_acc'].label}, {name}") for cohort, name in item.names.items()),
    ]
    rows = item.accuracy.assign(method=item.accuracy.index, mean=item.ranks.mean, group=item.ranks.groups)
    return Table(columns, rows.to_dict("records"))


def _chance_words(item: DataSets, margin: float) -> str:
    points = in_points(margin)
    words = (
        "For each data set the probability that the true difference is above 0, from the paired difference and its "
        f"standard error. For a next data set, by the Bayesian signed-rank test, that it is above {points}, within "
        f"{points} on either side of 0 (equally good), or below. The method was chosen by these same ranks, which "
        "flatters it."
    )
    if len(item.names) < MIN_DATA_SETS:
        words += f" With fewer than {MIN_DATA_SETS} data sets nothing is said of a next one."
    if once := list(item.chances.loc[item.chances["about"] == MODELS, "data_set"].unique()):
        words += f" Where each method was trained once, they are of these trained models only: {named(once)}."
    return words


def _chance_table(item: DataSets, limit: int) -> Table:
    rows: list[dict[str, Any]] = []
    for second, mine in item.chances.groupby("second", sort=False):
        by_data = dict(zip(mine["cohort"], mine["greater"], strict=True))
        over = mine[mine["data_set"] == OVER_ALL].iloc[0]
        rows.append({"second": second, **by_data, **over[["difference", "better", "equal", "worse"]]})
    columns = [
        Column("second", "against", text=True),
        Column("difference", "mean difference", DIFFERENCE.format, divide=DIFFERENCE.divide, unit=DIFFERENCE.unit),
        *(Column(cohort, f"P better, {name}", ".3f") for cohort, name in item.names.items()),
    ]
    if len(item.names) >= MIN_DATA_SETS:
        columns += [Column(key, f"next: P {key}", ".3f") for key in ("better", "equal", "worse")]
    return Table(columns, rows[:limit])
