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

if TYPE_CHECKING:
    import pandas as pd

ABSENT = "-"
DECLARED = "declared_metrics"
FORMAT = re.compile(r"\+?,?(\.\d\d?)?[feg%]")
LOWER_IS_BETTER = ("loss", "time", "seconds", "memory", "params", "param_efficiency")

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


def is_absent(value: Any) -> bool:
    """Whether a cell holds nothing: None or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


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
    values = table[key].dropna() if key in table else ()
    return str(values.iloc[0]) if len(values) else ""


def measure(key: str, table: pd.DataFrame) -> Column:
    """The column of a metric: as declared, or else by its name."""
    better = "lower" if any(word in key for word in LOWER_IS_BETTER) else "higher"
    return MEASURES.get(key) or declared_metrics(table).get(key) or Column(key, key, ".4g", better)


def lower_is_better(key: str, table: pd.DataFrame) -> bool:
    """Whether a smaller value of a metric is the better one: losses, times, sizes, and what is declared so."""
    return measure(key, table).better == "lower"
