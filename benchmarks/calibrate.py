"""How often the analysis is wrong, on simulated studies whose truth is known.

    python -m benchmarks.calibrate --worlds 'equal' --studies 50      a look
    python -m benchmarks.calibrate --write docs/calibration.md        the page's tables

Each study goes the whole way: result files, the command line of `sousa_bench.analyze`, and the CSV files that it wrote.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: a process has one core

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.calibration_worlds import LABELS, WORLDS, Study, World, draw, mean_precision
from sousa_bench.analysis.stats.comparisons import METHODS
from sousa_bench.analysis.stats.pairs import ALPHA
from sousa_bench.analyze import main as analyze
from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.results.result import PREDICTIONS_FILE, write_result
from sousa_bench.task import Task
from tests.analysis.synthetic import MODELS, STRATEGIES, fold_result, result

STUDIES = 250
MEMORY = Path("/dev/shm")  # noqa: S108 - folders below have random names
START, END = "<!-- figures -->", "<!-- end of figures -->"
TASK = Task(tuple(f"sound {number}" for number in range(1, len(LABELS) + 1)), several=True, group="player")
"""Of the worlds whose clips may have several labels."""
FIGURES = {
    "methods": "speaks of methods",
    "clear": 'false "clear"',
    "effects": "false effect",
    "augmentation": "false augmentation",
    "pairs": "pairs covered",
    "accuracies": "accuracies covered",
    "leader": "leader covered",
    "validation": "leader by validation covered",
    "length": "leader's interval, points",
    "best": "true best in the set",
    "size": "size of the set",
    "power": "found",
    "models_clear": 'models: false "clear"',
    "models_pairs": "models: pairs covered",
    "models_power": "models: found",
}
"""The figures of a world, each a mean over its studies, and their names in the tables."""


class Stage:
    """A folder of one world's runs, filled anew for each study."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        clips = world.test_clips
        fold_of = np.unique(clips.player, return_inverse=True)[1] % max(world.folds, 1)
        self.places = [np.flatnonzero(fold_of == fold) for fold in range(max(world.folds, 1))]
        self.clips = [clips.cut(place) for place in self.places]
        self.runs: list[tuple[int, int, int, dict[str, Any]]] = []
        for method, fold, seed in itertools.product(
            range(len(world.methods)), range(len(self.clips)), range(world.seeds)
        ):
            model, strategy, augmentation = world.methods[method]
            config = {"model": model, "strategy": strategy, "augmentation": augmentation, "seed": seed + 1}
            made = fold_result(config, fold + 1, world.folds) if world.folds else result(config)
            self.runs.append((method, fold, seed, made))

    def fill(self, study: Study) -> None:
        """Write the study's result files."""
        for method, fold, seed, made in self.runs:
            clips, hit = self.clips[fold], study.hits[method, seed, self.places[fold]]
            validation = float(study.validation[method, fold, seed])
            place = self.folder / made["experiment_id"]
            if study.labels is None:
                made["metrics"] |= {"test_acc": float(hit.mean()), "val_acc": validation}
                predicted = np.where(hit, clips.label, (clips.label + 1) % len(RUDIMENTS))
                content = clips.columns | {"predicted": predicted.astype(np.int64)}
            else:
                labels = study.labels[self.places[fold]]
                for key in ("val_acc", "val_f1_macro", "test_acc", "test_f1_macro"):
                    made["metrics"].pop(key, None)
                made["metrics"] |= {"test_map": mean_precision(hit, labels), "val_map": validation}
                made["task"] = TASK.as_dict()
                content = clips.columns | {"label": [np.flatnonzero(row) for row in labels], "logits": list(hit)}
            write_result(place, made)
            pq.write_table(pa.table(content), place / PREDICTIONS_FILE)

    def analyze(self) -> dict[str, pd.DataFrame]:
        """Run the command and read the tables that it wrote."""
        output = self.folder.parent / "analysis"
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = analyze([str(self.folder), "--no-plots", "--output-dir", str(output)])
        if code:
            raise RuntimeError(f"{self.world.key}: the analysis ended with exit code {code}: {said.getvalue()}")
        return {path.stem: pd.read_csv(path) for path in output.glob("*.csv") if path.stem != "comparison_table"}


def judge(world: World, study: Study, tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """The study's figures: shares, the size of the set, points; NaN where there is nothing to judge."""
    rows, pairs = tables["combinations"], tables["comparisons"]
    named = zip(rows["model"], rows["strategy"], rows["augmentation"], strict=True)
    numbers = np.array([world.methods.index(name) for name in named])
    of = dict(zip(rows["combination"], numbers, strict=True))
    of_methods = bool((pairs["about"] == METHODS).all())
    models = np.round(study.models.mean(axis=(1, 2)), 9)
    truth = world.truth if of_methods else models  # of what the report says that it speaks
    low, high = (rows[end if end in rows else end.replace("acc", "map")] for end in ("acc_low", "acc_high"))
    inside = (low <= truth[numbers]) & (truth[numbers] <= high)
    in_set, leads = rows["best_set"].to_numpy(bool), rows["leader"].isin(["test", "both"])
    return {
        "methods": float(of_methods),
        **_pairs(pairs, of, truth),
        **{f"models_{key}": value for key, value in _pairs(pairs, of, models, "models_").items()},
        "effects": _effects(tables.get("effects"), world, truth),
        "augmentation": _augmentation(tables.get("augmentation"), world, truth),
        "accuracies": float(inside.mean()),
        "leader": float(inside[leads].mean()),
        "validation": float(inside[rows["leader"].isin(["validation", "both"])].mean()),
        "length": 100 * float((high - low)[leads].mean()),
        "best": float(in_set[truth[numbers] == truth.max()].mean()),
        "size": float(in_set.sum()),
    }


def _pairs(pairs: pd.DataFrame, of: dict[str, int], truth: np.ndarray, prefix: str = "") -> dict[str, float]:
    """What the comparisons say against the true accuracies."""
    first, second = truth[pairs["first"].map(of)], truth[pairs["second"].map(of)]
    true = first - second
    clear, right = pairs[f"{prefix}clear"].to_numpy(bool), np.sign(pairs["difference"]) == np.sign(true)
    with_best = (np.maximum(first, second) == truth.max()) & (true != 0)
    return {
        "clear": float((clear & ~right).any()),
        "pairs": float(((pairs[f"{prefix}low"] <= true) & (true <= pairs[f"{prefix}high"])).mean()),
        "power": float((clear & right)[with_best].mean()),
    }


def _effects(table: pd.DataFrame | None, world: World, truth: np.ndarray) -> float:
    """Whether an effect that is not there was called clear; NaN where all are there, or none was tested."""
    if table is None:
        return np.nan
    cells = truth.reshape(world.levels)
    axes = {"model": 0, "strategy": 1, "augmentation": 2}
    there = [_component(cells, [axes[name] for name in effect.split(" × ")]) for effect in table["effect"]]
    none = table[~np.array(there)]
    return float(none["clear"].any()) if len(none) else np.nan


def _component(cells: np.ndarray, axes: Sequence[int]) -> bool:
    """Whether the cells differ by this effect."""
    part = cells.mean(axis=tuple(axis for axis in range(cells.ndim) if axis not in axes), keepdims=True)
    for axis in axes:
        part = part - part.mean(axis=axis, keepdims=True)
    return bool(np.abs(part).max() > 1e-9)


def _augmentation(table: pd.DataFrame | None, world: World, truth: np.ndarray) -> float:
    """Whether augmentation was called clear where it does nothing; NaN where it was not varied."""
    if table is None:
        return np.nan
    gains = truth.reshape(world.levels) @ [1, -1]
    methods = itertools.product(MODELS[: world.levels[0]], STRATEGIES[: world.levels[1]])
    useless = [f"{model} + {strategy}" for (model, strategy), gain in zip(methods, gains.flat, strict=True) if not gain]
    none = table[table["label"].isin(useless)]
    return float((none["p_adjusted"] <= ALPHA).any()) if len(none) else np.nan


def studies(world: World, numbers: Iterable[int], seed: int = 0) -> pd.DataFrame:
    """Simulate the studies ``numbers`` of a world: a row a study, its figures as columns."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as temporary:
        stage = Stage(world, Path(temporary) / "runs")
        rows = []
        for number in numbers:
            study = draw(world, np.random.default_rng([seed, zlib.crc32(world.key.encode()), number]))
            stage.fill(study)
            rows.append(judge(world, study, stage.analyze()))
    return pd.DataFrame(rows, columns=list(FIGURES))


def error(values: pd.Series) -> float:
    """Monte Carlo standard error; for what was never or always seen, as if one more study had been different."""
    values = values.dropna()
    spread = values.std(ddof=1)
    if spread == 0 and values.iloc[0] in (0.0, 1.0):
        return 1 / (len(values) + 1)
    return float(spread / len(values) ** 0.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print a line a world, and write the tables where they are wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("--worlds", default="", metavar="PATTERN", help="only worlds whose name holds this expression")
    parser.add_argument(
        "--studies", type=int, default=STUDIES, help=f"studies of a world; fewer of large ones ({STUDIES})"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--seed", type=int, default=0, help="other studies (0)")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the tables between {START} and {END} of it")
    options = parser.parse_args(arguments)
    worlds = [world for world in WORLDS if re.search(options.worlds, world.key)]
    print(f"{len(worlds)} of {len(WORLDS)} worlds", file=sys.stderr)
    found: dict[World, pd.DataFrame] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for world in worlds:
            started = time.monotonic()
            count = max(options.studies // world.cost, 4)
            parts = [range(start, count, options.jobs) for start in range(options.jobs)]
            found[world] = pd.concat(list(pool.map(studies, [world] * len(parts), parts, [options.seed] * len(parts))))
            line = ", ".join(
                f"{name} {found[world][name].mean():.3f}" for name in FIGURES if found[world][name].notna().any()
            )
            print(f"{world.key}: {line} ({count} studies, {time.monotonic() - started:.0f} s)", flush=True)
            if options.write:
                text = options.write.read_text(encoding="utf-8")
                before, after = text.split(START)[0], text.split(END)[1]
                options.write.write_text(f"{before}{START}\n\n{tables(found)}\n{END}{after}", encoding="utf-8")


def tables(found: dict[World, pd.DataFrame]) -> str:
    """A Markdown table for each group of worlds."""
    parts = []
    for group, worlds in itertools.groupby(found, key=lambda world: world.group):
        mine = list(worlds)
        names = [name for name in FIGURES if any(found[world][name].notna().any() for world in mine)]
        parts += [f"### {group}", "", " | ".join(["| world", "studies", *(FIGURES[name] for name in names)]) + " |"]
        parts.append("| --- " * (len(names) + 2) + "|")
        for world in mine:
            cells = [_cell(found[world][name], name != "methods") for name in names]
            parts.append(" | ".join([f"| {world.name}", str(len(found[world])), *cells]) + " |")
        parts.append("")
    return "\n".join(parts)


def _cell(values: pd.Series, uncertain: bool) -> str:
    if values.isna().all():
        return "–"
    return f"{values.mean():.3f} ± {error(values):.3f}" if uncertain else f"{values.mean():.2f}"


if __name__ == "__main__":
    main()
