"""What varied: the factors of a sweep, the combinations they make, and which of these may be compared."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.flatten import NUMBERS, SEEDLESS, TOP_FIELDS
from sousa_bench.analysis.stats.folds import FOLD, fold_counts, join_folds
from sousa_bench.config.identity import IRRELEVANT
from sousa_bench.models.published import FROM_NOTHING
from sousa_bench.results.result import CONFIG_KEYS, EFFICIENCY_KEYS, EVALUATED, METRIC_KEYS, NETWORK_KEYS, PRECISION_KEY

BASE_FACTORS = ("model", "strategy", "augmentation")
SETTING_FACTORS = ("data", "max_epochs")
CHECKPOINT = "model.checkpoint"
RATES = ("trainer.learning_rate", "trainer.head_learning_rate")
OF_ONE_START = (
    "model.variant",
    "model.weights",
    CHECKPOINT,
    "init_from",
    "peft.learning_rate",
    "peft.batch_norm",
    *RATES,
)
"""Overrides that suit one model's weights alone; others have defaults of their own."""
NO_COHORT = "–"
BASE_FINGERPRINT = "data.base_fingerprint"
OF_EVALUATIONS = frozenset({"trained_on", "evaluated_split"})  # keys of a config that runs don't have
NOT_FACTORS = frozenset({"seed", FOLD, "experiment_id"})
RECORDED = frozenset({*CONFIG_KEYS, *METRIC_KEYS, *EFFICIENCY_KEYS, *TOP_FIELDS, "seed"})
COHORT_KEYS = {
    "data": "data",
    "max_epochs": "epochs",
    "data.fingerprint": "data fingerprint",
    "data.test_fingerprint": "test clips",
    "weights.kind": "weights",
    "folds": "folds",
    "kind": "kind of result",
}

OWN_TO_BASELINES = ("weights.kind", "max_epochs")
"""What a network from nothing has of its own in the cohort that it is a baseline of."""


def find_factors(
    table: pd.DataFrame, resolved: Sequence[Mapping[str, Any]], config_keys: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Keys that varied between otherwise equal completed runs, apart from model, strategy, augmentation, seed and fold.

    A key that merely follows from another choice (AST's embedding size, published weights' learning rate) is no factor:
    it never differs between two runs of one model, strategy, augmentation, data, number of epochs and kind of weights.
    The kind of weights itself is one. Nor is one that repeats a key of the top
    level (``model.weights`` beside ``weights``). Of keys that vary in step (``peft.r`` and a ``peft.lora_alpha`` of
    twice its value) the first is kept, those named in the results' ``config`` before others. The precision is
    none where each network has one of its own, nor is the path of a checkpoint where one file has several: then files
    are told apart by their hash. Where no run has completed, all count.

    Args:
        table: A row a run.
        resolved: The resolved config of each row.
        config_keys: Columns that come from the results' ``config``.

    Returns:
        Column names, each with the keys that vary in step with it and aren't kept; those columns that came from
        ``resolved`` alone have been added to ``table``.
    """
    base = [key for key in (*BASE_FACTORS, *SETTING_FACTORS) if key in table]
    kinds = [table[EVALUATED].notna()] if EVALUATED in table else []  # evaluations name keys that no run has
    groups = table.groupby([*base, *kinds], dropna=False, sort=False).ngroup()
    weights = [table["weights.kind"]] if "weights.kind" in table else []
    within_weights = table.groupby([groups, *weights], dropna=False, sort=False).ngroup()
    counted = counted_rows(table)
    judged = [row if counts else {} for row, counts in zip(resolved, counted, strict=True)]
    named = list(config_keys)
    columns = {key: table[key] for key in named if key in table and key not in base}
    varied = [key for key in _varied_leaves(judged, groups) if not _repeats_top(key, judged)]
    columns |= {key: pd.Series([row.get(key) for row in resolved], table.index) for key in varied if key not in columns}
    if PRECISION_KEY in columns and _follows_network(columns[PRECISION_KEY][counted], judged):
        del columns[PRECISION_KEY]
    if CHECKPOINT in columns and _names_one_file_twice(columns[CHECKPOINT][counted], table[counted]):
        del columns[CHECKPOINT]
    factors: dict[str, list[str]] = {}
    codes: dict[str, pd.Series] = {}
    for key, column in columns.items():
        if key in NOT_FACTORS or key in base or _names_base(key) or no_outcome(key) or _repeats_top(key, judged):
            continue
        code = pd.Series(pd.factorize(column.map(_plain))[0], table.index)[counted]
        alike = groups if key in ("weights", "model.weights") else within_weights
        if code.groupby(alike[counted]).nunique().max() <= 1 or _is_replicate(key, code, table[counted]):
            continue
        if first := next((other for other, known in codes.items() if _in_step(code, known)), None):
            factors[first].append(key)
            continue
        factors[key] = []
        codes[key] = code
        if key not in table or (key not in named and key.startswith("peft.")):
            table[key] = typed(key, list(column))
    return factors


def _names_one_file_twice(paths: pd.Series, table: pd.DataFrame) -> bool:
    """Whether some file of weights stands under several paths, and the hash of each is known."""
    files = weights_files(table)
    if files is None or files[paths.notna()].isna().any():
        return False
    return bool(paths.groupby(files).nunique().gt(1).any())


def counted_rows(table: pd.DataFrame) -> pd.Series:
    """Which runs say what varied: the completed ones, or all where none has completed."""
    completed: pd.Series = table["status"] == "completed"
    return completed if completed.any() else pd.Series(True, table.index)


def _repeats_top(key: str, resolved: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key is filled in from the top-level key of its last name, as ``weights: ${weights}`` of a model is."""
    _, dot, top = key.rpartition(".")
    rows = [row for row in resolved if key in row]
    return bool(dot and rows) and all(top in row and row[top] == row[key] for row in rows)


def fill_resolved(table: pd.DataFrame, resolved: Sequence[Mapping[str, Any]], config_keys: Iterable[str]) -> None:
    """Take the columns of the results' ``config`` from the resolved configs, in place.

    A ``config`` holds what varied in the sweep that made the run, so a run that another sweep reused lacks what varies
    there. The ``config`` counts where a run has no resolved config (the original schema), or none has the key.
    """
    named = set().union(*resolved)
    for key in config_keys:
        source = next((name for name in (key, f"{key}.name") if name in named), None)
        if key in table and source and key not in RECORDED:
            values = [row.get(source) if row else own for row, own in zip(resolved, table[key], strict=True)]
            table[key] = typed(key, [None if _plain(value) == "" else value for value in values])


def typed(key: str, values: Sequence[Any]) -> pd.Series:
    """A column that any file format can hold: numbers where every value is one, text otherwise.

    An array holds numbers alone, NaN where there is none.
    """
    if isinstance(values, array):
        return pd.Series(np.array(values))
    kinds = set(map(type, values))
    complete = NoneType not in kinds
    kinds.discard(NoneType)
    if kinds == {int} and complete:
        return pd.Series(values, dtype="int64")
    if key in NUMBERS or (kinds <= {int, float} and kinds):
        return pd.Series(values, dtype="float64")
    if kinds == {bool} and complete:
        return pd.Series(values, dtype=bool)
    if kinds <= {str}:
        return pd.Series(values, dtype=object)
    return pd.Series([None if value is None else shown(value) for value in values], dtype=object)


def _varied_leaves(resolved: Sequence[Mapping[str, Any]], groups: pd.Series) -> list[str]:
    """Keys of the resolved configs that differ between runs of one group."""
    first: dict[int, Mapping[str, Any]] = {}
    varied: dict[str, None] = {}
    for group, row in zip(groups, resolved, strict=True):
        reference = first.setdefault(group, row)
        if row is reference or not row or not reference:
            continue
        for key in {key for key, _ in row.items() ^ reference.items()}:
            if key not in varied and row.get(key) != reference.get(key) and not no_outcome(key):
                varied[key] = None
    return sorted(varied)


@lru_cache(maxsize=10_000)
def no_outcome(key: str) -> bool:
    """Whether a config key has no bearing on a run's numbers."""
    return any(key == name or key.startswith(f"{name}.") for name in (*IRRELEVANT, "seed"))


def _names_base(key: str) -> bool:
    return key in ("model.name", "peft.name", "augmentation.name", "data.name", "trainer.max_epochs", "peft", "epochs")


def _plain(value: Any) -> str:
    """A value as text, empty where there is none."""
    return "" if is_absent(value) else str(value)


def _in_step(one: pd.Series, other: pd.Series) -> bool:
    """Whether two codings split the runs alike."""
    pairs = pd.DataFrame({"one": one, "other": other}).drop_duplicates()
    return len(pairs) == one.nunique() == other.nunique()


def _follows_network(precision: pd.Series, resolved: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each network has one precision only, as ``trainer.precision=auto`` makes it."""
    networks = pd.Series([tuple(_plain(row.get(key)) for key in NETWORK_KEYS) for row in resolved if row], dtype=object)
    if len(networks) != len(precision):
        return False
    return bool(precision.map(_plain).groupby(networks.to_numpy()).nunique().max() == 1)


def _is_replicate(key: str, code: pd.Series, table: pd.DataFrame) -> bool:
    """Whether a key is the seed under another name (``model.seed``): any other that goes along with it is a setting."""
    if "seed" not in table or table["seed"].nunique() < 2 or "seed" not in key.rpartition(".")[2]:
        return False
    return _in_step(code, pd.Series(pd.factorize(table["seed"])[0], table.index))


def combination_columns(table: pd.DataFrame, factors: Iterable[str]) -> list[str]:
    """The columns whose values make a combination: the base factors, the found ones, and the settings that vary."""
    done = table[counted_rows(table)]
    alone = from_nothing(done)

    def varies(key: str) -> bool:
        parts = (done[key][~alone], done[key][alone]) if key in OWN_TO_BASELINES else (done[key],)
        return any(column.nunique(dropna=False) > 1 for column in parts)

    return [*BASE_FACTORS, *factors, *(key for key in SETTING_FACTORS if key in table and varies(key))]


def add_combinations(table: pd.DataFrame, factors: Sequence[str]) -> None:
    """Add the columns ``combination`` (a label; runs that differ in seed or fold alone share it) and ``cohort``.

    Where the runs of a label started from several files of weights, each file has a combination of its own.

    Cohorts are lettered in order of size: only runs of one cohort saw the same data, the same test clips (or are folds
    of one cross-validation), the same kind of weights and the same number of epochs, so only these are compared; nor
    does an evaluation of a finished run share one with runs that were trained. An unfinished run that belongs to no
    cohort with a completed one has none: its ``cohort`` is ``NO_COHORT``.

    Two kinds of baselines belong to the one cohort that they fit, if there is one: a network that can only begin at
    random weights (:func:`from_nothing`), whatever the weights and epochs of its data's cohort are, and methods that
    take no steps, whatever its epochs are.
    """
    extra = [key for key in combination_columns(table, factors) if key not in BASE_FACTORS]
    table["combination"] = [
        combination_label(row, extra) for row in table[[*BASE_FACTORS, *extra]].to_dict(orient="records")
    ]
    _tell_files_apart(table)
    identity = _joined(table)
    done = identity[counted_rows(table).to_numpy()].value_counts()
    order = sorted(done.index, key=lambda value: (-int(done[value]), value))
    if not (table["status"] == "completed").any():
        order = order[:1]
    places = {value: _place(value, order) for value in identity.unique()}
    table["cohort"] = identity.map({v: letters(n) if n < len(order) else NO_COHORT for v, n in places.items()})


def _joined(table: pd.DataFrame) -> pd.Series:
    """The identity of each run's cohort in one text; a baseline has that of the cohort that it joins."""
    parts, alone = cohort_identity(table), from_nothing(table).to_numpy()
    stepless = table["strategy"].isin(SEEDLESS).to_numpy()
    identity = pd.Series(_texts(parts), dtype=object)
    others = identity[counted_rows(table).to_numpy() & ~alone & ~stepless].unique()
    for rows, own in ((stepless & ~alone, ("max_epochs",)), (alone, OWN_TO_BASELINES)):
        without_own = parts[rows].assign(**{key: "" for key in own if key in parts})
        for place, value in zip(np.flatnonzero(rows).tolist(), _texts(without_own), strict=True):
            fitting = [other for other in others if _agrees(value, other)]
            if len(fitting) == 1:
                identity.iloc[place] = fitting[0]
    return identity


def _texts(parts: pd.DataFrame) -> list[str]:
    return ["\x1f".join(row) for row in parts.itertuples(index=False, name=None)]


def _tell_files_apart(table: pd.DataFrame) -> None:
    """Add the file's hash to labels whose runs started from several files. Random weights follow from the seed."""
    if (files := weights_files(table)) is None:
        return
    alike = [table[key] for key in ("combination", "weights.kind") if key in table]
    several = files.notna() & (files.groupby(alike, dropna=False).transform("nunique") > 1)
    table.loc[several, "combination"] += ", weights " + files[several].astype(str).str[:8]


def weights_files(table: pd.DataFrame) -> pd.Series | None:
    """The hash of the file of weights that each run started from, none for random ones; None: no run says it."""
    if "weights.sha256" not in table:
        return None
    files: pd.Series = table["weights.sha256"]
    return files.where(table["weights.kind"] != "random") if "weights.kind" in table else files


def from_nothing(table: pd.DataFrame) -> pd.Series:
    """Which runs trained a network that nobody has pretrained, with weights and epochs of its own."""
    if "model" not in table:
        return pd.Series(False, table.index)
    alone: pd.Series = table["model"].isin(FROM_NOTHING)
    return alone & (table["weights.kind"] == "random") if "weights.kind" in table else alone


def beside_others(table: pd.DataFrame) -> pd.Series:
    """Which rows, runs or combinations, are :func:`from_nothing` in a cohort that others are in, too."""
    return _beside_others(table, from_nothing(table))


def _beside_others(table: pd.DataFrame, rows: pd.Series) -> pd.Series:
    """Which of some rows stand in a cohort that others are in, too."""
    return rows & table["cohort"].isin(table["cohort"][~rows])


def cohort_identity(table: pd.DataFrame) -> pd.DataFrame:
    """What makes a cohort, as texts by run: the ``COHORT_KEYS`` that there are."""
    keys = [key for key in COHORT_KEYS if key in table]
    identity = pd.DataFrame({key: table[key].map(_plain).astype(object) for key in keys}, index=table.index)
    if BASE_FINGERPRINT in table and "data.fingerprint" in identity:  # runs that differ in a key which is a factor
        base = table[BASE_FINGERPRINT].map(_plain)
        identity["data.fingerprint"] = base.where(base != "", identity["data.fingerprint"])
    if (counts := fold_counts(table)).any():
        identity["folds"] = [str(count) if count else "none" for count in counts]
    if EVALUATED in table and table[EVALUATED].notna().any():
        identity["kind"] = ["training" if value is None else "evaluation" for value in table[EVALUATED]]
    join_folds(identity, table, counted_rows(table))
    return identity


def _place(identity: str, order: Sequence[str]) -> int:
    """Number of the first identity that agrees in every part that ``identity`` has, or the length of ``order``."""
    if identity in order:
        return list(order).index(identity)
    return next((number for number, other in enumerate(order) if _agrees(identity, other)), len(order))


def _agrees(identity: str, other: str) -> bool:
    """Whether two identities agree in every part that the first one has."""
    return all(mine in ("", theirs) for mine, theirs in zip(identity.split("\x1f"), other.split("\x1f"), strict=True))


def combination_label(row: Mapping[Any, Any], extra: Sequence[str]) -> str:
    """A combination in words: ``ast + lora (with aug), peft.r=8``."""
    parts = [f"{row['model']} + {row['strategy']} ({augmentation_words(row['augmentation'])})"]
    parts += [f"{key}={shown(row[key])}" for key in extra if key not in OF_EVALUATIONS or row[key] is not None]
    return ", ".join(parts)


def augmentation_words(value: Any) -> str:
    """``with aug``, ``no aug``, or ``aug unknown``."""
    known = isinstance(value, (bool, np.bool_))
    return ("with aug" if value else "no aug") if known else "aug unknown"


def shown(value: Any) -> str:
    """A factor's value as people write it: ``8``, ``0.001``, ``none``."""
    if is_absent(value):
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def letters(number: int) -> str:
    """0 → A, 25 → Z, 26 → AA."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(65 + rest) + text
    return text


def cohort_words(table: pd.DataFrame) -> dict[str, str]:
    """What sets each cohort apart from the others, in words; empty where there is one cohort."""
    done = table[counted_rows(table) & (table["cohort"] != NO_COHORT)]
    done = done[~beside_others(done)]
    done = done[~_beside_others(done, done["strategy"].isin(SEEDLESS))]  # whose epochs say nothing
    identity = cohort_identity(table).loc[done.index]
    keys = [key for key in identity if identity[key].nunique() > 1]
    words = {}
    for cohort, rows in identity.groupby(done["cohort"]):
        row = {str(key): str(rows[key].iloc[0]) for key in keys}
        words[str(cohort)] = "; ".join(f"{COHORT_KEYS[key]} {value[:12] or 'none'}" for key, value in row.items())
    return words if len(words) > 1 else {}
