"""The facts behind ``python -m sousa_bench.data``: what the splits hold, and what a test on them could find."""

from __future__ import annotations

from collections.abc import Sequence
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
from sousa_bench.data import SPLITS, SousaData
from sousa_bench.data.data_warnings import absent_classes, shared_groups
from sousa_bench.data.values import check_keys
from sousa_bench.errors import ConfigError

SEEDS = (1, 3, 5)
PLANNED_SEEDS = 3


def facts(overrides: Sequence[str], config_folder: Path | None, luck: float, methods: int) -> dict[str, Any]:
    """What the data hold and what a test on them could find; everything in it is JSON.

    Args:
        overrides: Of the data, as in training.
        config_folder: Another folder with a ``data`` group.
        luck: Assumed standard deviation between trainings of one method.
        methods: Number of methods that are compared with one another.

    Raises:
        ConfigError: An override of something else, or a value that can't be.
        DataError: The data can't be had or are malformed.
    """
    data = _data(overrides, config_folder)
    chosen = data.chosen()
    used = {split: chosen[chosen["split"] == split] for split in SPLITS}
    absent = data.absent()
    refused = []
    if absent and data.on_bad_clip == "error":
        named = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        refused.append(f"{len(absent):,} of the clips' files are missing: {named}")
    sizes = [int(size) for size in used["test"]["group"].value_counts()]
    everyone = int(chosen["group"].nunique())
    found: dict[str, Any] = {
        "name": data.name,
        "place": data.source.place,
        "fingerprint": data.fingerprint,
        "fold": data.fold,
        "splits": [_split(split, table) for split, table in used.items()],
        "warnings": [*data.source.warnings, *shared_groups(used, data.task), *absent_classes(used, data.task)],
        "refused": refused,
        "everyone": everyone,
        "power": POWER,
        "assumed": {"luck_points": 100 * luck, "methods": methods, "contrasts": [vars(each) for each in CONTRASTS]},
        "finds": [],
        "needs": [],
        "folds": 0,
        "why_no_test": why_no_interval(len(sizes), data.task),
    }
    if len(sizes) >= MIN_PLAYERS:
        found |= _reached(sizes, everyone, luck, methods)
    return found


def _data(overrides: Sequence[str], config_folder: Path | None) -> SousaData:
    with explained():
        for item in OverridesParser.create().parse_overrides(list(overrides)):
            if item.key_or_group != "data" and not item.key_or_group.startswith("data."):
                raise ConfigError(f"{item.input_line}: this command takes overrides of the data alone")
            if item.is_sweep_override():
                raise ConfigError(f"{item.input_line}: this command takes one value; give it once for each")
        node = OmegaConf.to_container(composed(overrides, config_folder).data, resolve=True)
    assert isinstance(node, dict), "the data group is a mapping"
    values = {str(key): value for key, value in node.items() if key != "_target_"}
    check_keys("data", values, list(SousaData.__dataclass_fields__))
    return SousaData(**values)


def _split(split: str, table: pd.DataFrame) -> dict[str, Any]:
    return {
        "split": split,
        "clips": len(table),
        "players": int(table["group"].nunique()),
        "classes": int(table["label"].nunique()),
        "clips_a_player": _range(table["group"]),
        "clips_a_class": _range(table["label"]),
    }


def _range(values: pd.Series) -> list[int]:
    counts = values.value_counts()
    return [int(counts.min()), int(counts.max())] if len(counts) else [0, 0]


def _reached(sizes: Sequence[int], everyone: int, luck: float, methods: int) -> dict[str, Any]:
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
    return {"finds": finds, "needs": needs, "folds": FOLDS if planned.cross_validated else 0}


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
