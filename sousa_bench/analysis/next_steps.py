"""What to run next: what was planned, missing folds and cells, more seeds, the best on more data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.commands import KEY_ORDER, SMOKE, Cell, cell_of, merge_cells, sweep_command
from sousa_bench.analysis.factors import BASE_FACTORS, NO_COHORT, cohort_identity, counted_rows, no_outcome, shown
from sousa_bench.analysis.flatten import EVALUATED
from sousa_bench.analysis.folds import FOLD, fold_counts
from sousa_bench.analysis.scan import Planned
from sousa_bench.analysis.study import Study
from sousa_bench.overrides import split

NEXT_DATA = {
    "tiny": "small",
    "mini": "small",
    "synthetic": "small",
    "small": "medium",
    "medium": "full",
    "full": "full",
}
PLACES = ("data.root", "data.cache_dir")
WANTED_SEEDS = 3
MAX_COMMANDS = 20


@dataclass(frozen=True)
class Step:
    """Something to run next.

    Attributes:
        title: What it is for.
        commands: Shell commands.
    """

    title: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Runs to do: one combination.

    Attributes:
        cell: Its overrides.
        seeds: A comma list; empty: the default seed, or what ``cell`` says.
        like: The cohort whose completed runs it is to be comparable with: what they all were given, it is given too.
            None: ``cell`` says everything.
        without: Keys, or groups of keys, of these that don't fit it.
    """

    cell: Cell
    seeds: str = ""
    like: str | None = None
    without: tuple[str, ...] = ()


def next_steps(study: Study, top: int) -> list[Step]:
    """What to run next, most urgent first; empty steps are left out."""
    planned = Step("Finish what the sweep planned and never started", _commands(study, _not_started(study)))
    if study.at_chance:
        title = "No run is above chance: before more runs, make one learn, such as by more epochs or official weights"
        return [step for step in (planned, Step(title, _commands(study, _longer(study)))) if step.commands]
    promoted = _promoted(study, top)
    best = len({tuple(sorted(item.cell.items())) for item in promoted})
    steps = [
        planned,
        Step("Finish the cross-validations", _commands(study, _missing_folds(study))),
        Step("Fill the holes in the matrix", _commands(study, _holes(study))),
        Step("More seeds for what is undecided", _commands(study, _more_seeds(study))),
        Step(f"The best {best if best > 1 else 'one'} on more data, with more epochs", _commands(study, promoted)),
    ]
    return [step for step in steps if step.commands]


def _commands(study: Study, wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """As few sweeps as run exactly these cells, each once."""
    alike: dict[tuple[str, ...], list[Cell]] = {}
    for cell, shared in _once(study, wanted):
        alike.setdefault(shared, []).append(cell)
    lines = [sweep_command(cell, shared) for shared, cells in alike.items() for cell in merge_cells(cells)]
    more = len(lines) - MAX_COMMANDS
    return (*lines[:MAX_COMMANDS], f"# … and {more} more sweeps") if more > 0 else tuple(lines)


def _once(study: Study, wanted: Sequence[Wanted]) -> list[tuple[Cell, tuple[str, ...]]]:
    """Cells with what else they are given; of those that differ in saying where the data lie, the one that says it."""
    found: dict[Any, list[tuple[Cell, tuple[str, ...]]]] = {}
    given = {(item.like, item.without): _shared(study, item) for item in wanted}
    for item in wanted:
        cell = item.cell | ({"seed": item.seeds} if item.seeds else {})
        shared = tuple(one for one in given[item.like, item.without] if split(one)[0] not in cell)
        places = {one for one in shared if split(one)[0] in PLACES}
        same = found.setdefault((tuple(sorted(cell.items())), frozenset(shared) - places), [])
        others = [{one for one in there if split(one)[0] in PLACES} for _, there in same]
        if not any(places <= there for there in others):
            same[:] = [one for one, there in zip(same, others, strict=True) if not there <= places]
            same.append((cell, shared))
    return [one for group in found.values() for one in group]


def _shared(study: Study, wanted: Wanted) -> tuple[str, ...]:
    """Overrides that every completed run like it had, apart from those that make a cell: where the data lie, say."""
    rows = _counted(study, wanted.like)
    lists = [dict.fromkeys(items) for row in rows if (items := study.results.overrides[row])]
    if not lists:
        return ()
    own = {*KEY_ORDER, "seed", FOLD, "sweep", *study.results.factors, "experiment", *SMOKE}
    common = [item for item in lists[0] if item not in SMOKE and all(item in other for other in lists)]
    return tuple(item for item in common if (key := split(item)[0]) not in own and _kept(key, wanted.without))


def _kept(key: str, without: Sequence[str]) -> bool:
    return not _inside(key, without) and (key in PLACES or not no_outcome(key))


def _inside(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _counted(study: Study, cohort: str | None) -> list[int]:
    """Rows of the runs that say what a cohort's were given: those that were trained to be compared, or all."""
    own = study.table[_own_training(study)]
    for rows in (own, study.table):
        rows = rows[counted_rows(rows)]
        if (rows["cohort"] == cohort).any():
            return list(rows.index[rows["cohort"] == cohort])
    return []


def _seeds(study: Study, rows: Sequence[int]) -> list[int]:
    if "seed" not in study.table:
        return []
    column = study.table["seed"].iloc[list(rows)]
    return sorted({int(value) for value in pd.to_numeric(column, errors="coerce").dropna()})


def _not_started(study: Study) -> list[Wanted]:
    """Jobs of a manifest that have no result and that no other run of the same fingerprint stands for."""
    missing = []
    for job in study.results.waiting():
        items = [item for item in job.overrides if ("=" in item or item[:1] == "~") and not item.startswith("hydra.")]
        cell = {key: value for key, _, value in (item.partition("=") for item in items)}
        missing.append(Wanted(cell, cell.pop("seed", "")))
    return missing


def _holes(study: Study) -> list[Wanted]:
    """Cells of the completed runs' crossed levels that have no run at all, for matrices at least half full.

    A cohort is a matrix of its own. Trials of the machinery (``experiment=smoke``) have no part in one.
    """
    table = study.table[_own_training(study)]
    table = table[np.array([not _is_trial(study, row) for row in table.index], dtype=bool)]
    done = table[counted_rows(table)]
    begun = table.drop(done.index)
    unsure = set(begun.index[(cohort_identity(study.table).loc[begun.index] == "").any(axis=1)])
    settings = _settings(study)
    holes: list[Wanted] = []
    for name, part in done.groupby("cohort", sort=False):
        if name == NO_COHORT:
            continue
        asked = {settings[row] for row in part.index}
        mine = [
            row
            for row in begun.index
            if begun.loc[row, "cohort"] == name or (row in unsure and any(_agree(settings[row], one) for one in asked))
        ]
        holes += _cohort_holes(study, str(name), part, begun.loc[mine])
    return holes


def _is_trial(study: Study, row: int) -> bool:
    resolved, words = study.results.resolved[row], study.results.overrides[row] or ()
    if any(key in resolved for key in SMOKE):
        return any(resolved.get(key) is not None for key in SMOKE)
    given = {split(item)[0]: item for item in words if item[:1] != "~" and not item.endswith("=null")}
    return any(item in (*SMOKE, "experiment=smoke") or key in SMOKE for key, item in given.items())


def _cohort_holes(study: Study, cohort: str, done: pd.DataFrame, begun: pd.DataFrame) -> Iterator[Wanted]:
    """Missing cells of the matrix that the completed runs of a cohort span.

    Args:
        study: The study.
        cohort: Its letter.
        done: Its completed runs.
        begun: Runs that have not completed and are, or may be, of this cohort.
    """
    keys = [*BASE_FACTORS, *study.results.factors]
    cells = done[keys].drop_duplicates()
    names = cells.map(shown)
    levels = [list(dict.fromkeys(names[key])) for key in keys]
    known = pd.concat([names, begun[keys].map(shown)]).drop_duplicates()
    there = set(known.itertuples(index=False, name=None))
    there = {cell for cell in there if all(value in level for value, level in zip(cell, levels, strict=True))}
    size = int(np.prod([len(values) for values in levels]))
    if size > 2 * len(there) or size == len(there):
        return
    first = {key: dict(zip(names[key], cells[key], strict=True)) for key in keys}
    seeds = ",".join(str(seed) for seed in _seeds(study, list(done.index)))
    jobs = [*study.results.waiting(), *(job for job in study.results.planned if job.decision == "refused")]
    common = {key: done[key].mode(dropna=False).iloc[0] for key in ("data", "max_epochs")}
    common["rows"] = list(done.index)
    counts = fold_counts(done)
    common["of_folds"] = int(counts.iloc[0]) if counts.nunique() == 1 else 0
    for values in itertools.product(*levels):
        if values in there:
            continue
        row = {key: first[key][value] for key, value in zip(keys, values, strict=True)} | common
        cell = cell_of(study, row)
        if not any(_stands_for(job, cell) for job in jobs):
            yield Wanted(cell, seeds, cohort)


def _settings(study: Study) -> list[tuple[str | None, ...]]:
    """What each run was asked for, if it ended before it could say its cohort: data, epochs, folds, weights."""
    table = study.table
    weights = [None if (named := each.get("weights")) is None else str(named) for each in study.results.resolved]
    columns = (table["data"].map(shown), table["max_epochs"].map(shown), fold_counts(table).map(str), weights)
    return list(zip(*columns, strict=True))


def _agree(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    return all(mine is None or theirs is None or mine == theirs for mine, theirs in zip(one, other, strict=True))


def _stands_for(job: Planned, cell: Cell) -> bool:
    """Whether a job that has no result is a cell's: a key that it doesn't name may have the cell's value.

    One that was refused stands for the cell on any data, unless it was refused for words that the cell doesn't have.
    """
    asked = dict(map(split, job.overrides))
    if job.decision == "refused":
        asked = {key: value for key, value in asked.items() if key.split(".")[0] in ("model", "peft", "weights")}
        return bool(asked) and all(key in cell and _same(value, cell[key]) for key, value in asked.items())
    return all(_same(asked[key], cell[key]) for key in asked.keys() & cell.keys())


def _same(asked: str, values: str) -> bool:
    """Whether a job's value is the cell's, or one of its comma list: as texts, or as numbers (``1e-3`` is 0.001)."""
    wanted = (values, *values.split(","))
    return asked in wanted or (_number(asked) is not None and _number(asked) in map(_number, wanted))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _choice(cell: Cell) -> set[str]:
    return {f"{key}={cell[key]}" for key in ("model", "peft", "augmentation") if key in cell}


def _own_training(study: Study) -> pd.Series:
    """Which rows were trained to be compared: no evaluations of finished runs, no pretraining."""
    own = ["experiment=pretraining" not in (overrides or ()) for overrides in study.results.overrides]
    trained = pd.Series(own, study.table.index, dtype=bool)
    return trained & study.table[EVALUATED].isna() if EVALUATED in study.table else trained


def _trained(study: Study) -> pd.DataFrame:
    """The combinations that were trained to be compared, best first."""
    own = _own_training(study)
    return study.combinations[np.array([own[rows].all() for rows in study.combinations["rows"]], dtype=bool)]


def _missing_folds(study: Study) -> list[Wanted]:
    """Folds, and seeds of a fold, that a cross-validation lacks and no planned job stands for."""
    trained = _trained(study)
    waiting = [set(job.overrides) for job in study.results.waiting()]
    wanted = []
    for _, row in trained[trained["missing"] != ""].iterrows():
        cell = cell_of(study, row)
        seeds = [str(seed) for seed in _seeds(study, row["rows"])] or [""]
        for part in row["missing"].split(", "):
            fold, _, seed = part.partition(" seed ")
            if not any(_choice(cell) | {f"{FOLD}={fold}"} <= overrides for overrides in waiting):
                own = [seed] if seed else seeds
                wanted += [Wanted(cell | {FOLD: fold}, one, row["cohort"]) for one in own]
    return wanted


def _more_seeds(study: Study) -> list[Wanted]:
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
            wanted.append(Wanted(cell_of(study, row), ",".join(fresh), cohort))
    return wanted


def _promoted(study: Study, top: int) -> list[Wanted]:
    """The best combinations on the next larger data with half as many epochs again, three seeds.

    Those from the package's own small weights go on from the published ones, which they demonstrate.
    """
    wanted = []
    for _, row in _trained(study).head(top).iterrows():
        cell = cell_of(study, row)
        epochs = int(float(cell.get("trainer.max_epochs", 10)))
        more = {
            "data": NEXT_DATA.get(cell.get("data", ""), "full"),
            "trainer.max_epochs": str(max(20, -(-epochs * 3 // 2))),
        }
        without = ["data.synthetic", "data.clips"]
        if all(_from_shipped_weights(study.results.resolved[number]) for number in row["rows"]):
            more["weights"] = "official"
            without += ["model.variant", "model.weights", "init_from"]
        kept = {key: value for key, value in cell.items() if not _inside(key, without)}
        wanted.append(Wanted(kept | more, "1,2,3", row["cohort"], tuple(without)))
    return wanted


def _from_shipped_weights(resolved: Mapping[str, Any]) -> bool:
    weights = resolved.get("model.weights", resolved.get("weights"))
    return weights == "embedded" and resolved.get("model.checkpoint") is None


def _longer(study: Study) -> list[Wanted]:
    """The first combination on the same data with three times the epochs, once."""
    trained = _trained(study)
    row = (trained if len(trained) else study.combinations).iloc[0]
    cell = cell_of(study, row)
    if FOLD in cell:
        cell[FOLD] = cell[FOLD].split(",")[0]
    cell["trainer.max_epochs"] = str(max(20, 3 * int(float(cell.get("trainer.max_epochs", 10)))))
    return [Wanted(cell, like=row["cohort"])]
