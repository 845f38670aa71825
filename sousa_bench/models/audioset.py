"""AudioSet's 527 classes, in the order of the published heads.

``audioset_labels.csv`` is AudioSet's own list (Gemmeke et al., ICASSP 2017; Google, licence CC BY 4.0,
https://research.google.com/audioset/): index, identifier and display name of each class.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sousa_bench.task import Task

LABELS_FILE = Path(__file__).with_name("audioset_labels.csv")


@cache
def names() -> dict[str, str]:
    """Identifier (``/m/09x0r``) → display name (Speech), in AudioSet's order."""
    with LABELS_FILE.open(encoding="utf-8", newline="") as file:
        return {row["mid"]: row["display_name"] for row in csv.DictReader(file)}


def in_order(count: int) -> tuple[str, ...]:
    """The identifiers of a head in AudioSet's order; empty for a head of another size."""
    return tuple(names()) if count == len(names()) else ()


def listed(labels: Any, count: int) -> tuple[str, ...]:
    """The identifiers of a head whose file lists them, index → identifier; empty where it lists something else."""
    if not isinstance(labels, Mapping):
        return ()
    found = {str(index): label for index, label in labels.items()}
    ordered = tuple(found.get(str(index)) for index in range(count))
    known = names()
    return tuple(str(label) for label in ordered) if len(found) == count and all(x in known for x in ordered) else ()


def task(identifiers: Sequence[str]) -> Task:
    """What such a head answers: any number of classes for each sound."""
    return Task(tuple(identifiers), {identifier: names()[identifier] for identifier in identifiers}, several=True)
