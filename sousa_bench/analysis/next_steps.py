"""What to run next: what was planned, missing folds and cells, more seeds, the best on more data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sousa_bench.analysis.baselines import lacking_baselines
from sousa_bench.analysis.combinations import own_training, trained
from sousa_bench.analysis.commands import KEY_ORDER, NO_COMMAND, SMOKE, Cell, cell_of, merge_cells, sweep_command
from sousa_bench.analysis.factors import SOLVED, counted_rows, no_outcome
from sousa_bench.analysis.fresh_players import evaluations, finalists, has_fresh_casts
from sousa_bench.analysis.missing_cells import missing_cells, stands_for
from sousa_bench.analysis.reach import FOLDS, Reach, reaches
from sousa_bench.analysis.stats.folds import FOLD, fold_counts
from sousa_bench.analysis.study import Study
from sousa_bench.config.overrides import split
from sousa_bench.data.saved_task import is_sousa

NEXT_DATA = {"tiny": "small", "mini": "small", "synthetic": "small", "small": "medium", "medium": "full"}
PLACES = ("data.root", "data.table", "data.columns", "data.group_pattern", "data.classes", "data.cache_dir")
"""Where the data lie and how their labels are read: of no bearing on a run's numbers, but no run finds them without."""
OF_A_METHOD = ("peft", "augmentation", "init_from", "trainer.learning_rate", "trainer.head_learning_rate")
MORE_SEEDS = "More seeds for what is undecided"
FRESH_PLAYERS = "Confirm on fresh players: the leader and its rivals, without a new training"
OTHER_GROUPS = "Confirm on other {groups}: the leader and its rivals, cross-validated"
WANTED_SEEDS = 3
MOST_SEEDS = 20
MAX_COMMANDS = 20


class Step(NamedTuple):
    """Something to run next.

    Attributes:
        title: What it is for.
        commands: Shell commands.
    """

    title: str
    commands: tuple[str, ...]


class Wanted(NamedTuple):
    """A combination to run.

    Attributes:
        cell: Its overrides.
        like: The cohort whose completed runs it is to be comparable with: what they all were given, it is given too.
            None: ``cell`` says everything.
        without: Keys, or groups of keys, of these that don't fit it.
    """

    cell: Cell
    like: str | None = None
    without: tuple[str, ...] = ()


def next_steps(study: Study, top: int) -> list[Step]:
    """What to run next, most urgent first, of what decides the question the cheapest first; empty ones are left out."""
    unfinished = {"Finish what the sweep planned and never started": _not_started(study)}
    if study.at_chance:
        title = "No run is above chance: before more runs, make one learn, such as by more epochs or official weights"
        return _steps(study, unfinished | {title: _longer(study)})
    promoted = _promoted(study, top)
    best = len({tuple(sorted(item.cell.items())) for item in promoted})
    unfinished |= {
        "Finish the cross-validations": _missing_folds(study),
        "Baselines, which the methods are held against (experiment=baselines)": _baselines(study),
        "Fill in the missing cells of the matrix": _missing_cells(study),
    }
    on = " on more data," if is_sousa(study.task) else ""
    longer = {f"The best {best if best > 1 else 'one'}{on} with more epochs": promoted}
    return [*_steps(study, unfinished), *deciding(study), *_steps(study, longer)]


def _steps(study: Study, wanted: Mapping[str, Sequence[Wanted]]) -> list[Step]:
    return [Step(title, _commands(study, items)) for title, items in wanted.items() if items]


def deciding(study: Study) -> list[Step]:
    """More seeds, other players, folds: in the order of what each costs to decide the first cohort's question."""
    reached = {reach.cohort: reach for reach in reaches(study)}
    own = trained(study.combinations, study.results)
    fresh = {
        cohort
        for cohort, rows in own.groupby("cohort", sort=False)
        if cohort in reached and has_fresh_casts(study, rows)
    }
    casts = [
        line
        for cohort, rows in own[own["cohort"].isin(fresh)].groupby("cohort", sort=False)
        for line in evaluations(study, rows, reached[str(cohort)], study.margin)
    ]
    other = OTHER_GROUPS.format(groups=study.task.groups)
    found = {
        "seeds": _steps(study, {MORE_SEEDS: _more_seeds(study, reached)}),
        "players": [Step(FRESH_PLAYERS, tuple(casts))] if casts else [],
        "folds": _steps(study, {other: _folds(study, {k: v for k, v in reached.items() if k not in fresh})}),
    }
    order = list(found)
    if len(own) and (first := reached.get(str(own["cohort"].iloc[0]))):
        order = first.cheapest_first(study.margin, first.cohort in fresh)
    return [step for name in order for step in found[name]]


def _commands(study: Study, wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """As few sweeps as run exactly these cells, each once."""
    alike: dict[tuple[str, ...], list[Cell]] = {}
    refusals: dict[str, None] = {}
    for cell, shared in _once(study, wanted):
        if (line := sweep_command(cell, shared)).startswith(NO_COMMAND):
            refusals[line] = None
        else:
            alike.setdefault(shared, []).append(cell)
    lines = [sweep_command(cell, shared) for shared, cells in alike.items() for cell in merge_cells(cells)]
    lines += refusals
    more = len(lines) - MAX_COMMANDS
    return (*lines[:MAX_COMMANDS], f"# … and {more} more sweeps") if more > 0 else tuple(lines)


def _once(study: Study, wanted: Sequence[Wanted]) -> list[tuple[Cell, tuple[str, ...]]]:
    """Cells with what else they are given; of those that differ in saying where the data lie, the one that says it."""
    common = {(item.like, item.without): _common(study, item) for item in wanted}
    alike: dict[Any, dict[frozenset[str], tuple[Cell, tuple[str, ...]]]] = {}
    for cell, like, without in wanted:
        shared = tuple(one for one in common[like, without] if split(one)[0] not in cell)
        places = frozenset(one for one in shared if _inside(split(one)[0], PLACES))
        same = alike.setdefault((tuple(sorted(cell.items())), frozenset(shared) - places), {})
        same.setdefault(places, (cell, shared))
    return [one for same in alike.values() for places, one in same.items() if not any(places < more for more in same)]


def _common(study: Study, wanted: Wanted) -> list[str]:
    """Overrides that every completed run like it had, apart from those that make a cell: where the data lie, say."""
    own = study.table[own_training(study.results)]
    rows: Sequence[int] = []
    for table in (own, study.table):
        counted = table[counted_rows(table)]
        rows = rows or list(counted.index[counted["cohort"] == wanted.like])
    first, *others = [dict.fromkeys(items) for row in rows if (items := study.results.overrides[row])] or [{}]
    of_cells = {*KEY_ORDER, "seed", FOLD, "sweep", *study.results.factors, "experiment", *SMOKE}

    def belongs(item: str) -> bool:
        key = split(item)[0]
        if item in SMOKE or key in of_cells or _inside(key, wanted.without):
            return False
        return (_inside(key, PLACES) or not no_outcome(key)) and all(item in other for other in others)

    return [item for item in first if belongs(item)]


def _inside(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _seeds(study: Study, rows: Sequence[int]) -> list[int]:
    if "seed" not in study.table:
        return []
    column = study.table["seed"].iloc[list(rows)]
    return sorted({int(value) for value in pd.to_numeric(column, errors="coerce").dropna()})


def _not_started(study: Study) -> list[Wanted]:
    """Jobs of a manifest that have no result and that no other run of the same fingerprint stands for."""
    return [
        Wanted(
            {
                key: value
                for key, sign, value in (item.partition("=") for item in job.overrides)
                if (sign or key[:1] == "~") and not key.startswith("hydra.")
            }
        )
        for job in study.results.waiting()
    ]


def _missing_cells(study: Study) -> list[Wanted]:
    """Cells of a cohort's crossed levels that have no run at all, with the seeds of the cohort's runs."""
    wanted = []
    for cohort, rows, cells in missing_cells(study, own_training(study.results)):
        seeds = ",".join(map(str, _seeds(study, rows)))
        wanted += [Wanted(cell | ({"seed": seeds} if seeds else {}), cohort) for cell in cells]
    return wanted


def _missing_folds(study: Study) -> list[Wanted]:
    """Folds, and seeds of a fold, that a cross-validation lacks and no planned job stands for."""
    rows = trained(study.combinations, study.results)
    waiting = [set(job.overrides) for job in study.results.waiting()]
    wanted = []
    for row in rows[rows["missing"] != ""].to_dict("records"):
        cell = cell_of(study, row)
        choice = {f"{key}={cell[key]}" for key in ("model", "peft", "augmentation") if key in cell}
        for part in row["missing"].split(", "):
            fold, _, seed = part.partition(" seed ")
            if not any(choice | {f"{FOLD}={fold}"} <= overrides for overrides in waiting):
                seeds = [seed] if seed else [str(seed) for seed in _seeds(study, row["rows"])]
                cells = [{"seed": seed} for seed in seeds] or [{}]
                wanted += [Wanted(cell | {FOLD: fold} | one, row["cohort"]) for one in cells]
    return wanted


def _baselines(study: Study) -> list[Wanted]:
    """What a cohort lacks of the baselines, on its data, with its epochs, folds and seeds."""
    wanted = []
    for row, strategies in lacking_baselines(study):
        cell = {key: value for key, value in cell_of(study, row).items() if not _inside(key, OF_A_METHOD)}
        seeds = ",".join(map(str, _seeds(study, row["rows"])))
        cell |= {"augmentation": "off"} | ({"seed": seeds} if seeds else {})
        wanted += [Wanted(cell | {"peft": name}, row["cohort"], OF_A_METHOD) for name in strategies]
    return wanted


def _more_seeds(study: Study, reached: Mapping[str, Reach]) -> list[Wanted]:
    """Fresh seeds for combinations that can't be told from the best, as many as find a difference of the margin.

    Where that isn't known, or more seeds alone don't do it, until each has ``WANTED_SEEDS`` or two more. None where the
    margin is found as it is.
    """
    wanted = []
    own = trained(study.combinations, study.results)
    for cohort, rows in own[own["best_set"]].groupby("cohort", sort=False):
        reach = reached.get(str(cohort))
        if reach is not None and reach.enough(study.margin):
            continue
        needed = reach.seeds(study.margin, reach.quantile) if reach is not None and reach.known else None
        for row in rows[rows["strategy"] != SOLVED].to_dict("records") if len(rows) > 1 else ():
            have = _seeds(study, row["rows"]) or [42]
            begun = {*have, *_seeds_under_way(study, row)}
            least = needed if needed and needed <= MOST_SEEDS else max(WANTED_SEEDS, len(have) + 2)
            fresh = range(max(begun) + 1, max(begun) + 1 + least - len(begun))
            if fresh:
                wanted.append(Wanted(cell_of(study, row) | {"seed": ",".join(map(str, fresh))}, str(cohort)))
    return wanted


def _seeds_under_way(study: Study, row: Mapping[Any, Any]) -> set[int]:
    """Seeds with which a combination runs, failed, or is planned on the same data."""
    table = study.table[own_training(study.results)]
    alike = (table["combination"] == row["combination"]) & (table["data"] == row["data"])
    same = table[alike & (table["status"] != "completed")]
    planned = [job.overrides for job in study.results.waiting() if stands_for(job, cell_of(study, row))]
    asked = [value for job in planned for key, value in map(split, job) if key == "seed" and value.isdigit()]
    return {*_seeds(study, list(same.index)), *map(int, asked)}


def _folds(study: Study, reached: Mapping[str, Reach]) -> list[Wanted]:
    """Cross-validations of the finalists of cohorts that have none, with a seed that they have."""
    wanted = []
    every = ",".join(f"{number}/{FOLDS}" for number in range(1, FOLDS + 1))
    own = trained(study.combinations, study.results)
    folded = set(study.table.loc[fold_counts(study.table) > 0, "combination"])
    for cohort, rows in own.groupby("cohort", sort=False):
        reach = reached.get(str(cohort))
        if reach is None or reach.design.folds > 1 or (reach.everyone and reach.cross_validated is None):
            continue
        for row in finalists(rows):
            seed = str((_seeds(study, row["rows"]) or [42])[0])
            cell = cell_of(study, row) | {FOLD: every, "seed": seed}
            if row["combination"] not in folded and not any(stands_for(job, cell) for job in study.results.waiting()):
                wanted.append(Wanted(cell, str(cohort), ("data.resplit",)))
    return wanted


def _promoted(study: Study, top: int) -> list[Wanted]:
    """The best combinations on the next larger data with half as many epochs again, three seeds.

    Of other data than SOUSA there are no larger choices: the same again. Those from the package's own small
    weights go on from the published ones, which they demonstrate.
    """
    wanted = []
    rows = trained(study.combinations, study.results)
    for row in rows[rows["strategy"] != SOLVED].head(top).to_dict("records"):
        cell = cell_of(study, row)
        epochs = int(float(cell.get("trainer.max_epochs", 10)))
        more = {
            "trainer.max_epochs": str(max(20, -(-epochs * 3 // 2))),
            "seed": "1,2,3",
        }
        without = []
        if is_sousa(study.task):
            more["data"] = NEXT_DATA.get(cell.get("data", ""), "full")
            without += ["data.synthetic", "data.clips"]
        if all(_from_shipped_weights(study.results.resolved[number]) for number in row["rows"]):
            more["weights"] = "official"
            without += ["model.variant", "model.weights", "init_from"]
        kept = {key: value for key, value in cell.items() if not _inside(key, without)}
        wanted.append(Wanted(kept | more, row["cohort"], tuple(without)))
    return wanted


def _from_shipped_weights(resolved: Mapping[str, Any]) -> bool:
    weights = resolved.get("model.weights", resolved.get("weights"))
    return weights == "embedded" and resolved.get("model.checkpoint") is None


def _longer(study: Study) -> list[Wanted]:
    """The first combination on the same data with three times the epochs, once."""
    rows = trained(study.combinations, study.results)
    row = (rows if len(rows) else study.combinations).iloc[0]
    cell = cell_of(study, row)
    if FOLD in cell:
        cell[FOLD] = cell[FOLD].split(",")[0]
    cell["trainer.max_epochs"] = str(max(20, 3 * int(float(cell.get("trainer.max_epochs", 10)))))
    return [Wanted(cell, row["cohort"])]
