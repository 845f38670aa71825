"""The page's parts that are text: the answer, failures, next commands, statistics. All of it escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.origins import origins
from sousa_bench.analysis.report.answer import answer
from sousa_bench.analysis.report.console import fold_spread, p_value, seed_spread
from sousa_bench.analysis.report.notes import warned_runs
from sousa_bench.analysis.report.summary import counts, failure_cause
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.stats.pairs import ALPHA
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import NOT_COMPLETED

MAX_FAILURES = 200


def text(value: Any) -> str:
    """A value as text that HTML shows as it stands."""
    return html.escape(str(value))


def rows_table(head: Sequence[str], rows: Sequence[Sequence[Any]], number_from: int = 1) -> str:
    """A table; cells are escaped, columns from ``number_from`` on are aligned as numbers."""
    heads = "".join(
        f'<th scope="col"{" class=n" if i >= number_from else ""}>{text(cell)}</th>' for i, cell in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if i >= number_from else ''}>{text(c)}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def answer_section(study: Study, top: int) -> str:
    """Counts, the answer in words, notes, and the leading combinations."""
    number = counts(study.results)
    tiles = "".join(
        f'<li class="{text(key.replace(" ", "-"))}"><b>{value}</b> {text(key)}</li>'
        for key, value in number.items()
        if value or key in ("total", "completed", "failed", "running")
    )
    sentences = "".join(f"<p>{text(line)}</p>" for line in answer(study))
    notes = "".join(f"<li>{text(note)}</li>" for note in study.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    return f'<ul class="tiles">{tiles}</ul><div class="answer">{sentences}</div>{notes}{_leaders(study, max(top, 10))}'


def _leaders(study: Study, top: int) -> str:
    frame = study.combinations
    if not len(frame):
        return ""
    leaders: dict[str, str] = {}
    for cohort, group in frame[frame["test_acc"].notna()].groupby("cohort"):
        ranked = group.sort_values("test_acc", ascending=False, kind="stable")
        leaders[str(cohort)] = str(ranked["combination"].iloc[0])
    rows = [_leader(study, number, row, leaders) for number, (_, row) in enumerate(frame.head(top).iterrows(), start=1)]
    head = [
        "#",
        "Combination",
        "Test acc.",
        "95 % interval",
        *(["± folds (n)"] if (frame["folds"] > 0).any() else []),
        "± seeds (n)",
        "Macro F1",
        "Behind the best",
        "p (Holm)",
        "Can be the best",
        "Clips / players",
    ]
    return rows_table(head, rows, number_from=2)


def _leader(study: Study, number: int, row: pd.Series, leaders: dict[str, str]) -> list[str]:
    pair = pair_of(study.pairs, row["cohort"], leaders.get(row["cohort"], ""), row["combination"])
    low, high = row["acc_low"], row["acc_high"]
    gap = "–"
    if pair is not None:
        gap = f"{100 * pair['difference']:.2f} points"
        if pair["low"] == pair["low"]:
            gap += f" ({100 * pair['low']:+.2f} to {100 * pair['high']:+.2f})"
    tested = row["p_best"] == row["p_best"] or row["combination"] == leaders.get(row["cohort"])
    name = row["combination"] + (f" [{row['cohort']}]" if study.cohorts else "")
    return [
        str(number),
        name,
        f"{row['test_acc']:.4f}",
        f"{low:.4f} to {high:.4f}" if low == low else "–",
        *([fold_spread(row)] if (study.combinations["folds"] > 0).any() else []),
        seed_spread(row),
        f"{row['test_f1_macro']:.4f}",
        gap,
        p_value(row["p_best"]),
        ("yes" if row["best_set"] else "no") if tested else "not tested",
        f"{row['clips']:,} / {row['players']}" if row["clips"] else "–",
    ]


def failures_section(study: Study) -> str:
    """Runs that failed, why, and the command that runs each again; files that were passed over."""
    table = study.table
    rows = np.flatnonzero(table["status"].isin(NOT_COMPLETED))
    parts = []
    for row in rows[:MAX_FAILURES]:
        item = table.iloc[row]
        parts.append(
            f"<article><h3>{text(item['experiment_id'])}</h3><p><b>{text(item['status'])}</b>: "
            f"{text(failure_cause(item))}. "
            f"{text(str(item['error'] or '')[:600])}</p>{_command(retry_command(study, int(row)))}</article>"
        )
    if len(rows) > MAX_FAILURES:
        parts.append(f"<p>… and {len(rows) - MAX_FAILURES} more, in comparison_table.csv.</p>")
    if not parts:
        parts.append("<p>No run failed.</p>")
    warned = warned_runs(study)
    warnings = [f"{name}: {words}" for name, words in zip(warned["experiment_id"], warned["warnings"], strict=True)]
    for title, lines in (
        ("Warnings of the runs", warnings),
        ("Passed over", study.results.problems),
        ("Repeats that don't count", study.results.repeats),
    ):
        if lines:
            items = "".join(f"<li>{text(line[:500])}</li>" for line in lines[:100])
            more = f"<li>… and {len(lines) - 100} more</li>" if len(lines) > 100 else ""
            parts.append(f"<details><summary>{title} ({len(lines)})</summary><ul>{items}{more}</ul></details>")
    return "".join(parts)


def steps_section(study: Study, top: int) -> str:
    """What to run next."""
    steps = next_steps(study, top)
    parts = [f"<h3>{text(step.title)}</h3>{_command(chr(10).join(step.commands))}" for step in steps]
    return "".join(parts) or "<p>Nothing is missing.</p>"


def origins_section(study: Study) -> str:
    """Which runs go back to others; empty where none does."""
    found = origins(study)
    if not found:
        return ""
    rows = [[item.experiment, item.words, item.command or "–"] for item in found[:MAX_FAILURES]]
    more = f"<p>… and {len(found) - MAX_FAILURES} more.</p>" if len(found) > MAX_FAILURES else ""
    table = rows_table(["Run", "Comes from", "Command"], rows, number_from=3)
    return f'<section id="origins"><h2>Where these runs come from</h2>{table}{more}</section>'


def _command(command: str) -> str:
    button = '<button type="button" class="copy">Copy</button>'
    return f'<div class="command"><pre><code>{text(command)}</code></pre>{button}</div>'


def methods_section(study: Study) -> str:
    """Effects as a table, augmentation as a table, and how every number came about."""
    parts = [_effects_table(study), _impact_table(study)]
    sizes = {(len(ground.clips.label), len(ground.clips.players), len(ground.sets)) for ground in study.grounds[:5]}
    players = ", ".join(
        f"{clips:,} clips of {count} players" + (f" in {folds} folds" if folds > 1 else "")
        for clips, count, folds in sorted(sizes, reverse=True)
    )
    parts.append(
        "<h3>How these numbers came about</h3><ul>"
        f"<li>Test clips: {text(players or 'no predictions were found')}.</li>"
        "<li>Intervals: 95 %, clustered by player, CR2 variance and t quantile with Satterthwaite degrees of "
        "freedom, on the "
        "logit scale; none below 8 players.</li>"
        "<li>Comparisons: sign-flip permutation tests by player on the same clips, exact up to 17 players, else "
        "100,000 drawn "
        "patterns; Holm's correction over all pairs of a cohort.</li>"
        "<li>Combinations average their seeds; the spread over seeds is shown apart. Folds of a cross-validation by "
        "player are averaged, and for intervals and comparisons their test predictions are pooled: each player was "
        "heard once, by a model that had not learnt from that player.</li>"
        "<li>Runs that differ in data, test clips, kind of weights or epochs are never compared.</li></ul>"
    )
    return "".join(parts)


def _effects_table(study: Study) -> str:
    parts = []
    for name, item in study.effects.items():
        title = "Main effects and interactions" + (f" (cohort {text(name)})" if len(study.effects) > 1 else "")
        parts.append(f"<h3>{title}</h3>")
        if item.word:
            parts.append(f"<p>{text(item.word)}</p>")
            continue
        rows = [
            [
                row["effect"],
                row["levels"],
                f"{100 * row['share']:.1f} %",
                f"{row['largest']:.2f} points" if row["largest"] == row["largest"] else "–",
                p_value(row["p"]),
                p_value(row["p_holm"]),
                "yes" if row["p_holm"] <= ALPHA else "no",
                f"{row['clips']:,} / {row['players']}",
            ]
            for _, row in item.table.iterrows()
        ]
        head = [
            "Effect",
            "Levels",
            "Share of variation",
            "Largest difference",
            "p",
            "p (Holm)",
            "Clear",
            "Clips / players",
        ]
        parts.append(rows_table(head, rows))
    return "".join(parts)


def _impact_table(study: Study) -> str:
    impact = augmentation_impact(study)
    lines = "".join(
        f"<li>{text(name)}: mean accuracy {mean:.4f} ({size} runs; {where})</li>"
        for name, mean, size, where in impact.averages
    )
    parts = [f"<h3>Augmentation</h3><ul>{lines}</ul>"]
    if impact.word:
        parts.append(f"<p>{text(impact.word)}</p>")
    if not len(impact.table):
        return "".join(parts)
    rows = [
        [
            row["label"],
            f"{100 * row['difference']:+.2f} points",
            f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}" if row["low"] == row["low"] else "–",
            p_value(row["p"]),
            p_value(row["p_holm"]),
            row["repeats"],
            f"{row['clips']:,} / {row['players']}" if row["clips"] else "–",
        ]
        for _, row in impact.table.head(60).iterrows()
    ]
    head = [
        "With minus without",
        "Difference",
        "95 % interval",
        "p",
        "p (Holm)",
        "Runs on either side",
        "Clips / players",
    ]
    return "".join([*parts, rows_table(head, rows)])
