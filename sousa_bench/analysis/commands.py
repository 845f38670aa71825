"""How a command is spelt that can be pasted: a combination as overrides, several as few sweeps, nothing executed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study
from sousa_bench.config.overrides import quoted
from sousa_bench.results.scan import ROOT_NAMES
from sousa_bench.system.foreign import ForeignError, check_overrides

TRAIN = "python -m sousa_bench.train"
NO_COMMAND = "# no command: "  # then why
OVERRIDE_NAMES = {"strategy": "peft", "max_epochs": "trainer.max_epochs"}
KEY_ORDER = ("model", "peft", "augmentation", "data", "trainer.max_epochs")
SMOKE = ("trainer.train_batches", "trainer.eval_batches", "trainer=smoke")  # a trial's leftovers
DEFAULT_WEIGHTS = "embedded"
ON_OFF = ("off", "on")
BRACKETS = frozenset("[](){}'\"")
PLAIN_KEY = re.compile(r"[+~]{0,2}[A-Za-z0-9_][\w./@]*", re.ASCII)
SWEEP_NAME = re.compile(r"[\w,=+@][\w.,=+@-]*(/[\w,=+@][\w.,=+@-]*)*", re.ASCII)

Cell = dict[str, str]
"""Override key → value, or a comma list of them; of a key that is taken away (``~key``) the empty text."""


def retry_command(study: Study, row: int) -> str:
    """The command that runs the table's row again in its sweep, built from checked parts, never copied from its file.

    A ``--config-dir`` is left out (``study`` notes it): its configs would say what is executed.
    """
    fields = study.table.iloc[row]
    overrides = study.results.overrides[row]
    if not overrides:
        cell = cell_of(study, fields)
        if not is_absent(fields.get("seed")):
            cell["seed"] = shown(fields["seed"])
        overrides = tuple(f"{key}={value}" for key, value in cell.items())
    kept = [item for item in overrides if item.partition("=")[0] not in ("sweep", "force", "resume")]
    return _command(kept, _home(fields))


def sweep_command(cell: Cell, shared: Sequence[str] = ()) -> str:
    """The sweep that runs a cell, with further overrides."""
    order = sorted(cell, key=lambda key: (KEY_ORDER.index(key) if key in KEY_ORDER else 50 + (key == "seed"), key))
    own = [f"{key}={cell[key]}" if cell[key] or not key.startswith("~") else key for key in order]
    return _command([*own, *shared], ["-m"])


def cell_of(study: Study, row: Mapping[Any, Any] | pd.Series) -> Cell:
    """A combination's Hydra overrides, settings included."""
    cell: Cell = {}
    for key in dict.fromkeys((*BASE_FACTORS, "data", "max_epochs", *study.results.factors)):
        value = row[key]
        if is_absent(value) or key in SMOKE:
            continue
        given = _given(study, row, key) if key in study.results.factors else None
        cell[OVERRIDE_NAMES.get(key, key)] = given or (
            ON_OFF[bool(value)] if key == "augmentation" else _spelled(value)
        )
    if row.get("of_folds"):
        cell[FOLD] = ",".join(f"{number}/{row['of_folds']}" for number in range(1, row["of_folds"] + 1))
    if "weights" not in cell and "rows" in row:
        named = {study.results.resolved[number].get("weights") for number in row["rows"]}
        if len(named) == 1 and isinstance(weights := named.pop(), str) and weights != DEFAULT_WEIGHTS:
            cell["weights"] = quoted(weights)
    return cell


def _given(study: Study, row: Mapping[Any, Any] | pd.Series, key: str) -> str | None:
    """A key's value as all runs of a combination were given it, which for a list says more than the table's text."""
    overrides = [study.results.overrides[number] or () for number in row.get("rows", ())]
    values = {dict(item.partition("=")[::2] for item in items).get(key) for items in overrides}
    return values.pop() if len(values) == 1 else None


def merge_cells(cells: Sequence[Cell]) -> list[Cell]:
    """Join cells that differ in one key into one with a comma list, as long as the product is exactly the cells.

    Values with brackets or quotes, whose commas are their own, stay apart.
    """
    merged = list({tuple(sorted(cell.items())): cell for cell in cells}.values())
    for key in dict.fromkeys(key for cell in merged for key in cell):
        groups: dict[Any, list[Cell]] = {}
        for cell in merged:
            rest = tuple(sorted((name, value) for name, value in cell.items() if name != key))
            plain = key in cell and not BRACKETS & set(cell[key])
            groups.setdefault((rest, None if plain else cell.get(key, "")), []).append(cell)
        merged = [first | _joined(key, (first, *others)) if others else first for first, *others in groups.values()]
    return merged


def _joined(key: str, cells: Sequence[Cell]) -> Cell:
    return {key: ",".join(dict.fromkeys(part for cell in cells for part in cell[key].split(",")))}


def _home(fields: pd.Series) -> list[str]:
    """Overrides that lead a run back to its sweep: the name, and the sweeps' folder where it is not ``multirun``.

    The folder is the one in which the file was found; a name that doesn't lead there is not believed.
    """
    name = fields.get("sweep.name")
    if not isinstance(name, str) or not SWEEP_NAME.fullmatch(name) or ".." in name:
        return []
    parts = Path(name).parts
    sweep = Path(fields["path"]).resolve().parents[1]
    if sweep.parts[-len(parts) :] != parts:
        return []
    root = sweep.parents[len(parts) - 1]
    where = [] if root.name == ROOT_NAMES[0] else [f"hydra.sweep.dir={quoted(str(root))}"]
    return ["-m", f"sweep={name}", *where]


def _command(overrides: Iterable[str], start: Sequence[str] = ()) -> str:
    words = [item for item in overrides if _is_plain(item)]
    try:
        check_overrides([*words, *start])
    except ForeignError as error:
        return f"{NO_COMMAND}{' '.join(str(error).split())}"
    return shlex.join([*TRAIN.split(), *start, *words])


def _is_plain(override: str) -> bool:
    """Whether an override is ``KEY=VALUE`` (or ``~KEY``): no option of the command, no setting of Hydra's own."""
    key, sign, _ = override.partition("=")
    if not PLAIN_KEY.fullmatch(key) or not (sign or key.startswith("~")):
        return False
    return not key.lstrip("+~").startswith("hydra.")


def _spelled(value: Any) -> str:
    if value == "none":  # how a table says that there was nothing
        return "null"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else shown(value)
