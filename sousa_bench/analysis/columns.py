"""What the columns of the report's tables are called, how they are written, and which end of them is the better one.

Each is declared once, here, or, for a metric of a user's own, in the results themselves (``declared_metrics``). The
printed ranking, the summary and the page read these declarations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sousa_bench.results.merit import lower_by_name

if TYPE_CHECKING:
    import pandas as pd

    from sousa_bench.task import Task

ABSENT = "-"
TESTED_ON = "what it was tested on"
DECLARED = "declared_metrics"
FORMAT = re.compile(r"\+?,?(\.\d\d?)?[feg%]")

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table, or a metric.

    Attributes:
        key: Its name in the results' table.
        label: Heading.
        format: How a value is written: a format specification, or a function of the whole row.
        better: ``higher`` or ``lower``; empty where neither is.
        help: What it is, in a sentence; the page shows it at the heading.
        divide: What a value is divided by before it is written.
        unit: What is written behind it.
        text: Whether it holds text, which is aligned to the left.
    """

    key: str
    label: str
    format: str | Callable[[Row], str] = ".4f"
    better: str = ""
    help: str = ""
    divide: float = 1
    unit: str = ""
    text: bool = False

    def cell(self, row: Row) -> str:
        """The text of its cell in a row."""
        if callable(self.format):
            return self.format(row)
        value = row[self.key]
        if is_absent(value):
            return ABSENT
        return str(value) if self.text else f"{value / self.divide:{self.format}}{self.unit}"


def is_absent(value: Any) -> bool:
    """Whether a cell holds nothing: None or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def between(low: str, high: str, form: str = ".3f", divide: float = 1) -> Callable[[Row], str]:
    """Cells with an interval: ``0.871 to 0.938``."""

    def cell(row: Row) -> str:
        ends = (f"{row[key] / divide:{form}}" for key in (low, high))
        return ABSENT if is_absent(row[low]) else " to ".join(ends)

    return cell


def p_value(value: float) -> str:
    """A p value to four places: ``0.0123``, ``<0.0001``."""
    return ABSENT if is_absent(value) else f"{value:.4f}" if value >= 0.00005 else "<0.0001"


def _spread(deviation: float, count: object) -> str:
    return f"{ABSENT if is_absent(deviation) else f'{deviation:.4f}'} ({count})"


def _folds(row: Row) -> str:
    """Standard deviation over folds, with their number, and that of all folds where some are missing."""
    count = row["folds"] if row["folds"] == row["of_folds"] else f"{row['folds']} of {row['of_folds']}"
    return _spread(row["acc_std"], count) if row["folds"] else ABSENT


def _seeds(row: Row) -> str:
    """Standard deviation over seeds (pooled within folds), with their number, or that of runs where no seed differs."""
    return _spread(row["seed_std"], row["seeds"] if row["folds"] else row["runs"])


def clips_column(task: Task, clips: str = "clips", groups: str = "players", help: str = TESTED_ON) -> Column:
    """The column of what something was tested on: clips and groups, ``1,140/19``, or clips where no groups are known.

    Args:
        task: Says what the groups are called.
        clips: Where the number of clips stands.
        groups: Where that of the groups stands.
        help: As in the column.
    """

    def cell(row: Row) -> str:
        if not row[clips]:
            return ABSENT
        return f"{row[clips]:,}/{row[groups]}" if task.grouped else f"{row[clips]:,}"

    return Column(clips, f"clips/{task.groups}" if task.grouped else "clips", cell, help=help)


def interval_column(task: Task, form: str = ".3f", better: str = "higher") -> Column:
    """The column of the accuracies' intervals."""
    text = f"of the {task.score}, over {task.groups} and, where several trainings tell, training luck"
    return Column("acc_low", "95 % interval", between("acc_low", "acc_high", form), better, text)


def p_column(task: Task) -> Column:
    """The column of the p values of comparisons by themselves."""
    text = f"of this comparison alone, over {task.groups} and trainings"
    return Column("p", "p", lambda row: p_value(row["p"]), help=text)


def in_the_words_of(task: Task, table: pd.DataFrame) -> pd.DataFrame:
    """A copy of a study's table whose columns of numbers of groups, and of what ranks, are called as the task has it.

    Where no groups are known there are no such columns. Where another column has the name already, it is `groups`.
    """
    if task.several:
        doubled = [f"{split}_{task.metric}" for split in ("val", "test")]
        absent = [key for key in ("val_f1_macro", "test_f1_macro") if key in table and table[key].isna().all()]
        table = table.drop(columns=[*doubled, *absent], errors="ignore")
        table = table.rename(columns=lambda key: own_name(key, task))
    columns = [key for key in ("players", "test_players") if key in table]
    if not task.grouped:
        return table.drop(columns=columns)
    taken = set(table.columns).difference(columns)
    names = {key: key.replace("players", task.groups) for key in columns}
    return table.rename(
        columns={key: key.replace("players", "groups") if name in taken else name for key, name in names.items()}
    )


def _best(row: Row) -> str:
    if row["undecided"] or (is_absent(row["p_best"]) and not row["best_set"]):
        return "not tested"
    return "yes" if row["best_set"] else "no"


COMBINATION = Column("combination", "combination", text=True)
COHORT = Column("cohort", "cohort", lambda row: str(row["cohort"]), help="only runs of one cohort are compared")
FOLDS = Column("acc_std", "± folds (n)", _folds, help="standard deviation over folds, and their number")
SEEDS = Column("seed_std", "± seeds (n)", _seeds, help="standard deviation over seeds, and their number")
BEST = Column("best_set", "can be the best", _best, text=True, help="whether the tests can't tell it from the best")
DIFFERENCE = Column("difference", "difference", "+.2f", divide=0.01, unit=" points")
DIFFERENCE_INTERVAL = Column("low", "95 % interval", between("low", "high", "+.2f", 0.01))
SIMULTANEOUS = Column(
    "simultaneous_low",
    "simultaneous interval",
    between("simultaneous_low", "simultaneous_high", "+.2f", 0.01),
    help="95 % for all comparisons of the family together: it leaves out zero where the difference is clear",
)
MCNEMAR = Column("mcnemar_p", "McNemar p, by clip", lambda row: p_value(row["mcnemar_p"]))
P_ADJUSTED = Column(
    "p_adjusted", "p (all)", lambda row: p_value(row["p_adjusted"]), help="corrected for all comparisons (max-t)"
)
P_HOLM = Column("p_holm", "p (Holm)", lambda row: p_value(row["p_holm"]), help="corrected for the number of effects")
CLEAR = Column("clear", "clear", lambda row: "yes" if row["clear"] else "no", help="at the 5 % level, corrected")

MEASURES = {
    column.key: column
    for column in (
        Column("test_acc", "test acc", ".4f", "higher", "share of the test clips that were recognised"),
        Column("test_f1_macro", "macro F1", ".4f", "higher", "F1 on the test clips, averaged over the classes"),
        Column("val_acc", "val acc", ".4f", "higher", "share of the validation clips that were recognised"),
        Column("trainable_params", "trainable", ",.0f", "lower", "number of trainable parameters"),
        Column("training_time_seconds", "minutes", ".1f", "lower", "time of the training", 60, "m"),
        Column("peak_memory_bytes", "GiB", ".2f", "lower", "most memory in use during the training", 2**30),
    )
}


OF_SEVERAL = {
    "test_acc": Column(
        "test_acc", "test mAP", ".4f", "higher", "average precision on the test clips, averaged over the classes"
    ),
    "test_f1_macro": Column(
        "test_map_micro", "micro AP", ".4f", "higher", "average precision of all pairs of a test clip and a class"
    ),
    "val_acc": Column(
        "val_acc", "val mAP", ".4f", "higher", "average precision on the validation clips, averaged over the classes"
    ),
}
"""What stands in place of some of ``MEASURES`` where a clip may have several labels."""


def measures(task: Task) -> Mapping[str, Column]:
    """The columns of the metrics that every run of a task has, by the names that they have for accuracy."""
    return MEASURES | OF_SEVERAL if task.several else MEASURES


def declared_metrics(table: pd.DataFrame) -> dict[str, Column]:
    """The metrics that the results themselves declare (``declared_metrics``): columns ``val_NAME`` and ``test_NAME``.

    A declaration that can't be used (an impossible format, no text) is replaced by the default: its name, four places,
    the higher the better.
    """
    found = {}
    for name in dict.fromkeys(key.split(".")[1] for key in table.columns if key.startswith(f"{DECLARED}.")):
        label = _said(table, name, "label")[:60] or name
        label = label[0].lower() + label[1:] if label[1:2].islower() else label
        form = _said(table, name, "format")
        form = form if FORMAT.fullmatch(form) else ".4f"
        better = "lower" if _said(table, name, "better") == "lower" else "higher"
        for split, clips in (("test", "test"), ("val", "validation")):
            key = f"{split}_{name}"
            if key in table and table[key].dtype.kind in "if":
                found[key] = Column(key, f"{split} {label}", form, better, f"{label} on the {clips} clips")
    return found


def _said(table: pd.DataFrame, name: str, what: str) -> str:
    """What the first result that declares a metric says of it."""
    key = f"{DECLARED}.{name}.{what}"
    values = list(table[key].dropna()) if key in table else []
    return str(values[0]) if values else ""


def measure(key: str, table: pd.DataFrame | None = None) -> Column:
    """The column of a metric: as declared, here or in the results that a table holds, or else by its name."""
    better = "lower" if lower_by_name(key) else "higher"
    declared = {} if table is None else declared_metrics(table)
    return MEASURES.get(key) or declared.get(key) or Column(key, key, ".4g", better)


SCORES = re.compile(r"((val|test|pooled)_acc|acc_(low|high|error|std)|test_acc_(low|high|error))")
"""The columns of a study that hold what ranks, by the names that they have where that is accuracy."""


def own_name(key: str, task: Task) -> str:
    """What a study's column is called for others: with several labels a clip what ranks is ``map`` and not ``acc``."""
    return key.replace("acc", task.metric) if SCORES.fullmatch(key) else key


def lower_is_better(key: str, table: pd.DataFrame | None = None) -> bool:
    """Whether a smaller value of a metric is the better one: losses, times, sizes, and what is declared so."""
    return measure(key, table).better == "lower"
