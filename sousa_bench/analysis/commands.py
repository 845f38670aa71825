"""What to run next, as commands that can be pasted: retries, missing cells, more seeds, the best on more data."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.factors import BASE_FACTORS, counted_rows, no_outcome, shown
from sousa_bench.analysis.flatten import EVALUATED
from sousa_bench.analysis.folds import FOLD, fold_counts
from sousa_bench.analysis.scan import ROOT_NAMES
from sousa_bench.analysis.study import Study

TRAIN = "python -m sousa_bench.train"
NEXT_DATA = {
    "tiny": "small",
    "mini": "small",
    "synthetic": "small",
    "small": "medium",
    "medium": "full",
    "full": "full",
}
OVERRIDE_NAMES = {"strategy": "peft", "max_epochs": "trainer.max_epochs"}
KEY_ORDER = ("model", "peft", "augmentation", "data", "trainer.max_epochs")
SMOKE = ("trainer.train_batches", "trainer.eval_batches", "trainer=smoke")  # a trial's leftovers
DEFAULT_WEIGHTS = "embedded"
WANTED_SEEDS = 3
MAX_COMMANDS = 20
PLAIN_KEY = re.compile(r"[+~]{0,2}[A-Za-z0-9_][\w./@]*", re.ASCII)
SWEEP_NAME = re.compile(r"[\w,=+@][\w.,=+@-]*(/[\w,=+@][\w.,=+@-]*)*", re.ASCII)

Cell = dict[str, str]


@dataclass(frozen=True)
class Step:
    """Something to run next.

    Attributes:
        title: What it is for.
        commands: Shell commands.
    """

    title: str
    commands: tuple[str, ...]


def next_steps(study: Study, top: int) -> list[Step]:
    """What to run next, most urgent first; empty steps are left out."""
    planned = Step("Finish what the sweep planned and never started", _commands(study, _not_started(study)))
    if study.at_chance:
        title = "No run is above chance: before more runs, make one learn, such as by more epochs or official weights"
        return [step for step in (planned, Step(title, _commands(study, _longer(study)))) if step.commands]
    best = min(top, len(_trained(study)))
    steps = [
        planned,
        Step("Finish the cross-validations", _commands(study, _missing_folds(study))),
        Step("Fill the holes in the matrix", _commands(study, _holes(study))),
        Step("More seeds for what is undecided", _commands(study, _more_seeds(study))),
        Step(
            f"The best {best if best > 1 else 'one'} on more data, with more epochs",
            _commands(study, _promoted(study, top)),
        ),
    ]
    return [step for step in steps if step.commands]


def retry_command(study: Study, row: int) -> str:
    """The command that runs the table's row again in its sweep, built from checked parts, never copied from its file.

    A ``--config-dir`` is left out (``study`` notes it): its configs would say what is executed.
    """
    fields = study.table.iloc[row]
    overrides = study.results.overrides[row]
    if not overrides:
        cell = _cell(study, fields)
        if "seed" in fields and fields["seed"] == fields["seed"]:
            cell["seed"] = shown(fields["seed"])
        overrides = tuple(f"{key}={value}" for key, value in cell.items())
    kept = [item for item in overrides if item.partition("=")[0] not in ("sweep", "force", "resume")]
    return _command(kept, _home(fields))


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
    where = [] if root.name == ROOT_NAMES[0] else [f"hydra.sweep.dir={_quoted(str(root))}"]
    return ["-m", f"sweep={name}", *where]


def _quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back."""
    if re.fullmatch(r"[\w./@+-]+", text, re.ASCII):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _command(overrides: Iterable[str], start: Sequence[str] = ()) -> str:
    return shlex.join([*TRAIN.split(), *start, *(item for item in overrides if _is_safe(item))])


def _is_safe(override: str) -> bool:
    """Whether an override is plain ``KEY=VALUE`` (or ``~KEY``): no option of the command, nothing that is executed."""
    key, sign, _ = override.partition("=")
    if not PLAIN_KEY.fullmatch(key) or not (sign or key.startswith("~")) or "_target_" in override:
        return False
    return not key.lstrip("+~").startswith("hydra.")


def _cell(study: Study, row: Mapping[Any, Any] | pd.Series) -> Cell:
    """A combination's Hydra overrides, settings included."""
    cell: Cell = {}
    for key in dict.fromkeys((*BASE_FACTORS, "data", "max_epochs", *study.results.factors)):
        value = row[key]
        if value is None or value != value or key in SMOKE:
            continue
        name = OVERRIDE_NAMES.get(key, key)
        cell[name] = ("on" if value else "off") if key == "augmentation" else _spelled(value)
    if row.get("of_folds"):
        cell[FOLD] = ",".join(f"{number}/{row['of_folds']}" for number in range(1, row["of_folds"] + 1))
    if "weights" not in cell and "rows" in row:
        named = {study.results.resolved[number].get("weights") for number in row["rows"]}
        if len(named) == 1 and isinstance(weights := named.pop(), str) and weights != DEFAULT_WEIGHTS:
            cell["weights"] = _quoted(weights)
    return cell


def _spelled(value: Any) -> str:
    if value == "none":  # how a table says that there was nothing
        return "null"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else shown(value)


def _shared(study: Study) -> list[str]:
    """Overrides that every completed run had, apart from those that make a cell: where the data lie, which weights."""
    counted = counted_rows(study.table)
    lists = [
        dict.fromkeys(items) for items, counts in zip(study.results.overrides, counted, strict=True) if items and counts
    ]
    if not lists:
        return []
    own = {*KEY_ORDER, "seed", FOLD, "sweep", *study.results.factors, "experiment"}
    common = [item for item in lists[0] if all(item in other for other in lists)]
    return [
        item
        for item in common
        if (key := item.lstrip("+~").split("=")[0]) not in own and _kept(key) and item not in SMOKE and key not in SMOKE
    ]


def _kept(key: str) -> bool:
    return key in ("data.root", "data.cache_dir") or not no_outcome(key)


def _seeds(study: Study, rows: Sequence[int] | None = None) -> list[int]:
    if "seed" not in study.table:
        return []
    column = study.table["seed"][counted_rows(study.table)] if rows is None else study.table["seed"].iloc[list(rows)]
    return sorted({int(value) for value in pd.to_numeric(column, errors="coerce").dropna()})


def _not_started(study: Study) -> list[tuple[Cell, str]]:
    """Jobs of a manifest that have no result and that no other run of the same fingerprint stands for."""
    missing = []
    for job in study.results.waiting():
        items = [item for item in job.overrides if "=" in item and not item.startswith("hydra.")]
        cell = dict(item.split("=", 1) for item in items)
        missing.append((cell, cell.pop("seed", "")))
    return missing


def _holes(study: Study) -> list[tuple[Cell, str]]:
    """Cells of the completed runs' crossed levels that have no run at all, for matrices at least half full."""
    keys = [*BASE_FACTORS, *study.results.factors]
    table = study.table if EVALUATED not in study.table else study.table[study.table[EVALUATED].isna()]
    done = table[counted_rows(table)]
    if not len(done):
        return []
    cells = done[keys].drop_duplicates()
    names = cells.map(shown)
    levels = [list(dict.fromkeys(names[key])) for key in keys]
    there = set(table[keys].drop_duplicates().map(shown).itertuples(index=False, name=None))
    there = {cell for cell in there if all(value in level for value, level in zip(cell, levels, strict=True))}
    wanted = int(np.prod([len(values) for values in levels]))
    if wanted > 2 * len(there) or wanted == len(there):
        return []
    first = {key: dict(zip(names[key], cells[key], strict=True)) for key in keys}
    planned = [set(job.overrides) for job in study.results.planned]
    seeds = ",".join(str(seed) for seed in _seeds(study))
    common = {key: done[key].mode(dropna=False).iloc[0] for key in ("data", "max_epochs")}
    common["rows"] = list(done.index)
    counts = fold_counts(done)
    common["of_folds"] = int(counts.iloc[0]) if counts.nunique() == 1 else 0
    holes = []
    for values in itertools.product(*levels):
        if values in there:
            continue
        row = {key: first[key][value] for key, value in zip(keys, values, strict=True)} | common
        cell = _cell(study, row)
        choice = {f"{key}={cell[key]}" for key in ("model", "peft", "augmentation") if key in cell}
        if not any(choice <= overrides for overrides in planned):
            holes.append((cell, seeds))
    return holes


def _trained(study: Study) -> pd.DataFrame:
    """The combinations that were trained, best first, without evaluations of finished runs and without pretraining."""
    other = pd.Series(
        ["experiment=pretraining" in (overrides or ()) for overrides in study.results.overrides], study.table.index
    )
    if EVALUATED in study.table:
        other |= study.table[EVALUATED].notna()
    wanted = [not other[rows].any() for rows in study.combinations["rows"]]
    return study.combinations[np.array(wanted, dtype=bool)]


def _missing_folds(study: Study) -> list[tuple[Cell, str]]:
    """Folds, and seeds of a fold, that a cross-validation lacks and no planned job stands for."""
    trained = _trained(study)
    waiting = [set(job.overrides) for job in study.results.waiting()]
    wanted = []
    for _, row in trained[trained["missing"] != ""].iterrows():
        cell = _cell(study, row)
        choice = {f"{key}={cell[key]}" for key in ("model", "peft", "augmentation") if key in cell}
        seeds = [str(seed) for seed in _seeds(study, row["rows"])] or [""]
        for part in row["missing"].split(", "):
            fold, _, seed = part.partition(" seed ")
            if not any(choice | {f"{FOLD}={fold}"} <= overrides for overrides in waiting):
                wanted += [(cell | {FOLD: fold}, one) for one in ([seed] if seed else seeds)]
    return wanted


def _more_seeds(study: Study) -> list[tuple[Cell, str]]:
    """Fresh seeds for combinations that can't be told from the best, until each has ``WANTED_SEEDS`` or two more."""
    wanted = []
    trained = _trained(study)
    for cohort in dict.fromkeys(trained["cohort"]):
        rows = trained[(trained["cohort"] == cohort) & trained["best_set"]]
        if len(rows) < 2:
            continue
        for _, row in rows.iterrows():
            have = _seeds(study, row["rows"]) or [42]
            count = max(WANTED_SEEDS - len(have), 2)
            fresh = [str(max(have) + step) for step in range(1, count + 1)]
            wanted.append((_cell(study, row), ",".join(fresh)))
    return wanted


def _promoted(study: Study, top: int) -> list[tuple[Cell, str]]:
    """The best combinations on the next larger data with half as many epochs again, three seeds.

    Those from the package's own small weights go on from the published ones, which they demonstrate.
    """
    wanted = []
    for _, row in _trained(study).head(top).iterrows():
        cell = _cell(study, row)
        epochs = int(float(cell.get("trainer.max_epochs", 10)))
        cell["data"] = NEXT_DATA.get(cell.get("data", ""), "full")
        cell["trainer.max_epochs"] = str(max(20, -(-epochs * 3 // 2)))
        resolved = [study.results.resolved[number] for number in row["rows"]]
        if all(one.get("weights") == "embedded" and one.get("model.checkpoint") is None for one in resolved):
            cell["weights"] = "official"
        wanted.append((cell, "1,2,3"))
    return wanted


def _longer(study: Study) -> list[tuple[Cell, str]]:
    """The first combination on the same data with three times the epochs, once."""
    cell = _cell(study, study.combinations.iloc[0])
    if FOLD in cell:
        cell[FOLD] = cell[FOLD].split(",")[0]
    cell["trainer.max_epochs"] = str(max(20, 3 * int(float(cell.get("trainer.max_epochs", 10)))))
    return [(cell, "")]


def _commands(study: Study, cells: Sequence[tuple[Cell, str]]) -> tuple[str, ...]:
    """As few sweeps as run exactly these cells."""
    if not cells:
        return ()
    rows = [cell | ({"seed": seed} if seed else {}) for cell, seed in cells]
    merged = merge_cells(rows)
    shared = _shared(study)
    lines = []
    for cell in merged:
        order = sorted(cell, key=lambda key: (KEY_ORDER.index(key) if key in KEY_ORDER else 50 + (key == "seed"), key))
        extra = [item for item in shared if item.lstrip("+~").split("=")[0] not in cell]
        lines.append(_command([*(f"{key}={cell[key]}" for key in order), *extra], ["-m"]))
    more = len(lines) - MAX_COMMANDS
    return (*lines[:MAX_COMMANDS], f"# … and {more} more sweeps") if more > 0 else tuple(lines)


def merge_cells(cells: Sequence[Cell]) -> list[Cell]:
    """Join cells that differ in one key into one with a comma list, as long as the product is exactly the cells."""
    merged = list({tuple(sorted(cell.items())): cell for cell in cells}.values())
    keys = list(dict.fromkeys(key for cell in merged for key in cell))
    for key in keys:
        groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
        for cell in merged:
            rest = tuple(sorted((name, value) for name, value in cell.items() if name != key))
            groups.setdefault(rest if key in cell else (*rest, (key, "")), []).append(cell)
        merged = [_joined(group, key) for group in groups.values()]
    return merged


def _joined(group: Sequence[Cell], key: str) -> Cell:
    if len(group) == 1:
        return dict(group[0])
    values = dict.fromkeys(part for cell in group for part in cell[key].split(","))
    return group[0] | {key: ",".join(values)}
