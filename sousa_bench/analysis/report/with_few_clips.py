"""The section on low-data curves: what each method reaches by training clips a class, and which overtakes which."""

from __future__ import annotations

from typing import Any

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import DIFFERENCE, Column
from sousa_bench.analysis.report.blocks import MAX_LISTED, Block, Heading, Line, Options, Table, Text, listed
from sousa_bench.analysis.stats.comparisons import MODELS
from sousa_bench.analysis.stats.low_data import Crossing, LowDataCurve, crossings, low_data_curves_of
from sousa_bench.analysis.study import Study


def with_few_clips(study: Study, options: Options) -> list[Block]:
    """Accuracy by training clips a class, and where curves cross."""
    curves = low_data_curves_of(study)
    if not curves:
        return []
    text = (
        "Each larger number of clips holds the smaller one's, and all were tested on the same clips. Two curves cross "
        "where the paired tests tell that one leads with fewer clips and the other with more; where curves only change "
        "places, the tests can't tell whether they cross."
    )
    shown_columns = [
        Column("line", "method", text=True),
        *([col.COHORT] if study.cohorts else []),
        Column("clips", "clips a class", text=True),
        Column("test_acc", f"test {study.task.score}"),
        col.interval_column(study.task),
    ]
    rows = [row for curve in curves for row in _rows(curve)]
    found = [_words(item) for item in crossings(study, curves)]
    return [
        Heading("With few training clips", short="Few clips"),
        Text([text]),
        listed(found) if found else Text(["No two curves change places at the numbers of clips that were compared."]),
        Table(shown_columns, rows[:MAX_LISTED]),
    ]


def _rows(curve: LowDataCurve) -> list[dict[Any, Any]]:
    return [{**point.row, "line": curve.name, "clips": point.words} for point in curve.points]


def _words(item: Crossing) -> Line:
    names = f"{item.first} and {item.second}"
    before, after = (
        f"by {_points(pair)} at {clips}" for pair, clips in ((item.before, item.few), (item.after, item.many))
    )
    sides = f"the first is ahead {before}, the second {after}"
    if not item.clear:
        return names, (
            f" change places between {item.few} and {item.many} clips a class ({sides}), but the tests can't tell on "
            "both sides which is ahead."
        )
    models = " These trained models only." if item.before["about"] == MODELS else ""
    return names, f" cross between {item.few} and {item.many} clips a class: {sides}, both clear.{models}"


def _points(pair: Any) -> str:
    return DIFFERENCE.cell({"difference": abs(pair["difference"])}).removeprefix("+")
