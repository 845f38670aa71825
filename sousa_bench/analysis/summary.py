"""``summary_report.md``: the answers in words, with the numbers that they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.answer import answer
from sousa_bench.analysis.combinations import interval_words, spread_words
from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.comparisons import pair_of
from sousa_bench.analysis.console import escape, minutes, p_value, render
from sousa_bench.analysis.effects import Effects
from sousa_bench.analysis.factors import augmentation_words, counted_rows, shown
from sousa_bench.analysis.flatten import DEAD, NOT_COMPLETED
from sousa_bench.analysis.impact import Impact, augmentation_impact, tested_on
from sousa_bench.analysis.lineage import origins
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.notes import warned_runs
from sousa_bench.analysis.pairs import ALPHA
from sousa_bench.analysis.study import Study
from sousa_bench.analysis.table import Results

MAX_LISTED = 50


def summary(study: Study, top: int = 5, min_accuracy: float = 0.5) -> str:
    """The whole report as Markdown.

    Args:
        study: From ``compare``.
        top: Length of the best lists.
        min_accuracy: Floor of the test accuracy for the most parameter-efficient.
    """
    parts = [
        "# Summary of the comparison",
        _overview(study),
        _answer(study),
        "## Top performers",
        _top(study, "By test accuracy", study.combinations, "test_acc", top),
        _top(study, "By macro F1", study.combinations, "test_f1_macro", top),
        _efficient(study, top, min_accuracy),
        _fastest(study, top),
        "## Ranking\n\n" + render(study, "markdown", top=max(top, 30)),
        _best_pairs(study, top),
        *(_effects(name, item) for name, item in study.effects.items()),
        *(_statistics(study, title, keys) for title, keys in _groupings(study)),
        _impact(augmentation_impact(study)),
        _folds(study),
        _seeds(study),
        _origins(study),
        _failures(study),
        _steps(study, top),
        _passed_over(study),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def code(text: str) -> str:
    """A text in a fenced block that it can't close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}bash\n{text}\n{fence}"


def counts(results: Results) -> dict[str, int]:
    """Runs by status, with those that a manifest plans and that have not started."""
    status = results.table["status"].value_counts()
    waiting = len(results.waiting())
    made = {name: int(status.get(name, 0)) for name in ("completed", *NOT_COMPLETED, "running")}
    return {"total": len(results.table) + waiting, **made, "not started": waiting}


def _overview(study: Study) -> str:
    number = counts(study.results)
    lines = ["## Overview", "", f"- **Total experiments**: {number['total']}"]
    always = ("completed", "failed", "running")
    lines += [
        f"- **{key.capitalize()}**: {number[key]}"
        for key in number
        if key != "total" and (number[key] or key in always)
    ]
    varied = ["model", "strategy", "augmentation", *study.results.factors]
    done = study.table[counted_rows(study.table)]
    lines += [f"- **{escape(key)}**: {', '.join(_levels(done[key]))}" for key in varied]
    for key in ("data", "max_epochs"):
        values = ", ".join(_levels(done[key]))
        lines.append(f"- **{'epochs (at most)' if key == 'max_epochs' else key}**: {values}")
    return "\n".join(
        [*lines, *([""] if study.notes else []), *(f"> {escape(note)}\n>" for note in study.notes)]
    ).rstrip(">\n ")


def _levels(column: pd.Series) -> list[str]:
    return sorted({escape(shown(value)) for value in column.unique()})


def _answer(study: Study) -> str:
    return "\n".join(["## Answer", "", *(f"{escape(line)}\n" for line in answer(study))])


def _named(study: Study, row: Mapping[str, Any] | pd.Series) -> str:
    extra = [key for key in study.factors if key not in ("model", "strategy", "augmentation")]
    name = f"**{escape(row['model'])} + {escape(row['strategy'])}** ({augmentation_words(row['augmentation'])})"
    name += "".join(f", {escape(key)}={escape(shown(row[key]))}" for key in extra)
    return name


def _tail(row: pd.Series) -> str:
    """Interval, seeds, clips and players behind a number."""
    parts = [words for words in (spread_words(row), interval_words(row)) if words]
    if row["clips"]:
        parts.append(f"{row['clips']:,} clips, {row['players']} players")
    return f"; {'; '.join(parts)}" if parts else ""


def _top(study: Study, title: str, frame: pd.DataFrame, key: str, top: int) -> str:
    rows = frame[frame[key].notna()].sort_values(key, ascending=False, kind="stable").head(top)
    lines = [
        f"{number}. {_named(study, row)}: Acc={row['test_acc']:.4f}, F1={row['test_f1_macro']:.4f}{_tail(row)}"
        for number, (_, row) in enumerate(rows.iterrows(), start=1)
    ]
    return "\n".join([f"### {title}", "", *(lines or ["No completed run yet."])])


def _efficient(study: Study, top: int, floor: float) -> str:
    rows = study.combinations[study.combinations["test_acc"] >= floor].dropna(subset="trainable_params")
    rows = rows.sort_values("trainable_params", kind="stable").head(top)
    lines = [
        f"{number}. {_named(study, row)}: {row['trainable_params']:,.0f} params, Acc={row['test_acc']:.4f}{_tail(row)}"
        for number, (_, row) in enumerate(rows.iterrows(), start=1)
    ]
    none = f"No combination reaches a test accuracy of {floor:g}."
    return "\n".join([f"### Most parameter-efficient (test accuracy at least {floor:g})", "", *(lines or [none])])


def _fastest(study: Study, top: int) -> str:
    rows = study.combinations.dropna(subset="training_time_seconds")
    rows = rows.sort_values("training_time_seconds", kind="stable").head(top)
    lines = [
        f"{number}. {_named(study, row)}: {minutes(row['training_time_seconds'])}, "
        f"Acc={row['test_acc']:.4f}{_tail(row)}"
        for number, (_, row) in enumerate(rows.iterrows(), start=1)
    ]
    devices: list[Any] = (
        list(study.table["environment.device"].dropna().unique()) if "environment.device" in study.table else []
    )
    if len(devices) > 1:
        lines += ["", f"Mind: the runs ran on different devices ({escape(', '.join(map(str, devices)))})."]
    return "\n".join(["### Fastest training", "", *(lines or ["No completed run yet."])])


def _best_pairs(study: Study, top: int) -> str:
    """The paired differences between the leader of each cohort and those after it."""
    blocks = []
    for cohort, rows in study.combinations.groupby("cohort", sort=False):
        mine = study.pairs[study.pairs["cohort"] == cohort]
        rows = rows.sort_values("test_acc", ascending=False, kind="stable")
        if not len(mine) or len(rows) < 2:
            continue
        leader = rows.iloc[0]
        lines = []
        for _, row in rows.iloc[1 : max(top, 10) + 1].iterrows():
            pair = pair_of(mine, str(cohort), leader["combination"], row["combination"])
            if pair is not None:
                lines.append(_pair_line(row["combination"], pair))
        head = (
            "| against | difference | 95 % interval | p (sign-flip) | p (Holm) | clear | McNemar p, by clip "
            "| clips | players |"
        )
        blocks += [
            f"### {_named(study, leader)} against the next" + (f" (cohort {cohort})" if study.cohorts else ""),
            "",
            f"{len(mine)} comparisons in the family. "
            "The sign-flip test decides. McNemar's test takes every clip for independent, which clips of one "
            "player are "
            "not: it raises false alarms and is given for comparison with other papers only (first seed of each).",
            "",
            head,
            "|---|---|---|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    return "\n".join(["## Paired comparisons", "", *blocks]) if blocks else ""


def _pair_line(name: str, pair: Mapping[str, Any]) -> str:
    low, high = pair["low"], pair["high"]
    interval = f"{100 * low:+.2f} to {100 * high:+.2f}" if low == low else "–"
    clear = "yes" if pair["clear"] else "no"
    return (
        f"| {escape(name)} | {100 * pair['difference']:+.2f} points | {interval} | {p_value(pair['p'])} | "
        f"{p_value(pair['p_holm'])} | {clear} | {p_value(pair['mcnemar_p'])} | "
        f"{pair['clips']:,} | {pair['players']} |"
    )


def _effects(name: str, item: Effects) -> str:
    lines = [f"## Main effects and interactions (cohort {name})", ""]
    if item.word:
        return "\n".join([*lines, escape(item.word)])
    players, clips = int(item.table["players"].iloc[0]), int(item.table["clips"].iloc[0])
    lines += [
        f"Balanced matrix, players as blocks ({players} players, {clips:,} clips), sign-flip tests, "
        "Holm-corrected. The share is "
        "that of the variation between the cells' means. With one seed a small interaction may be the luck of "
        "training.",
        "",
        "| effect | levels | share | largest difference | p | p (Holm) | clear |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, row in item.table.iterrows():
        largest = f"{row['largest']:.2f} points" if row["largest"] == row["largest"] else "–"
        clear = "yes" if row["p_holm"] <= ALPHA else "no"
        lines.append(
            f"| {escape(row['effect'])} | {row['levels']} | {100 * row['share']:.1f} % | {largest} | "
            f"{p_value(row['p'])} | "
            f"{p_value(row['p_holm'])} | {clear} |"
        )
    return "\n".join(lines)


def _groupings(study: Study) -> Iterable[tuple[str, list[str]]]:
    yield "model", ["model"]
    yield "strategy", ["strategy"]
    yield "pair of model and strategy", ["model", "strategy"]
    for key in study.results.factors:
        yield escape(key), [key]


def _statistics(study: Study, title: str, keys: list[str]) -> str:
    done = study.table[(study.table["status"] == "completed") & study.table["test_acc"].notna()]
    lines = [f"## Statistics by {title}", ""]
    for cohort in sorted(done["cohort"].unique()):
        rows = done[done["cohort"] == cohort]
        if study.cohorts:
            lines += [f"Cohort {cohort}:", ""]
        groups = [
            (group["test_acc"].mean(), name, group) for name, group in rows.groupby(keys, dropna=False, sort=False)
        ]
        for mean, name, group in sorted(groups, key=lambda item: -item[0]):
            label = " + ".join(escape(shown(part)) for part in name)
            deviation = f"{group['test_acc'].std(ddof=1):.4f}" if len(group) > 1 else "–"
            plural = "run" if len(group) == 1 else "runs"
            best = group["test_acc"].max()
            lines.append(
                f"- **{label}**: Avg Acc={mean:.4f} ± {deviation}, Best={best:.4f} ({len(group)} {plural}); "
                f"{tested_on(group)}"
            )
        lines.append("")
    return "\n".join(lines)


def _impact(impact: Impact) -> str:
    lines = ["## Augmentation impact", ""]
    lines += [
        f"- **{escape(name)}**: Avg Acc={mean:.4f} ({size} runs); {where}"
        for name, mean, size, where in impact.averages
    ]
    if impact.word:
        lines += ["", escape(impact.word)]
    if not len(impact.table):
        return "\n".join(lines)
    lines += [
        "",
        "Paired: the same model, strategy and other factors, over the seeds and folds that both have, on the same "
        "clips; with augmentation minus without.",
        "",
        "| combination | difference | 95 % interval | p (sign-flip) | p (Holm) | runs on either side "
        "| clips | players |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, row in impact.table.iterrows():
        interval = f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}" if row["low"] == row["low"] else "–"
        p_values = f"{p_value(row['p'])} | {p_value(row['p_holm'])}"
        lines.append(
            f"| {escape(row['label'])} | {100 * row['difference']:+.2f} points | {interval} | {p_values} | "
            f"{row['repeats']} | {row['clips'] or '–'} | {row['players'] or '–'} |"
        )
    return "\n".join(lines)


def _folds(study: Study) -> str:
    """A line a combination: what its cross-validation adds up to."""
    rows = study.combinations[study.combinations["folds"] > 0]
    if not len(rows):
        return ""
    lines = [
        "## Cross-validation",
        "",
        "The mean and its standard deviation are over folds, each averaged over its seeds. The pooled accuracy takes "
        "the test clips of all folds as one set: each player was heard once, by a model that had not learnt from that "
        "player. Its interval is clustered by player. The players of one fold share one training's luck, which no "
        "interval covers; seeds show a part of it.",
        "",
        "| combination | mean ± std over folds | folds | ± std over seeds | seeds | pooled | 95 % interval | clips "
        "| players | missing |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for _, row in rows.head(MAX_LISTED).iterrows():
        low, high = row["acc_low"], row["acc_high"]
        interval = f"{low:.4f} to {high:.4f}" if low == low else "–"
        deviation = f" ± {row['acc_std']:.4f}" if row["acc_std"] == row["acc_std"] else ""
        seeds = f"{row['seed_std']:.4f}" if row["seed_std"] == row["seed_std"] else "–"
        pooled = f"{row['pooled_acc']:.4f}" if row["pooled_acc"] == row["pooled_acc"] else "–"
        lines.append(
            f"| {escape(row['combination'])} | {row['test_acc']:.4f}{deviation} | {row['folds']} of {row['of_folds']} "
            f"| {seeds} | {row['seeds']} | {pooled} "
            f"| {interval} "
            f"| {row['clips']:,} | {row['players']} | {row['missing'][:200] or 'none'} |"
        )
    return "\n".join(lines)


def _origins(study: Study) -> str:
    """Which runs go back to others, and which results evaluate one."""
    found = origins(study)
    if not found:
        return ""
    lines = ["## Where these runs come from", ""]
    for item in found[:MAX_LISTED]:
        command = f" (as recorded: {escape(item.command)})" if item.command else ""
        lines.append(f"- **{escape(item.experiment)}** {escape(item.words)}{command}")
    if len(found) > MAX_LISTED:
        lines.append(f"- … and {len(found) - MAX_LISTED} more, in comparison_table.csv")
    return "\n".join(lines)


def _seeds(study: Study) -> str:
    rows = study.combinations[study.combinations["seed_std"].notna()]
    if not len(rows):
        return ""
    lines = [
        "## Seeds and players",
        "",
        "Two kinds of luck, apart: the spread over seeds (training) and the standard error over players (the "
        "test clips).",
        "",
        "| combination | mean accuracy ± std over seeds | seeds | standard error over players | clips | players |",
        "|---|---|---|---|---|---|",
    ]
    for _, row in rows.head(MAX_LISTED).iterrows():
        error = f"{row['acc_error']:.4f}" if row["acc_error"] == row["acc_error"] else "–"
        lines.append(
            f"| {escape(row['combination'])} | {row['test_acc']:.4f} ± {row['seed_std']:.4f} | {row['seeds']} | "
            f"{error} | "
            f"{row['clips']:,} | {row['players']} |"
        )
    freedom = rows["runs"] - rows["folds"].clip(lower=1)
    pooled = float(np.sqrt((rows["seed_std"] ** 2 * freedom).sum() / freedom.sum()))
    return "\n".join(
        [*lines, "", f"Pooled over {len(rows)} combinations, the standard deviation over seeds is {pooled:.4f}."]
    )


def _failures(study: Study) -> str:
    table = study.table
    rows = np.flatnonzero(table["status"].isin(NOT_COMPLETED))
    if not len(rows):
        return "## Failures\n\nNone."
    lines = ["## Failures", ""]
    for row in rows[:MAX_LISTED]:
        item = table.iloc[row]
        lines += [
            f"- **{escape(item['experiment_id'])}** ({item['status']}; {escape(failure_cause(item))}): "
            f"{escape(item['error'] or '')[:500]}",
            "",
            code(retry_command(study, int(row))),
            "",
        ]
    if len(rows) > MAX_LISTED:
        lines.append(f"… and {len(rows) - MAX_LISTED} more, all in comparison_table.csv.")
    return "\n".join(lines)


def failure_cause(row: Mapping[str, Any] | pd.Series) -> str:
    """Cause and phase of a failure: ``oom in fit``."""
    cause, phase = row.get("failure.cause"), row.get("failure.phase")
    if row["status"] == DEAD:
        cause, phase = "its process is gone", row.get("progress.phase")
    words = str(cause) if isinstance(cause, str) else "cause unknown"
    return f"{words} in {phase}" if isinstance(phase, str) else words


def _steps(study: Study, top: int) -> str:
    steps = next_steps(study, top)
    if not steps:
        return ""
    lines = ["## Next commands", ""]
    for step in steps:
        lines += [f"### {step.title}", "", code("\n".join(step.commands)), ""]
    return "\n".join(lines)


def _passed_over(study: Study) -> str:
    lines = []
    if len(warned := warned_runs(study)):
        items = warned[["experiment_id", "warnings"]].head(MAX_LISTED).itertuples(index=False)
        lines += ["## Warnings of the runs", "", *(f"- {escape(name)}: {escape(words)}" for name, words in items), ""]
    if study.results.repeats:
        lines += [
            "## Repeats that don't count",
            "",
            *(f"- {escape(line)}" for line in study.results.repeats[:MAX_LISTED]),
            "",
        ]
    if study.results.problems:
        lines += ["## Passed over", "", *(f"- {escape(line)}" for line in study.results.problems[:MAX_LISTED])]
        if len(study.results.problems) > MAX_LISTED:
            lines.append(f"- … and {len(study.results.problems) - MAX_LISTED} more")
    return "\n".join(lines)
