"""The summary's tests and statistics as Markdown: pairs, effects, groups, augmentation, folds, seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import augmentation_words, shown
from sousa_bench.analysis.report.console import escape, p_value
from sousa_bench.analysis.stats.augmentation_effect import Impact, tested_on
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.stats.effects import Effects
from sousa_bench.analysis.stats.pairs import ALPHA
from sousa_bench.analysis.study import Study

MAX_LISTED = 50


def named(study: Study, row: Mapping[str, Any] | pd.Series) -> str:
    """A combination in bold, with the factors beyond model, strategy and augmentation."""
    extra = [key for key in study.factors if key not in ("model", "strategy", "augmentation")]
    name = f"**{escape(row['model'])} + {escape(row['strategy'])}** ({augmentation_words(row['augmentation'])})"
    name += "".join(f", {escape(key)}={escape(shown(row[key]))}" for key in extra)
    return name


def best_pairs(study: Study, top: int) -> str:
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
            f"### {named(study, leader)} against the next" + (f" (cohort {cohort})" if study.cohorts else ""),
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


def effects(name: str, item: Effects) -> str:
    """A cohort's main effects and interactions."""
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


def groupings(study: Study) -> Iterable[tuple[str, list[str]]]:
    """Titles and columns by which runs are taken together."""
    yield "model", ["model"]
    yield "strategy", ["strategy"]
    yield "pair of model and strategy", ["model", "strategy"]
    for key in study.results.factors:
        yield escape(key), [key]


def statistics(study: Study, title: str, keys: list[str]) -> str:
    """Mean, deviation and best accuracy of the runs by ``keys``."""
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


def impact(found: Impact) -> str:
    """What augmentation changed, in pairs that differ in it alone."""
    lines = ["## Augmentation impact", ""]
    lines += [
        f"- **{escape(name)}**: Avg Acc={mean:.4f} ({size} runs); {where}" for name, mean, size, where in found.averages
    ]
    if found.word:
        lines += ["", escape(found.word)]
    if not len(found.table):
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
    for _, row in found.table.iterrows():
        interval = f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}" if row["low"] == row["low"] else "–"
        p_values = f"{p_value(row['p'])} | {p_value(row['p_holm'])}"
        lines.append(
            f"| {escape(row['label'])} | {100 * row['difference']:+.2f} points | {interval} | {p_values} | "
            f"{row['repeats']} | {row['clips'] or '–'} | {row['players'] or '–'} |"
        )
    return "\n".join(lines)


def folds(study: Study) -> str:
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


def seeds(study: Study) -> str:
    """The spread over seeds beside the standard error over players."""
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
