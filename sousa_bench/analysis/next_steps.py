"""What to run next: what was planned, missing folds and cells, more seeds, the best on more data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.commands import KEY_ORDER, SMOKE, Cell, cell_of, merge_cells, sweep_command
from sousa_bench.analysis.factors import counted_rows, no_outcome
from sousa_bench.analysis.holes import holes
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study
from sousa_bench.config.overrides import split
from sousa_bench.results.result import EVALUATED

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
    """Cells of a cohort's crossed levels that have no run at all, with the seeds of the cohort's runs."""
    return [
        Wanted(cell, ",".join(map(str, _seeds(study, rows))), cohort)
        for cohort, rows, cells in holes(study, _own_training(study))
        for cell in cells
    ]


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
