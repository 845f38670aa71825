"""What to run next: what was planned, missing folds, more seeds, the best on more data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pandas as pd

from sousa_bench.analysis.baselines import lacking_baselines
from sousa_bench.analysis.combinations import LIMITS, TRIALS, own_training, trained
from sousa_bench.analysis.commands import NO_COMMAND, Cell, asked_for, merge_cells, sweep_command, with_defaults_of_then
from sousa_bench.analysis.factors import OF_ONE_START, RATES, no_outcome
from sousa_bench.analysis.flatten import ALL_CLIPS, PER_CLASS, SEEDLESS
from sousa_bench.analysis.fresh_players import evaluations, finalists, has_fresh_casts
from sousa_bench.analysis.reach import FOLDS, Reach, reaches
from sousa_bench.analysis.stats.folds import FOLD, fold_counts
from sousa_bench.analysis.study import Study
from sousa_bench.config import init_from
from sousa_bench.config.distillation import RUN
from sousa_bench.config.overrides import split
from sousa_bench.data.saved_task import is_sousa
from sousa_bench.models.published import PUBLISHED
from sousa_bench.results.scan import Planned

NEXT_DATA = {"tiny": "small", "mini": "small", "synthetic": "small", "small": "medium", "medium": "full"}
OF_A_METHOD = ("peft", "augmentation", "init_from", "teacher", *RATES)
MORE_SEEDS = "More seeds for what is undecided"
FRESH_PLAYERS = "Confirm on fresh players: the leader and its rivals, without a new training"
OTHER_GROUPS = "Confirm on other {groups}: the leader and its rivals, cross-validated"
ON_MORE_DATA, ON_THE_SAME = " on more data,", ""
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


def next_steps(study: Study, top: int) -> list[Step]:
    """What to run next, most urgent first, of what decides the question the cheapest first; empty ones are left out."""
    unfinished = {"Finish what the sweep planned and never started": _not_started(study)}
    if study.at_chance:
        title = "No run is above chance: before more runs, make one learn, such as by more epochs or official weights"
        return _steps(unfinished | {title: _longer(study)})
    promoted = _promoted(study, top)
    unfinished |= {
        "Finish the cross-validations": _missing_folds(study),
        "Baselines, which the methods are held against (experiment=baselines)": _baselines(study),
    }
    longer = {
        f"The best {len(cells) if len(cells) > 1 else 'one'}{data} with more epochs": cells
        for data, cells in promoted.items()
    }
    return [*_steps(unfinished), *deciding(study), *_steps(longer)]


def _steps(wanted: Mapping[str, Sequence[Cell]]) -> list[Step]:
    return [Step(title, _commands(items)) for title, items in wanted.items() if items]


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
        "seeds": _steps({MORE_SEEDS: _more_seeds(study, reached)}),
        "players": [Step(FRESH_PLAYERS, tuple(casts))] if casts else [],
        "folds": _steps({other: _folds(study, {k: v for k, v in reached.items() if k not in fresh})}),
    }
    order = list(found)
    if len(own) and (first := reached.get(str(own["cohort"].iloc[0]))):
        order = first.cheapest_first(study.margin, first.cohort in fresh)
    return [step for name in order for step in found[name]]


def _commands(wanted: Sequence[Cell]) -> tuple[str, ...]:
    """As few sweeps as run exactly these cells, each once."""
    each = {sweep_command(cell): cell for cell in wanted}
    refusals = [line for line in each if line.startswith(NO_COMMAND)]
    cells = [cell for line, cell in each.items() if not line.startswith(NO_COMMAND)]
    lines = [*map(sweep_command, merge_cells(_once(cells))), *refusals]
    more = len(lines) - MAX_COMMANDS
    return (*lines[:MAX_COMMANDS], f"# … and {more} more sweeps") if more > 0 else tuple(lines)


def _once(cells: Sequence[Cell]) -> list[Cell]:
    """Of cells that differ only in what decides no outcome, such as where the data lie, the one that says most."""
    alike: dict[Any, Cell] = {}
    for cell in cells:
        key = tuple(sorted((key, value) for key, value in cell.items() if not no_outcome(key) or key == "seed"))
        alike[key] = max(alike.get(key, cell), cell, key=len)
    return list(alike.values())


def changed(cell: Cell, changes: Cell, without: Sequence[str] = ()) -> Cell:
    """A cell with other values.

    Args:
        cell: The cell.
        changes: What takes the place of its values, or is added.
        without: Keys, or groups of keys, that go.
    """
    gone = [key for key in cell if key.lstrip("+~") in changes or _inside(key.lstrip("+~"), without)]
    return {key: value for key, value in cell.items() if key not in gone} | changes


def _inside(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _folds_of(row: Mapping[Any, Any]) -> Cell:
    """All folds of a combination that is a cross-validation; nothing of another."""
    return {FOLD: _every_fold(row["of_folds"])} if row["of_folds"] else {}


def _every_fold(count: int) -> str:
    return ",".join(f"{number}/{count}" for number in range(1, count + 1))


def _epochs(row: Mapping[Any, Any] | pd.Series) -> int:
    """Epochs of a combination's runs; 10 where they don't say it."""
    return int(float(row["max_epochs"])) if pd.notna(row["max_epochs"]) else 10


def stands_for(job: Planned, cell: Cell) -> bool:
    """Whether a job that has no result is a cell's: a key that it doesn't name may have the cell's value."""
    asked = dict(map(split, job.overrides))
    return all(_same(asked[key], cell[key]) for key in asked.keys() & cell.keys())


def _same(asked: str, values: str) -> bool:
    """Whether a job's value is the cell's, or one of its comma list: as texts, or as numbers (``1e-3`` is 0.001)."""
    return _number(asked) in {_number(values), *map(_number, values.split(","))}


def _number(text: str) -> float | str:
    """A number where the text is one."""
    with suppress(ValueError):
        return float(text)
    return text


def _seeds(study: Study, rows: Sequence[int]) -> list[int]:
    if "seed" not in study.table:
        return []
    column = study.table["seed"].iloc[list(rows)]
    return sorted({int(value) for value in pd.to_numeric(column, errors="coerce").dropna()})


def _not_started(study: Study) -> list[Cell]:
    """Jobs of a manifest that no living process will start, and that no run of the same fingerprint stands for."""
    jobs = [job for job in study.results.waiting() if job.processes is None or not job.may_start()]
    words = [
        with_defaults_of_then(job.overrides, dict(map(split, job.overrides)).get("peft"), job.reads) for job in jobs
    ]
    return [dict(item.partition("=")[::2] for item in each if not item.startswith("hydra.")) for each in words]


def _missing_folds(study: Study) -> list[Cell]:
    """Folds, and seeds of a fold, that a cross-validation lacks and no planned job stands for."""
    rows = trained(study.combinations, study.results)
    waiting = study.results.waiting()
    wanted = []
    for row in rows[rows["missing"] != ""].to_dict("records"):
        cell = asked_for(study, row)
        for part in row["missing"].split(", "):
            fold, _, seed = part.partition(" seed ")
            seeds = [seed] if seed else [str(seed) for seed in _seeds(study, row["rows"])]
            cells = [changed(cell, {FOLD: fold, "seed": seed}) for seed in seeds] or [changed(cell, {FOLD: fold})]
            wanted += [one for one in cells if not any(stands_for(job, one) for job in waiting)]
    return wanted


def _baselines(study: Study) -> list[Cell]:
    """What a cohort lacks of the baselines, on its data, with its epochs, folds and seeds."""
    wanted = []
    for row, strategies in lacking_baselines(study):
        seeds = ",".join(map(str, _seeds(study, row["rows"])))
        own = {"augmentation": "off", **_folds_of(row)} | ({"seed": seeds} if seeds else {})
        wanted += [changed(asked_for(study, row), own | {"peft": name}, OF_A_METHOD) for name in strategies]
    return wanted


def _more_seeds(study: Study, reached: Mapping[str, Reach]) -> list[Cell]:
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
        for row in rows[~rows["strategy"].isin(SEEDLESS)].to_dict("records") if len(rows) > 1 else ():
            have = _seeds(study, row["rows"]) or [42]
            begun = {*have, *_seeds_under_way(study, row)}
            least = needed if needed and needed <= MOST_SEEDS else max(WANTED_SEEDS, len(have) + 2)
            fresh = range(max(begun) + 1, max(begun) + 1 + least - len(begun))
            if fresh:
                seeds = {"seed": ",".join(map(str, fresh))}
                wanted.append(changed(asked_for(study, row), seeds | _folds_of(row)))
    return wanted


def _seeds_under_way(study: Study, row: Mapping[Any, Any]) -> set[int]:
    """Seeds with which a combination runs, failed, or is planned on the same data."""
    table = study.table[own_training(study.results)]
    alike = (table["combination"] == row["combination"]) & (table["data"] == row["data"])
    same = table[alike & (table["status"] != "completed")]
    planned = [job.overrides for job in study.results.waiting() if stands_for(job, asked_for(study, row))]
    asked = [value for job in planned for key, value in map(split, job) if key == "seed" and value.isdigit()]
    return {*_seeds(study, list(same.index)), *map(int, asked)}


def _folds(study: Study, reached: Mapping[str, Reach]) -> list[Cell]:
    """Cross-validations of the finalists of cohorts that have none, with a seed that they have."""
    wanted = []
    own = trained(study.combinations, study.results)
    folded = set(study.table.loc[fold_counts(study.table) > 0, "combination"])
    for cohort, rows in own.groupby("cohort", sort=False):
        reach = reached.get(str(cohort))
        if reach is None or reach.design.folds > 1 or (reach.everyone and reach.cross_validated is None):
            continue
        for row in finalists(rows):
            before = [study.results.resolved[number].get(key) for number in row["rows"] for key in (RUN, init_from.KEY)]
            if any(before):
                continue  # the teacher, or the run that it goes on from, was trained on clips that would be tested
            seed = str((_seeds(study, row["rows"]) or [42])[0])
            cell = changed(asked_for(study, row), {FOLD: _every_fold(FOLDS), "seed": seed}, ("data.resplit",))
            if row["combination"] not in folded and not any(stands_for(job, cell) for job in study.results.waiting()):
                wanted.append(cell)
    return wanted


def _promoted(study: Study, top: int) -> dict[str, list[Cell]]:
    """The best combinations with half as many epochs again, three seeds: those on more data, those on the same.

    More are in SOUSA's next larger choice, where the runs haven't had all training clips that there are. Those from the
    package's own small weights go on from the published ones, where a program can fetch these, without what was given
    for the small ones.
    """
    wanted: dict[str, list[Cell]] = {ON_MORE_DATA: [], ON_THE_SAME: []}
    rows = trained(study.combinations, study.results)
    for row in rows[~rows["strategy"].isin(SEEDLESS)].head(top).to_dict("records"):
        more = {"trainer.max_epochs": str(max(20, -(-_epochs(row) * 3 // 2))), "seed": "1,2,3", **_folds_of(row)}
        without: list[str] = []
        on = ON_MORE_DATA if is_sousa(study.task) and not _had_all_clips(study, row) else ON_THE_SAME
        if on == ON_MORE_DATA:
            more["data"] = NEXT_DATA.get(str(row["data"]), "full")
            without += ["data.synthetic", "data.clips"]
        shipped = all(_from_shipped_weights(study.results.resolved[number]) for number in row["rows"])
        published = PUBLISHED.get(str(row["model"]))
        if shipped and published and published.fetched:
            more["weights"] = "official"
            without += OF_ONE_START
        wanted[on].append(changed(_no_trial(asked_for(study, row)), more, without))
    return {on: _once(cells) for on, cells in wanted.items()}


def _had_all_clips(study: Study, row: Mapping[Any, Any]) -> bool:
    """Whether a combination's runs drew all training clips that there are: larger choices, or as many of each class.

    A generator makes more.
    """
    numbers = row["rows"]
    data = [study.results.resolved[number] for number in numbers]
    if any(one.get("data.synthetic.clips") for one in data):
        return False
    if all(one.get(PER_CLASS) not in (None, ALL_CLIPS) or one.get("data.clips.train", 1) is None for one in data):
        return True
    counts = study.table.reindex(index=numbers, columns=["data.available.train", "data.found.train"])
    there, drawn = counts.apply(pd.to_numeric, errors="coerce").T.to_numpy()
    return bool((there <= drawn).all())


def _no_trial(cell: Cell) -> Cell:
    """A cell without a trial's limits."""
    return {key: value for key, value in cell.items() if key not in LIMITS and f"{key}={value}" not in TRIALS}


def _from_shipped_weights(resolved: Mapping[str, Any]) -> bool:
    weights = resolved.get("model.weights", resolved.get("weights"))
    return weights == "embedded" and resolved.get("model.checkpoint") is None


def _longer(study: Study) -> list[Cell]:
    """The first combination on the same data with three times the epochs, once."""
    rows = trained(study.combinations, study.results)
    row = (rows if len(rows) else study.combinations).iloc[0]
    own = {"trainer.max_epochs": str(max(20, 3 * _epochs(row)))} | (
        {FOLD: f"1/{row['of_folds']}"} if row["of_folds"] else {}
    )
    return [changed(_no_trial(asked_for(study, row)), own)]
