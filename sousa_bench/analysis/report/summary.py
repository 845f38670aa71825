"""``summary_report.md``: the answers in words, with the numbers that they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.combinations import interval_words, spread_words
from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.factors import counted_rows, shown
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.origins import origins
from sousa_bench.analysis.report.answer import answer
from sousa_bench.analysis.report.console import escape, minutes, render
from sousa_bench.analysis.report.evidence import (
    MAX_LISTED,
    best_pairs,
    effects,
    folds,
    groupings,
    impact,
    named,
    seeds,
    statistics,
)
from sousa_bench.analysis.report.notes import warned_runs
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact
from sousa_bench.analysis.study import Study
from sousa_bench.analysis.table import Results
from sousa_bench.results.result import DEAD, NOT_COMPLETED


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
        best_pairs(study, top),
        *(effects(name, item) for name, item in study.effects.items()),
        *(statistics(study, title, keys) for title, keys in groupings(study)),
        impact(augmentation_impact(study)),
        folds(study),
        seeds(study),
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


def _tail(row: pd.Series) -> str:
    """Interval, seeds, clips and players behind a number."""
    parts = [words for words in (spread_words(row), interval_words(row)) if words]
    if row["clips"]:
        parts.append(f"{row['clips']:,} clips, {row['players']} players")
    return f"; {'; '.join(parts)}" if parts else ""


def _top(study: Study, title: str, frame: pd.DataFrame, key: str, top: int) -> str:
    rows = frame[frame[key].notna()].sort_values(key, ascending=False, kind="stable").head(top)
    lines = [
        f"{number}. {named(study, row)}: Acc={row['test_acc']:.4f}, F1={row['test_f1_macro']:.4f}{_tail(row)}"
        for number, (_, row) in enumerate(rows.iterrows(), start=1)
    ]
    return "\n".join([f"### {title}", "", *(lines or ["No completed run yet."])])


def _efficient(study: Study, top: int, floor: float) -> str:
    rows = study.combinations[study.combinations["test_acc"] >= floor].dropna(subset="trainable_params")
    rows = rows.sort_values("trainable_params", kind="stable").head(top)
    lines = [
        f"{number}. {named(study, row)}: {row['trainable_params']:,.0f} params, Acc={row['test_acc']:.4f}{_tail(row)}"
        for number, (_, row) in enumerate(rows.iterrows(), start=1)
    ]
    none = f"No combination reaches a test accuracy of {floor:g}."
    return "\n".join([f"### Most parameter-efficient (test accuracy at least {floor:g})", "", *(lines or [none])])


def _fastest(study: Study, top: int) -> str:
    rows = study.combinations.dropna(subset="training_time_seconds")
    rows = rows.sort_values("training_time_seconds", kind="stable").head(top)
    lines = [
        f"{number}. {named(study, row)}: {minutes(row['training_time_seconds'])}, Acc={row['test_acc']:.4f}{_tail(row)}"
        for number, (_, row) in enumerate(rows.iterrows(), start=1)
    ]
    devices: list[Any] = (
        list(study.table["environment.device"].dropna().unique()) if "environment.device" in study.table else []
    )
    if len(devices) > 1:
        lines += ["", f"Mind: the runs ran on different devices ({escape(', '.join(map(str, devices)))})."]
    return "\n".join(["### Fastest training", "", *(lines or ["No completed run yet."])])


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
