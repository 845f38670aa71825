"""How a command is spelt that can be pasted: a combination as overrides, several as few sweeps, nothing executed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.combinations import LIMITS
from sousa_bench.analysis.factors import BASE_FACTORS, shown
from sousa_bench.analysis.flatten import FIRST_READ, READS, SEEDLESS
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study
from sousa_bench.config import conf_folder
from sousa_bench.config.overrides import inner_overrides, quoted, split
from sousa_bench.results.manifest import MAX_COMMAND
from sousa_bench.results.scan import ROOT_NAMES
from sousa_bench.system.foreign import ForeignError, check_overrides

TRAIN = "python -m sousa_bench.train"
NO_COMMAND = "# no command: "  # then why
OVERRIDE_NAMES = {"strategy": "peft", "max_epochs": "trainer.max_epochs"}
KEY_ORDER = ("model", "peft", "augmentation", "data", "trainer.max_epochs")
OF_A_SWEEP = frozenset({"sweep", "resume", "force", "on_error", "n_jobs", "search", "lineage", "hydra"})
"""What belongs to one sweep alone, and to none of its runs' outcomes."""
SWEEPER = "hydra.sweeper."
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
        cell = _from_columns(study, fields)
        if not is_absent(fields.get("seed")):
            cell["seed"] = shown(fields["seed"])
        overrides = tuple(f"{key}={value}" for key, value in cell.items())
    overrides = with_defaults_of_then(overrides, fields["strategy"], study.results.resolved[row].get(READS))
    kept = [item for item in overrides if split(item)[0] not in ("sweep", "force", "resume")]
    return _command(kept, _home(fields))


def given_command(text: str) -> str:
    """The command that a sweep was started with, from what its manifest says, built anew from checked parts.

    Options of the command (``--config-dir``) and Hydra's own settings are left out, as in ``retry_command``; those of
    the sweeper stay, which say what is run: combinations, a search's number of trials.
    """
    if len(text) > MAX_COMMAND:
        return f"{NO_COMMAND}the manifest's is longer than {MAX_COMMAND:,} characters"
    try:
        words = shlex.split(text)
    except ValueError:
        return f"{NO_COMMAND}the manifest's can't be read"
    if words[:3] != TRAIN.split():
        return f"{NO_COMMAND}the manifest's is no {TRAIN}"
    start = ["-m"] if "-m" in words[3:] or "--multirun" in words[3:] else []
    return _command(words[3:], start, sweeper=True)


def sweep_command(cell: Cell) -> str:
    """The sweep that runs a cell."""
    order = sorted(cell, key=lambda key: (KEY_ORDER.index(key) if key in KEY_ORDER else 50 + (key == "seed"), key))
    own = [f"{key}={cell[key]}" if cell[key] or not key.startswith("~") else key for key in order]
    return _command(own, ["-m"])


def asked_for(study: Study, row: Mapping[Any, Any] | pd.Series) -> Cell:
    """What a combination's runs were asked for, as overrides without seed and fold, to be changed where others differ.

    Args:
        study: The study.
        row: A row of its combinations; of the runs behind it the first that says its overrides speaks for all.
    """
    for run in row["rows"]:
        if overrides := study.results.overrides[run]:
            overrides = with_defaults_of_then(overrides, row["strategy"], study.results.resolved[run].get(READS))
            words = dict(override.partition("=")[::2] for override in overrides)
            if only_varies(words.get("experiment", "")):
                del words["experiment"]
            return {k: value for k, value in words.items() if k not in ("seed", FOLD) and not of_its_sweep(k)}
    return _from_columns(study, row)


def with_defaults_of_then(overrides: Sequence[str], strategy: Any, reads: str | None) -> tuple[str, ...]:
    """A run's overrides, which say what an earlier version had by default and today's has not.

    A probe read the last layer, which is forced (``++``): Hydra composes a sweep over several ``peft`` with the default
    one first, which lacks the key. ``experiment=baselines`` was without augmentation.

    Args:
        overrides: As the run was asked for.
        strategy: Its ``peft``.
        reads: Its ``peft.reads``; None of a run that was planned before there was that key.
    """
    words = tuple(overrides)
    if "experiment=baselines" in words and not any(split(word)[0] == "augmentation" for word in words):
        words = (*words, f"augmentation={ON_OFF[0]}")
    if strategy not in SEEDLESS or reads not in (None, FIRST_READ):
        return words
    return (*(word for word in words if split(word)[0] != READS), f"++{READS}={FIRST_READ}")


def of_its_sweep(key: str) -> bool:
    """Whether an override's key belongs to one sweep alone, and to none of its runs."""
    return re.split(r"[./]", key.lstrip("+~"), maxsplit=1)[0] in OF_A_SWEEP


@cache
def only_varies(experiment: str) -> bool:
    """Whether an experiment of the package says only what a sweep varies, which its runs' overrides hold."""
    file = conf_folder() / "experiment" / f"{experiment}.yaml"
    if not experiment.isidentifier() or not file.is_file():
        return False
    return set(yaml.safe_load(file.read_text(encoding="utf-8"))) == {"hydra"}


def _from_columns(study: Study, row: Mapping[Any, Any] | pd.Series) -> Cell:
    """Overrides by what the table says, for results that don't hold their own."""
    cell: Cell = {}
    for key in dict.fromkeys((*BASE_FACTORS, "data", "max_epochs", *study.results.factors)):
        if not is_absent(value := row[key]) and key not in LIMITS:
            spelled = ON_OFF[bool(value)] if key == "augmentation" else _spelled(value)
            cell[OVERRIDE_NAMES.get(key, key)] = spelled
    return cell


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


def _command(overrides: Iterable[str], start: Sequence[str] = (), *, sweeper: bool = False) -> str:
    words = [item for item in overrides if _is_plain(item, sweeper)]
    try:
        check_overrides([*words, *start, *(inner for item in words for inner in inner_overrides(item))])
    except ForeignError as error:
        return f"{NO_COMMAND}{' '.join(str(error).split())}"
    return shlex.join([*TRAIN.split(), *start, *words])


def _is_plain(override: str, sweeper: bool = False) -> bool:
    """Whether an override is ``KEY=VALUE`` (or ``~KEY``): no option of the command, no setting of Hydra's own.

    Args:
        override: The word.
        sweeper: Whether settings of Hydra's sweeper count as plain.
    """
    key, sign, _ = override.partition("=")
    if not PLAIN_KEY.fullmatch(key) or not (sign or key.startswith("~")):
        return False
    name = key.lstrip("+~")
    return not name.startswith("hydra.") or (sweeper and name.startswith(SWEEPER))


def _spelled(value: Any) -> str:
    if value == "none":  # how a table says that there was nothing
        return "null"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else shown(value)
