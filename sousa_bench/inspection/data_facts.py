"""The facts behind ``python -m sousa_bench.data``: what the splits hold, and what a test on them could find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from scipy.special import stdtrit

from sousa_bench.analysis.reach import FOLDS, Reach
from sousa_bench.analysis.stats.intervals import MIN_PLAYERS, why_no_interval
from sousa_bench.analysis.stats.sample_size import CONTRASTS, LEVEL, POWER, Contrast, Design
from sousa_bench.config.composing import composed
from sousa_bench.config.config_errors import explained
from sousa_bench.config.overrides import with_quotes
from sousa_bench.data import SPLITS, SousaData
from sousa_bench.data.data_warnings import absent_classes, shared_groups
from sousa_bench.data.values import check_keys
from sousa_bench.errors import ConfigError
from sousa_bench.inspection.next_training import every_fold
from sousa_bench.inspection.sound_facts import refusals, remarks, sound_facts
from sousa_bench.task import Task, counted

SEEDS = (1, 3, 5)
PLANNED_SEEDS = 3
NEUTRAL = {"players": "groups", "players_all": "groups_all", "clips_a_player": "clips_a_group", "player": "group"}
NOT_OF_SEVERAL = "What difference in mAP a test finds depends on the models' rankings, so it is told after a training."


def facts(data: SousaData, clips: pd.DataFrame, luck: float, methods: int) -> dict[str, Any]:
    """What the data hold and what a test on them could find; everything in it is JSON.

    Args:
        data: From `data_of`.
        clips: `data.chosen()`, or those of `listening.heard_clips`, so that something is said of their sound.
        luck: Assumed standard deviation between trainings of one method.
        methods: Number of methods that are compared with one another.

    Raises:
        DataError: The data can't be had or are malformed.
    """
    task, skipped = data.task, data.on_bad_clip == "skip"
    sounds = sound_facts(clips, float(data.max_duration)) if "kind" in clips else None
    good = clips[clips["kind"] == ""] if sounds and skipped else clips
    used = {split: good[good["split"] == split] for split in SPLITS}
    leak = shared_groups(used | {"val": used["val"].head(0)}, task)
    sizes = [int(size) for size in used["test"]["group"].value_counts()]
    everyone = int(good["group"].nunique())
    given = _given_folds(good)
    few = len(sizes) < MIN_PLAYERS <= everyone and data.fold is None
    told = [*data.source.warnings, *shared_groups(used, task), *absent_classes(used, task)]
    found: dict[str, Any] = {
        "name": data.name,
        "place": data.source.place,
        "layout": data.source.layout,
        "understood": data.understood,
        "fingerprint": data.fingerprint,
        "fold": data.fold,
        "given_folds": given,
        "next_folds": given or (FOLDS if few else 0),
        "task": task.as_dict(),
        "splits": [_split(split, table, sounds is not None) for split, table in used.items()],
        "classes": _classes(used, task),
        "windows": data.windows,
        "sounds": sounds,
        "warnings": [each for each in told if each not in leak] + (remarks(sounds, skipped) if sounds else []),
        "refused": [*_absent(data), *leak, *(refusals(sounds, skipped) if sounds else []), *_emptied(used)],
        "everyone": everyone,
        "power": POWER,
        "assumed": {"luck_points": 100 * luck, "methods": methods, "contrasts": [vars(each) for each in CONTRASTS]},
        "finds": [],
        "needs": [],
        "folds": 0,
        "why_no_test": _why_no_test(len(sizes), everyone, given or FOLDS, data),
    }
    if not found["why_no_test"]:
        found |= _reached(sizes, everyone, given, luck, methods)
    return found


def as_json(found: dict[str, Any]) -> Any:
    """The facts with the task's word: what SOUSA's call players, others call groups."""
    return found if found["task"]["group"] == "player" else _renamed(found) | {"task": found["task"]}


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {NEUTRAL.get(key, key): _renamed(item) for key, item in value.items()}
    return [_renamed(item) for item in value] if isinstance(value, list) else value


def _given_folds(clips: pd.DataFrame) -> int:
    """How many folds the data come in, where one of them is the test split; else 0."""
    if "fold" not in clips:
        return 0
    of_split = {split: set(clips.loc[clips["split"] == split, "fold"]) for split in SPLITS}
    apart = of_split["test"].isdisjoint(of_split["train"])
    return len(set(clips["fold"])) if apart and len(of_split["test"]) == 1 else 0


def _why_no_test(tested: int, everyone: int, folds: int, data: SousaData) -> str:
    """Why nothing is foretold of a test, and the way out where there is one; empty where something is."""
    why = why_no_interval(tested, data.task)
    if not why:
        return NOT_OF_SEVERAL if data.task.several else ""
    there = counted(everyone, data.task.group)
    if everyone < MIN_PLAYERS:
        return (
            f"{why}; all splits together hold {there}, so no number of folds gives an interval: more "
            f"{data.task.groups} are needed"
        )
    return why if data.fold is not None else f"{why}; {every_fold(folds)} tests all {there}"


def _absent(data: SousaData) -> list[str]:
    absent = data.absent()
    if not absent or data.on_bad_clip != "error":
        return []
    named = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
    return [f"{len(absent):,} of the clips' files are missing: {named}"]


def _emptied(used: Mapping[str, pd.DataFrame]) -> list[str]:
    """Splits that keep no clip once the bad ones are left out."""
    return [f"no clip of the {split} split can be used" for split, table in used.items() if not len(table)]


def data_of(overrides: Sequence[str], config_folder: Path | None) -> SousaData:
    """The data that a training with these overrides would have.

    Args:
        overrides: Of the data, as in training.
        config_folder: Another folder with a ``data`` group.

    Raises:
        ConfigError: An override of something else, or a value that can't be.
    """
    overrides = with_quotes(overrides)
    with explained():
        for item in OverridesParser.create().parse_overrides(overrides):
            if item.key_or_group != "data" and not item.key_or_group.startswith("data."):
                raise ConfigError(f"{item.input_line}: this command takes overrides of the data alone")
            if item.is_sweep_override():
                raise ConfigError(f"{item.input_line}: this command takes one value; give it once for each")
        node = OmegaConf.to_container(composed(overrides, config_folder).data, resolve=True)
    assert isinstance(node, dict), "the data group is a mapping"
    values = {str(key): value for key, value in node.items() if key != "_target_"}
    check_keys("data", values, list(SousaData.__dataclass_fields__))
    if refit := values.get("refit"):
        raise ConfigError(
            f"data.refit={refit}: this command describes training, validation and test clips, which a refit joins; "
            "leave it out"
        )
    return SousaData(**values)


def _split(split: str, table: pd.DataFrame, heard: bool) -> dict[str, Any]:
    classes = table["label"].explode()
    row = {
        "split": split,
        "clips": len(table),
        "players": int(table["group"].nunique()),
        "classes": int(classes.nunique()),
        "clips_a_player": _range(table["group"]),
        "clips_a_class": _range(classes),
    }
    return row | ({"seconds": round(float(table["seconds"].sum()), 3)} if heard else {})


def _classes(used: Mapping[str, pd.DataFrame], task: Task) -> list[dict[str, Any]]:
    """Clips of each class by split, in the task's order."""
    counts = {split: table["label"].explode().value_counts() for split, table in used.items()}
    number = {name: i for i, name in enumerate(task.classes)}
    return [
        {"class": name, "name": task.display(name)}
        | {split: int(count.get(number[name], 0)) for split, count in counts.items()}
        for name in task.order
    ]


def _range(values: pd.Series) -> list[int]:
    counts = values.value_counts()
    return [int(counts.min()), int(counts.max())] if len(counts) else [0, 0]


def _reached(sizes: Sequence[int], everyone: int, given: int, luck: float, methods: int) -> dict[str, Any]:
    """What is found with some numbers of seeds, and what it takes to find some differences."""
    finds, needs = [], []
    for contrast in CONTRASTS:
        reaches = {seeds: _reach(contrast, sizes, seeds, everyone, luck, methods) for seeds in SEEDS}
        for seeds, reach in reaches.items():
            finds.append(
                {
                    "contrast": contrast.name,
                    "seeds": seeds,
                    "error": reach.components.error(reach.design),
                    "least": reach.components.least(reach.design),
                    "least_all": reach.components.least(reach.design, reach.quantile),
                    "about": "methods" if reach.design.training_dof else "these trained models",
                }
            )
        planned = reaches[PLANNED_SEEDS]
        needs += [{"contrast": contrast.name} | row for row in planned.rows()]
    return {"finds": finds, "needs": needs, "folds": FOLDS if planned.cross_validated and given in (0, FOLDS) else 0}


def _reach(contrast: Contrast, sizes: Sequence[int], seeds: int, everyone: int, luck: float, methods: int) -> Reach:
    design = Design(len(sizes), seeds, methods=methods)
    quantile = all_pairs_quantile(methods, design.players - 1)
    return Reach("", contrast.components(sizes, luck), design, quantile, True, everyone)


def all_pairs_quantile(methods: int, dof: float) -> float:
    """Standard errors that the largest of all pairs' differences must exceed, at most.

    Sidak's bound (1967, Journal of the American Statistical Association 62), some percent above what max-t will find.
    """
    pairs = max(methods * (methods - 1) // 2, 1)
    return float(stdtrit(dof, (1 + LEVEL ** (1 / pairs)) / 2))
