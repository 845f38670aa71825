"""The sections of the report, each a function from a study to blocks, in the order in which they are read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import ABSENT, Column, measures
from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.factors import counted_rows, shown
from sousa_bench.analysis.limitations import warned_runs
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.not_run import refused
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.origins import origins
from sousa_bench.analysis.report.blocks import (
    MAX_LISTED,
    Block,
    Command,
    Details,
    Figure,
    Heading,
    Items,
    Line,
    Numbers,
    Options,
    RunTable,
    Section,
    Table,
    Text,
    listed,
)
from sousa_bench.analysis.report.by_model_size import by_model_size
from sousa_bench.analysis.report.conclusion import all_pairs, rests_on
from sousa_bench.analysis.report.first_screen import conclusion
from sousa_bench.analysis.report.misheard_by_all import misheard_by_all
from sousa_bench.analysis.report.over_data_sets import over_data_sets
from sousa_bench.analysis.report.ranking import test_metrics
from sousa_bench.analysis.report.shared_facts import shared_facts
from sousa_bench.analysis.report.what_it_takes import what_it_takes
from sousa_bench.analysis.report.with_few_clips import with_few_clips
from sousa_bench.analysis.report.with_teachers import with_teachers
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact, tested_on
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.stats.cost_front import COST
from sousa_bench.analysis.stats.intervals import MIN_PLAYERS
from sousa_bench.analysis.study import Study
from sousa_bench.analysis.table import Results
from sousa_bench.errors import UserError
from sousa_bench.results.result import DEAD, NOT_COMPLETED
from sousa_bench.system.text_table import amount
from sousa_bench.task import Task

IN_TABLE = ", in comparison_table.csv"


def counts(results: Results) -> dict[str, int]:
    """Runs by status, with those that a manifest plans and that have not started."""
    status = results.table["status"].value_counts()
    waiting = len(results.waiting())
    made = {name: int(status.get(name, 0)) for name in ("completed", *NOT_COMPLETED, "running")}
    return {"total": len(results.table) + waiting, **made, "not started": waiting}


def overview(study: Study, options: Options) -> list[Block]:
    """How many runs there are, what they share, and what varied."""
    number = counts(study.results)
    always = ("completed", "failed", "running")
    values = {key: number[key] for key in number if key != "total" and (number[key] or key in always)}
    done = study.table[counted_rows(study.table)]
    names = {"max_epochs": "epochs (at most)"}
    keys = ["model", "strategy", "augmentation", *study.results.factors, "data", "max_epochs"]
    levels = {key: sorted({shown(value) for value in done[key].unique()}) for key in keys}
    called = {key: names.get(key, study.results.named(key)) for key in keys}
    varied = [(called[key], f": {', '.join(found)}") for key, found in levels.items() if len(found) > 1]
    more: list[Block] = [Heading("What varied", 3), Items(varied)] if varied else []
    return [
        Heading("Overview", short="Overview"),
        Numbers({"total experiments": number["total"]} | values),
        Heading("What all runs share", 3),
        *shared_facts(study),
        *more,
    ]


def runs(study: Study, options: Options) -> list[Block]:
    """The page's table of all runs."""
    return [Heading("Runs", short="Runs"), RunTable(study)] if options.plots else []


def figures(study: Study, options: Options) -> list[Block]:
    """The page's figures, by what they show."""
    if not options.plots:
        return []
    from sousa_bench.analysis.plots import all_plots

    made: dict[str, list[Block]] = {
        name: [] for name in ("Accuracy", "Cost", "Effects", "The search", "Training", "Predictions")
    }
    for plot in all_plots(study, page=True):
        made[plot.group].append(Figure(plot.name, plot.figure, plot.caption))
    titles = {"Accuracy": f"{study.task.score[0].upper()}{study.task.score[1:]}"}
    headed = ((Heading(title := titles.get(name, name), short=title), group) for name, group in made.items())
    return [block for heading, group in headed for block in (heading, *group)]


def best(study: Study, options: Options) -> list[Block]:
    """The best lists: by accuracy, by F1, by parameters, by time."""
    frame, floor = study.combinations, options.min_accuracy
    accurate = frame[frame["test_acc"] >= floor]
    score, known = study.task.score, measures(study.task)
    second = known["test_f1_macro"]
    one = "{value}, " + f"{_short(study.task)}={{test_acc:.4f}}"
    both = f"{_short(study.task)}={{test_acc:.4f}}, {'micro AP' if study.task.several else 'F1'}={{{second.key}:.4f}}"
    efficient = f"Most parameter-efficient (test {score} at least {floor:g})"
    blocks: list[Block] = [Heading("Top performers")]
    for title, column, line, rows in (
        (f"By test {score}", known["test_acc"], both, frame),
        (f"By {second.label}", second, both, frame),
        *((f"By {column.label}", column, one, frame) for column in test_metrics(study)),
        (efficient, known["trainable_params"], one.replace("{value}", "{value} params"), accurate),
        ("Fastest training", known["training_time_seconds"], one, frame),
    ):
        rows = rows.dropna(subset=column.key).sort_values(column.key, ascending=column.better == "lower", kind="stable")
        lines = [_best_line(row, column, line, study.task) for row in rows.head(options.top).to_dict("records")]
        none = "No completed run yet." if title != efficient else f"No combination reaches a test {score} of {floor:g}."
        blocks += [Heading(title, 3), Items(lines, numbered=True) if lines else Text([none])]
    blocks += _front(study)
    devices = study.table["environment.device"].dropna().unique() if "environment.device" in study.table else ()
    if len(devices) > 1:
        blocks.append(Text([f"Mind: the runs ran on different devices ({', '.join(map(str, devices))})."]))
    return blocks


def _front(study: Study) -> list[Block]:
    """What each number of trainable parameters can reach, where the tests leave some combination out."""
    tested = study.combinations[study.combinations["on_front"].notna()]
    able = tested[tested["on_front"].astype(bool)].sort_values(["cohort", COST], kind="stable")
    if len(able) == len(tested):
        return []
    shown_columns = [
        *([col.COHORT] if study.cohorts else []),
        *(col.COMBINATION, measures(study.task)[COST], measures(study.task)["test_acc"]),
        col.interval_column(study.task, ".4f", better=""),
    ]
    rest = len(study.combinations) - len(tested)
    text = (
        f"{len(able)} of {amount(len(tested), 'combination')} can be on the front of {study.task.score} and trainable "
        "parameters: none that has as few is clearly better, all comparisons of a cohort being made at once. The "
        "others are not on it; on_front in combinations.csv has both."
        + (f" Not tested, and so on neither list: {amount(rest, 'combination')}." if rest else "")
    )
    table = Table(shown_columns, able.head(MAX_LISTED).to_dict("records"))
    return [Heading("What so many trainable parameters can reach", 3), Text([text]), table]


def _short(task: Task) -> str:
    return "mAP" if task.several else "Acc"


def _best_line(row: dict[Any, Any], column: Column, line: str, task: Task) -> Line:
    name, space, more = row["combination"].partition(" (")
    text = "; ".join([line.format_map(row | {"value": column.cell(row)}), *rests_on(row, task)])
    return name, f"{space}{more}: {text}"


def comparisons(study: Study, options: Options) -> list[Block]:
    """The paired differences between the leader of each cohort and those after it."""
    blocks: list[Block] = [Heading("Paired comparisons")]
    for cohort, rows in study.combinations.groupby("cohort", sort=False):
        mine = study.pairs[study.pairs["cohort"] == cohort]
        if not len(mine) or len(rows) < 2:
            continue
        leader, *others = best_first(rows, "test_acc")["combination"]
        found = [pair_of(mine, str(cohort), leader, other) for other in others[: max(options.top, 10)]]
        of_cohort = f" (cohort {cohort})" if study.cohorts else ""
        blocks += [
            Heading(f"{leader} against the next{of_cohort}", 3),
            Text(
                [
                    f"About {mine['about'].iloc[0]}. The family is {all_pairs(len(mine))} of the cohort: the leader "
                    "is the highest of all, so each pair could have been asked about. The simultaneous interval and "
                    "its p hold for all together and decide what is clear; those of one comparison alone, as if no "
                    f"other had been made, are narrower.{_mcnemar(study.task)}"
                ]
            ),
            Table(
                [
                    Column("second", "against", text=True),
                    *(
                        col.DIFFERENCE,
                        col.SIMULTANEOUS,
                        col.P_ADJUSTED,
                        col.CLEAR,
                        replace(col.DIFFERENCE_INTERVAL, label="interval of this one alone"),
                        replace(col.p_column(study.task), label="p of this one alone"),
                    ),
                    *(() if study.task.several else (col.MCNEMAR,)),
                    col.clips_column(study.task),
                ],
                [pair for pair in found if pair is not None],
            ),
        ]
    return blocks


def _mcnemar(task: Task) -> str:
    """What must be known of McNemar's test, which is right where each clip stands for itself, if it has one label."""
    if task.several:
        return ""
    if not task.grouped:
        return " McNemar's test is about the trained models alone (first seed of each)."
    return (
        f" McNemar's test takes every clip for independent, which clips of one {task.group} are not: it raises false "
        "alarms and is given for comparison with other papers only (first seed of each)."
    )


def effects(study: Study, options: Options) -> list[Block]:
    """Main effects and interactions of each cohort."""
    blocks: list[Block] = []
    for name, item in study.effects.items():
        blocks.append(Heading(f"Main effects and interactions (cohort {name})"))
        if item.reason:
            blocks.append(Text([item.reason]))
            continue
        players, clips = int(item.table["players"].iloc[0]), int(item.table["clips"].iloc[0])
        groups = study.task.groups
        size = study.task.extent(f"{clips:,}", players)
        text = (
            f"About {item.table['about'].iloc[0]}. Balanced matrix, {groups} as blocks ({size}); the "
            f"family is {_these(len(item.table), 'effect')}, Holm-corrected. The share is that of the variation "
            "between the cells' means."
        )
        if item.left_out:
            text += f" Left out, having been run without augmentation alone: {', '.join(item.left_out)}."
        shown_columns = [
            Column("effect", "effect", lambda row: study.results.named(str(row["effect"])), text=True),
            Column("levels", "levels", lambda row: row["levels"]),
            Column("share", "share", ".1f", divide=0.01, unit=" %", help="of the variation between the cells' means"),
            Column("largest", "largest difference", ".2f", unit=" points", help="between two levels"),
            *(col.p_column(study.task), col.P_HOLM, col.CLEAR),
        ]
        blocks += [Text([text]), Table(shown_columns, item.table.to_dict("records"))]
    return blocks


def statistics(study: Study, options: Options) -> list[Block]:
    """Mean, deviation and best accuracy of the runs by model, by strategy, by both, and by each further factor."""
    done = study.done
    groupings = {"model": ["model"], "strategy": ["strategy"], "pair of model and strategy": ["model", "strategy"]}
    groupings |= {study.results.named(key): [key] for key in study.results.factors}
    blocks: list[Block] = []
    for title, keys in groupings.items():
        blocks.append(Heading(f"Statistics by {title}", short="" if blocks else "Statistics"))
        for cohort, rows in done.groupby("cohort"):
            if study.cohorts:
                blocks.append(Text([f"Cohort {cohort}:"]))
            groups = dict(list(rows.groupby(keys, dropna=False, sort=False)))
            order = sorted(groups, key=lambda name: -groups[name]["test_acc"].mean())
            blocks.append(Items([_group_line(name, groups[name], study.task) for name in order]))
    return blocks


def _these(number: int, noun: str) -> str:
    return f"this {noun} alone" if number == 1 else f"these {number} {noun}s"


def _group_line(name: tuple[Any, ...], runs: pd.DataFrame, task: Task) -> Line:
    accuracy = runs["test_acc"]
    deviation = f"{accuracy.std(ddof=1):.4f}" if len(runs) > 1 else ABSENT
    number = amount(len(runs), "run")
    average = f"Avg {_short(task)}={accuracy.mean():.4f} ± {deviation}"
    text = f"{average}, Best={accuracy.max():.4f} ({number}); {tested_on(runs, task)}"
    return " + ".join(map(shown, name)), f": {text}"


def augmentation(study: Study, options: Options) -> list[Block]:
    """What augmentation changed, in pairs that differ in it alone."""
    impact = augmentation_impact(study)
    short = _short(study.task)
    averages = [
        (name, f": Avg {short}={mean:.4f} ({amount(size, 'run')}); {on}") for name, mean, size, on in impact.averages
    ]
    blocks: list[Block] = [Heading("Augmentation impact"), Items(averages)]
    if impact.reason:
        blocks.append(Text([impact.reason]))
    if len(impact.table):
        shown_columns = [
            Column("label", "combination", text=True),
            *(col.DIFFERENCE, col.DIFFERENCE_INTERVAL, col.p_column(study.task), col.P_ADJUSTED),
            Column("repeats", "runs on either side", lambda row: row["repeats"]),
            col.clips_column(study.task),
        ]
        text = (
            "Paired: the same model, strategy and other factors, over the seeds and folds that both have, on the same "
            f"clips; with augmentation minus without. The family is {_these(len(impact.table), 'pair')}."
        )
        blocks += [Text([text]), Table(shown_columns, impact.table.to_dict("records"))]
    return blocks


def folds(study: Study, options: Options) -> list[Block]:
    """A line a combination: what its cross-validation adds up to."""
    rows = study.combinations[study.combinations["folds"] > 0]
    if not len(rows):
        return []
    group = study.task.group
    text = (
        "The mean and its standard deviation are over folds, each averaged over its seeds. "
        + (
            f"The pooled one is the mean of the folds, each weighing by its {study.task.groups}: "
            if study.task.several
            else "The pooled accuracy takes the test clips of all folds as one set: "
        )
        + f"each {group} was heard once, by a model that had not learnt from that {group}. Its interval is clustered "
        f"by {group}, and holds the luck of the folds' trainings."
    )
    shown_columns = [
        col.COMBINATION,
        Column("test_acc", "mean ± std over folds", lambda row: _mean(row, "acc_std")),
        Column("folds", "folds", lambda row: f"{row['folds']} of {row['of_folds']}"),
        Column("seed_std", "± std over seeds"),
        Column("seeds", "seeds", ".0f"),
        Column("pooled_acc", "pooled"),
        col.interval_column(study.task, ".4f", better=""),
        col.clips_column(study.task),
        Column("missing", "missing", lambda row: row["missing"][:200] or "none"),
    ]
    table = Table(shown_columns, rows.head(MAX_LISTED).to_dict("records"))
    return [Heading("Cross-validation"), Text([text]), table]


def _mean(row: Mapping[Any, Any], spread: str) -> str:
    deviation = "" if col.is_absent(row[spread]) else f" ± {row[spread]:.4f}"
    return f"{row['test_acc']:.4f}{deviation}"


def seeds(study: Study, options: Options) -> list[Block]:
    """The spread over seeds beside the standard error of the mean."""
    rows = study.combinations[study.combinations["seed_std"].notna()]
    if not len(rows):
        return []
    shown_columns = [
        col.COMBINATION,
        Column("test_acc", f"mean {study.task.score} ± std over seeds", lambda row: _mean(row, "seed_std")),
        Column("seeds", "seeds", ".0f"),
        Column("acc_error", "standard error of the mean"),
        col.clips_column(study.task),
    ]
    text = (
        "The spread over seeds holds the luck of training and that of the clips; the standard error of the mean holds "
        f"both kinds of luck, over {study.task.groups} and over trainings."
    )
    table = Table(shown_columns, rows.head(MAX_LISTED).to_dict("records"))
    return [Heading(f"Seeds and {study.task.groups}"), Text([text]), table]


def methods(study: Study, options: Options) -> list[Block]:
    """How every number came about."""
    task = study.task
    sizes = {(len(each.clips.label), len(each.clips.players), len(each.sets)) for each in study.shared_clips[:5]}
    clips = ", ".join(
        task.extent(f"{count:,}", players, " of ") + (f" in {folds} folds" if folds > 1 else "")
        for count, players, folds in sorted(sizes, reverse=True)
    )
    return [
        Heading("How these numbers came about"),
        Items(
            [
                f"Test clips: {clips or 'no predictions were found'}.",
                f"Intervals: 95 %, over {task.groups} (clustered, CR2 variance) and, where it is known, training luck; "
                f"t quantile with Satterthwaite degrees of freedom, {_scores(task)} on the logit scale; none below "
                f"{MIN_PLAYERS} {task.groups}. The first by test and the first by validation allow "
                "for their having been chosen.",
                f"Comparisons: max-t over all pairs of a cohort, by flipping {task.groups}' signs and drawing training "
                "luck; it makes the corrected p values and the simultaneous intervals. Effects: the same draws, with "
                "Holm's correction.",
                "Training luck: the variance between seeds, pooled over the cohort as a multiple of p (1 - p), less "
                f"what {task.clips_and_groups} make of it; with one seed, from how folds and combinations go together; "
                "else unknown.",
                "Combinations average their seeds; the spread over seeds is shown apart. Folds of a cross-validation "
                f"by {task.group} are averaged, and for intervals and comparisons their test predictions are pooled: "
                f"each {task.group} was heard once, by a model that had not learnt from that {task.group}.",
                "Runs that differ in data, test clips, kind of weights or epochs are never compared; over several data "
                "sets only methods are, each time within every data set.",
            ]
        ),
    ]


def _scores(task: Task) -> str:
    return task.score if task.several else "accuracies"


def lineage(study: Study, options: Options) -> list[Block]:
    """Which runs go back to others, and which results evaluate one."""
    lines: list[Line] = [
        (item.experiment, f" {item.words}" + (f" (as recorded: {item.command})" if item.command else ""))
        for item in origins(study.table)
    ]
    return [Heading("Where these runs come from", short="Origins"), listed(lines, IN_TABLE)] if lines else []


def not_run(study: Study, options: Options) -> list[Block]:
    """The combinations that a sweep refused, and why."""
    lines: list[Line] = [(each.words, f": {each.reason}") for each in refused(study)]
    return [Heading("Not run", short="Not run"), listed(lines, ", in sweep.json")] if lines else []


def failures(study: Study, options: Options) -> list[Block]:
    """Runs that failed, why, and the command that runs each again."""
    rows = np.flatnonzero(study.table["status"].isin(NOT_COMPLETED))
    blocks: list[Block] = [Heading("Failures", short="Failures")]
    for row in rows[:MAX_LISTED]:
        item = study.table.iloc[row]
        why = f" ({item['status']}; {failure_cause(item)}): {str(item['error'] or '')[:500]}"
        blocks += [Text([(item["experiment_id"], why)]), Command([retry_command(study, int(row))])]
    if len(rows) > MAX_LISTED:
        blocks.append(Text([f"… and {len(rows) - MAX_LISTED} more{IN_TABLE}."]))
    return blocks if len(rows) else [*blocks, Text(["None."])]


def failure_cause(row: pd.Series) -> str:
    """Cause and phase of a failure: ``oom in fit``."""
    cause, phase = row.get("failure.cause"), row.get("failure.phase")
    if row["status"] == DEAD:
        cause, phase = "its process is gone", row.get("progress.phase")
    words = str(cause) if isinstance(cause, str) else "cause unknown"
    return f"{words} in {phase}" if isinstance(phase, str) else words


def steps(study: Study, options: Options) -> list[Block]:
    """What to run next, and how many seeds or groups the question takes."""
    found = [(Heading(step.title, 3), Command(step.commands)) for step in next_steps(study, options.top)]
    blocks: list[Block] = [block for pair in found for block in pair]
    return [
        Heading("Next commands", short="Next"),
        *(blocks or [Text(["Nothing is missing."])]),
        *what_it_takes(study),
    ]


def passed_over(study: Study, options: Options) -> list[Block]:
    """What the runs warn of, repeats that don't count, and files that could not be read."""
    by_text = warned_runs(study).groupby("warnings", sort=False)["experiment_id"]
    lists: dict[str, list[Line]] = {
        "Warnings of the runs": [
            f"{ids.iloc[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''}: {text}" for text, ids in by_text
        ],
        "Repeats that don't count": [*study.results.repeats],
        "Passed over": [*study.results.problems],
    }
    return [Heading("Files and warnings"), *(Details(name, [listed(lines)]) for name, lines in lists.items() if lines)]


SECTIONS: tuple[Section, ...] = (
    conclusion,
    overview,
    runs,
    figures,
    misheard_by_all,
    best,
    comparisons,
    over_data_sets,
    by_model_size,
    with_teachers,
    with_few_clips,
    effects,
    statistics,
    augmentation,
    folds,
    seeds,
    methods,
    lineage,
    not_run,
    failures,
    steps,
    passed_over,
)


def report(study: Study, options: Options, more: Sequence[Section] = ()) -> list[Block]:
    """Every section, those of the user's after the project's own."""
    return [block for section in (*SECTIONS, *more) for block in section(study, options)]


def find_section(name: str) -> Section:
    """The user's section ``my_module:my_function``.

    Raises:
        UserError: There is no such module or function, or it can't be imported.
    """
    module, _, function = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise UserError(
            f"--section {name}: {error}. Write MODULE:FUNCTION; the module is looked for on PYTHONPATH"
        ) from error
    if not callable(made):
        raise UserError(f"--section {name}: {function} is no function")

    def section(study: Study, options: Options) -> list[Block]:
        try:
            return list(made(study, options))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"--section {name} failed ({reason}); the tables are written, the report is not") from error

    return section
