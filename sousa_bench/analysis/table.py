"""From folders of result files to one table: the newest of each run, its factors, and what was passed over."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.analysis.factors import BASE_FACTORS, add_combinations, fill_resolved, find_factors, shown, typed
from sousa_bench.analysis.flatten import BOOLEANS
from sousa_bench.analysis.read import Columns, Values, read_files
from sousa_bench.analysis.stats.folds import FOLD, fill_folds
from sousa_bench.data.saved_task import saved_task
from sousa_bench.errors import UserError
from sousa_bench.results.result import CONFIG_KEYS, EFFICIENCY_KEYS, EVALUATED, METRIC_KEYS
from sousa_bench.results.scan import NothingYetError, Planned, scan
from sousa_bench.system.files import is_there
from sousa_bench.system.foreign import clean
from sousa_bench.system.text_table import amount
from sousa_bench.task import Task

FIXED_COLUMNS = (
    "experiment_id",
    *(key for key in CONFIG_KEYS if key != "seed"),
    "status",
    "timestamp",
    *METRIC_KEYS,
    *EFFICIENCY_KEYS,
    "error",
)
SHORT_NAMES = {"strategy": ("peft", "peft.name"), "max_epochs": ("trainer.max_epochs", "epochs")}

MAX_IN_STEP = 6  # keys that are named

Filter = tuple[str, Sequence[str]]


@dataclass
class Results:
    """Everything that a folder of runs says.

    Attributes:
        table: A row a run, ``FIXED_COLUMNS`` first; ``combination`` and ``cohort`` are derived.
        factors: Columns that varied beside model, strategy, augmentation and seed.
        in_step: The keys that vary in step with each of these, which nothing can tell from it.
        resolved: The resolved config of each row.
        overrides: The Hydra overrides of each row.
        tasks: What the run of each row was asked.
        planned: Jobs of the manifests.
        problems: One line for each file that was passed over.
        repeats: One line for each run that a newer one of the same fingerprint replaced.
        config_keys: Columns that come from the results' ``config``.
        fingerprints: Those of all runs, the ones that the filters dropped among them.
        unwanted: Results of the planned jobs that the filters would drop.
        unmatched: One line for each value of a filter that no run has.
    """

    table: pd.DataFrame
    factors: list[str] = field(default_factory=list)
    in_step: dict[str, list[str]] = field(default_factory=dict)
    resolved: list[dict[str, Any]] = field(default_factory=list)
    overrides: list[tuple[str, ...]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    config_keys: list[str] = field(default_factory=list)
    fingerprints: frozenset[str] = frozenset()
    unwanted: frozenset[Path] = frozenset()
    unmatched: list[str] = field(default_factory=list)

    def named(self, factor: str) -> str:
        """A factor, or an interaction of some, with the keys that vary in step: ``peft.r (in step: peft.alpha)``."""
        return " × ".join(f"{key}{self._followers(key)}" for key in factor.split(" × "))

    def _followers(self, key: str) -> str:
        found = self.in_step.get(key, [])
        more = f" and {len(found) - MAX_IN_STEP} more" if len(found) > MAX_IN_STEP else ""
        return f" (in step: {', '.join(found[:MAX_IN_STEP])}{more})" if found else ""

    def waiting(self) -> list[Planned]:
        """Planned jobs that the filters want and that have no result, neither theirs nor another of their identity."""
        return [job for job in self._missing() if job.result not in self.unwanted]

    def _missing(self) -> list[Planned]:
        jobs = {
            job.fingerprint or str(job.result): job
            for job in self.planned
            if job.decision not in ("refused", "skipped")
            and job.fingerprint not in self.fingerprints
            and not is_there(job.result)
        }
        return list(jobs.values())

    def over(self) -> bool:
        """Whether nothing more will come: no run goes on, and no living process has one left to start."""
        if (self.table["status"] == "running").any():
            return False
        return not any(job.may_start() for job in self._missing())


def load(
    *folders: str | Path,
    filters: Mapping[str, Any] | None = None,
    results_root: str | Path | None = None,
) -> pd.DataFrame:
    """The table of all runs below ``folders``.

    Args:
        folders: Sweep, date or flat folders; default ``multirun``.
        filters: Config keys and the value (or list of values) that a run must have: ``{"model": ["ast", "beats"]}``.
        results_root: Folder that a manifest's pointers must not leave; default see ``scan.results_roots``.

    Returns:
        A row a run, the newest completed one of each fingerprint.

    Raises:
        NothingYetError: A folder does not exist, holds no result, or none is left after the filters (a ``UserError``).
    """
    wanted = [
        (key, [shown(item) for item in (value if isinstance(value, (list, tuple, set)) else [value])])
        for key, value in (filters or {}).items()
    ]
    root = Path(results_root) if results_root is not None else None
    return collect([Path(folder) for folder in folders or ("multirun",)], wanted, root).table


def collect(
    folders: Sequence[str | Path],
    filters: Sequence[Filter] = (),
    root: Path | None = None,
    skip: Sequence[Path] = (),
) -> Results:
    """As ``load``, with what was passed over, the factors and the manifests' jobs.

    Raises:
        NothingYetError: As ``load``.
    """
    found = scan([Path(folder) for folder in folders], root, skip)
    columns = read_files(found.files)
    problems = [clean(line) for line in (*found.problems, *columns.problems)]
    places = ", ".join(str(folder) for folder in folders)
    pending = sum(not is_there(job.result) for job in found.planned)
    if not columns.size:
        raise NothingYetError(_nothing_found(places, problems, pending))
    tasks = _tasks(columns, problems)
    if not any(tasks):
        raise NothingYetError(_nothing_found(places, problems, pending))
    runs = _Runs(_table(columns.filled()), columns.resolved, columns.overrides, tasks).where([bool(t) for t in tasks])
    keep, repeats = _newest(runs.table)
    runs = runs.where(keep)
    fill_resolved(runs.table, runs.resolved, columns.config_keys)
    fill_folds(runs.table, runs.resolved)
    fingerprints = _fingerprints(runs.table)
    unwanted = frozenset(path for wanted in filters for path in _unwanted(found.planned, runs, wanted))
    unmatched = [line for wanted in filters for line in _unmatched(runs, found.planned, wanted)]
    for wanted in filters:
        runs = _filtered(runs, wanted, columns.config_keys, places)
    table = runs.table.copy()  # in few blocks of memory, since columns are added one by one
    in_step = find_factors(table, runs.resolved, columns.config_keys)
    factors = list(in_step)
    add_combinations(table, factors)
    return Results(
        table=_ordered(table, factors),
        factors=factors,
        in_step=in_step,
        resolved=runs.resolved,
        overrides=runs.overrides,
        tasks=runs.tasks,
        planned=found.planned,
        problems=problems,
        repeats=repeats,
        config_keys=list(columns.config_keys),
        fingerprints=fingerprints,
        unwanted=unwanted,
        unmatched=unmatched,
    )


@dataclass
class _Runs:
    """The table as far as it is made, and the resolved config, the overrides and the task of each of its rows."""

    table: pd.DataFrame
    resolved: list[dict[str, Any]]
    overrides: list[tuple[str, ...]]
    tasks: list[Any]

    def where(self, mask: Sequence[bool] | pd.Series) -> _Runs:
        """The runs where ``mask`` holds."""
        if all(mask):
            return self
        return _Runs(
            self.table[mask].reset_index(drop=True),
            list(itertools.compress(self.resolved, mask)),
            list(itertools.compress(self.overrides, mask)),
            list(itertools.compress(self.tasks, mask)),
        )

    def values(self, key: str) -> pd.Series | None:
        """The values of a config key under any of its names; None where no run has it."""
        key = next((column for column, aliases in SHORT_NAMES.items() if key in aliases), key)
        if key in self.table:
            return self.table[key]
        for name in (key, f"{key}.name"):
            if any(name in row for row in self.resolved):
                return pd.Series([row.get(name) for row in self.resolved], index=self.table.index)
        return None


def _tasks(columns: Columns, problems: list[str]) -> list[Task | None]:
    """The task of each result; None, and a line in ``problems``, where it says none that can be."""
    made: dict[str, Task | None] = {}
    for block, path in zip(columns.tasks, columns.fields["path"], strict=True):
        if block not in made:
            try:
                made[block] = saved_task({"task": json.loads(block)} if block else {}, path)
            except UserError as error:
                made[block] = None
                problems.append(clean(str(error)))
    return [made[block] for block in columns.tasks]


def _table(columns: Mapping[str, Values]) -> pd.DataFrame:
    """The columns with proper types; ``augmentation`` stays as it is, true, false or unknown."""
    return pd.DataFrame(
        {
            key: pd.Series(values, dtype=object) if key == "augmentation" else typed(key, values)
            for key, values in columns.items()
        }
    )


def _newest(table: pd.DataFrame) -> tuple[list[bool], list[str]]:
    """Which rows count: of each fingerprint the newest completed one, or the newest where none completed."""
    if "fingerprint" not in table:
        return [True] * len(table), []
    order = pd.DataFrame(
        {
            "identity": _identities(table),
            "completed": table["status"] == "completed",
            "time": pd.to_datetime(table["timestamp"], errors="coerce", utc=True, format="ISO8601"),
        }
    )
    ordered = order.sort_values(["completed", "time"], kind="stable", na_position="first")
    last = ordered.drop_duplicates("identity", keep="last")
    keep = table.index.isin(last.index)
    winner = dict(zip(last["identity"], last.index, strict=True))
    folders, statuses = [str(item) for item in table["folder"]], [str(item) for item in table["status"]]
    repeats = [
        f"{folders[row]}: {statuses[row]} run of the same fingerprint as {folders[winner[identity]]}, which counts"
        for row, identity in enumerate(order["identity"])
        if not keep[row]
    ]
    return list(keep), repeats


def _fingerprints(table: pd.DataFrame) -> frozenset[str]:
    """Fingerprints of the runs that there are; an evaluation may bear that of the run it evaluates."""
    if "fingerprint" not in table:
        return frozenset()
    trained = table if EVALUATED not in table else table[table[EVALUATED].isna()]
    return frozenset(str(item) for item in trained["fingerprint"].dropna())


def _identities(table: pd.DataFrame) -> list[str]:
    """What tells a run from others: its fingerprint; of an evaluation also which run on which clips."""
    keys = [key for key in ("fingerprint", EVALUATED, "data.test_fingerprint") if key in table]
    rows = zip(*(table[key] for key in keys), strict=True)
    evaluated = table[EVALUATED].notna() if EVALUATED in table else [False] * len(table)
    return [
        str(path) if not isinstance(row[0], str) else "\x1f".join(map(str, row)) if is_evaluation else row[0]
        for row, path, is_evaluation in zip(rows, table["path"], evaluated, strict=True)
    ]


def _filtered(runs: _Runs, wanted: Filter, config_keys: Iterable[str], places: str) -> _Runs:
    """The runs that have one of the wanted values of a key.

    Raises:
        NothingYetError: No run has the key, or none of the values.
    """
    key, values = wanted
    column = runs.values(key)
    if column is None:
        known = ", ".join(sorted({*config_keys, *BASE_FACTORS}))
        raise NothingYetError(f"--filter {key}=…: no run has a config key {key!r}; some that they have: {known}")
    mask = column.map(_norm).isin({_norm(value) for value in values})
    if not mask.any():
        raise NothingYetError(
            f"nothing left: none of {amount(len(column), 'run')} in {places} has {key}={','.join(values)}; "
            f"there is {key}={_levels(column)}"
        )
    return runs.where(mask)


def _levels(column: pd.Series) -> str:
    return ", ".join(sorted({shown(value) for value in column})[:20])


def _unwanted(planned: Sequence[Planned], runs: _Runs, wanted: Filter) -> Iterator[Path]:
    """Results of the planned jobs that a filter drops.

    A job has the value that its overrides name; where they name none, one of those that runs without such an override
    have.
    """
    key, values = wanted
    accepted = {_norm(value) for value in values}
    names = _spellings(key)
    column = runs.values(key)
    own = [] if column is None else zip(column, runs.overrides, strict=True)
    usual = {_norm(value) for value, items in own if items and not names & _chosen(items).keys()}
    for job in planned:
        chosen = _chosen(job.overrides)
        there = {_norm(chosen[name]) for name in names if name in chosen} or usual
        if key == "status" or not there & accepted:
            yield job.result


def _unmatched(runs: _Runs, planned: Sequence[Planned], wanted: Filter) -> list[str]:
    """A line for each wanted value that no run has and no job is to have."""
    key, values = wanted
    column = runs.values(key)
    if column is None:
        return []
    names = _spellings(key)
    there = {_norm(value) for value in column}
    there |= {_norm(value) for job in planned for name, value in _chosen(job.overrides).items() if name in names}
    missing = [value for value in values if _norm(value) not in there]
    return [f"No run has {key}={value}; there is {key}={_levels(column)}." for value in missing]


def _chosen(overrides: Iterable[str]) -> dict[str, str]:
    pairs = (item.lstrip("+").partition("=") for item in overrides)
    return {key: value.strip("'\"") for key, sign, value in pairs if sign}


def _spellings(key: str) -> set[str]:
    """The names of a config key, as column, override and short name."""
    return next(({column, *names} for column, names in SHORT_NAMES.items() if key in (column, *names)), {key})


def _norm(value: Any) -> str:
    """A value as compared: ``True``, ``on`` and ``true`` are one, and so are ``4`` and ``4.0``."""
    if isinstance(value, bool):
        return str(value).lower()
    text = shown(value).strip()
    if text.lower() in BOOLEANS and text not in ("0", "1"):
        return str(BOOLEANS[text.lower()]).lower()
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def _ordered(table: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """Fixed columns first, then what identifies a run, then the rest by name."""
    for key in FIXED_COLUMNS:
        if key not in table:
            table[key] = None
    first = [*FIXED_COLUMNS, "seed", FOLD, *factors, "combination", "cohort"]
    first = [key for key in dict.fromkeys(first) if key in table]
    return table[[*first, *sorted(key for key in table.columns if key not in set(first))]]


def _nothing_found(places: str, problems: Sequence[str], planned: int) -> str:
    message = f"no result file found in {places}"
    if planned:
        message += f": a manifest plans {amount(planned, 'run')} and none has started yet"
    if problems:
        message += f"; {amount(len(problems), 'file')} passed over, the first: {problems[0]}"
    return message + ". Give the folder that holds the runs, such as multirun/2026-02-01."
