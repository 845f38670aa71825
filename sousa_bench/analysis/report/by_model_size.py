"""The section on models: what each network reaches, by pretraining, family and size."""

from __future__ import annotations

import pandas as pd

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import Column
from sousa_bench.analysis.report.blocks import MAX_LISTED, Block, Heading, Items, Line, Options, Table, Text
from sousa_bench.analysis.study import Study
from sousa_bench.system.text_table import amount, scaled


def by_model_size(study: Study, options: Options) -> list[Block]:
    """A table of the networks, and the best of each pretraining where there are several."""
    sizes = study.model_sizes
    if not len(sizes):
        return []
    text = (
        "A row a network, with the best of its methods. Parameters and multiply-adds are those before any adapter, the "
        "latter for the longest clip of the training. Models differ in more than size and pretraining: that a group "
        "leads doesn't show why."
    )
    groups = [_group(study, rows) for _, rows in sizes.groupby(["cohort", "pretraining"])]
    several = sizes.groupby("cohort")["pretraining"].nunique().max() > 1
    shown_columns = [
        *([col.COHORT] if study.cohorts else []),
        Column("pretraining", "pretraining", text=True),
        Column("model", "model", text=True),
        Column("variant", "size", text=True),
        Column("parameters", "parameters", lambda row: scaled(row["parameters"])),
        Column("multiply_adds", "multiply-adds", lambda row: scaled(row["multiply_adds"])),
        Column("combination", "best combination", text=True),
        Column("test_acc", f"test {study.task.score}"),
        col.interval_column(study.task),
    ]
    return [
        Heading("Models by pretraining and size", short="Models"),
        Text([text]),
        *([Items(groups)] if several else []),
        Table(shown_columns, sizes.head(MAX_LISTED).to_dict("records")),
    ]


def _group(study: Study, rows: pd.DataFrame) -> Line:
    """The best network of one pretraining in one cohort."""
    best = rows.sort_values("test_acc", ascending=False, kind="stable").iloc[0]
    of_cohort = f" (cohort {best['cohort']})" if study.cohorts else ""
    number, models = amount(len(rows), "network"), amount(rows["model"].nunique(), "model")
    return (
        f"{best['pretraining']}{of_cohort}",
        f": {number} of {models}; the best is {best['combination']} ({best['variant']}), "
        f"test {study.task.score} {best['test_acc']:.4f}",
    )
