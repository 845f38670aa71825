"""What the embedded weights are worth: a sweep over both kinds of weights, model by model.

    python -m sousa_bench.train -m model=ast,htsat,beats,efficientat augmentation=off weights=embedded,random \
        sweep=both
    python benchmarks/embedded_random.py multirun/both

Prints each model's mean test accuracy by weights, and the paired difference with its 95 % interval over players. Runs
are paired that differ in their weights alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from sousa_bench.analysis.stats.intervals import difference_interval
from sousa_bench.config.identity import IRRELEVANT
from sousa_bench.errors import UserError
from sousa_bench.results.finished import FinishedRun, finished_runs


def setting(run: FinishedRun) -> tuple[str, str]:
    """Model, and all that two runs share that differ in their weights alone."""
    config = OmegaConf.create(dict(run.config))
    for key in ("weights", "model.weights", "model.checkpoint", *IRRELEVANT):
        OmegaConf.update(config, key, None, force_add=True)
    shared = [OmegaConf.to_container(config), run.result["data"]["fingerprint"]]
    return run.config["model"]["name"], json.dumps(shared, sort_keys=True)


def pairs(runs: list[FinishedRun]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Model, and each test clip's player and whether either run was right."""
    kinds: dict[str, dict[tuple[str, str], FinishedRun]] = {"embedded": {}, "random": {}}
    for run in runs:
        found = kinds.get(run.config["weights"], {})
        if (other := found.setdefault(setting(run), run)) is not run:
            sys.exit(
                f"error: {other.folder} and {run.folder} differ in their {run.config['weights']} weights' file alone"
            )
    for key in sorted(kinds["embedded"].keys() & kinds["random"].keys()):
        clips = {}
        for kind, found in kinds.items():
            frame = pd.read_parquet(found[key].folder / "predictions.parquet").set_index("sample_id")
            clips |= {"player": frame["player"], kind: frame["predicted"] == frame["label"]}
        yield key[0], pd.DataFrame(clips)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/embedded_random.py SWEEP")
    by_model: dict[str, list[pd.DataFrame]] = {}
    try:
        runs = finished_runs([Path(sys.argv[1])])
    except UserError as error:
        sys.exit(f"error: {error}")
    for model, clips in pairs(runs):
        by_model.setdefault(model, []).append(clips)
    if not by_model:
        sys.exit(f"error: {sys.argv[1]}: no two runs differ in their weights alone; sweep over weights=embedded,random")
    print(f"{'model':12} {'pairs':>5} {'embedded':>9} {'random':>7}  difference")
    for model, parts in by_model.items():
        clips = pd.concat(parts)
        right = clips.groupby("player")[["embedded", "random"]].sum()
        sizes = clips.groupby("player").size().to_numpy(float)
        found = difference_interval((right["embedded"] - right["random"]).to_numpy(float), sizes)
        print(
            f"{model:12} {len(parts):5} {clips['embedded'].mean():9.3f} {clips['random'].mean():7.3f}  "
            f"{found.estimate[0]:+.3f} ({found.low[0]:+.3f} to {found.high[0]:+.3f})"
        )


if __name__ == "__main__":
    main()
