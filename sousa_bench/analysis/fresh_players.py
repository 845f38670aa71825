"""Confirming the leader on players that no run met: another cast of the synthetic drummer, without a new training."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.reach import Reach
from sousa_bench.analysis.study import Study
from sousa_bench.results.result import EVALUATED
from sousa_bench.results.scan import ROOT_NAMES

EVALUATE = "python -m sousa_bench.evaluate"
ANALYZE = "python -m sousa_bench.analyze"
CAST = "data.synthetic.seed"
RIVALS = 3
MOST_PLAYERS = 400
MAX_RUNS = 18


def finalists(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The leader of a cohort's combinations and the first that can't be told from it, else the next."""
    leader, *others = best_first(rows, "test_acc").to_dict("records")
    return [leader, *([row for row in others if row["best_set"]][:RIVALS] or others[:1])]


def has_fresh_casts(study: Study, rows: pd.DataFrame) -> bool:
    """Whether every run of some combinations was tested on synthetic players, of whom there are always others."""
    return all(
        isinstance(study.results.resolved[run].get(CAST), int) and study.results.resolved[run].get("data.fold") is None
        for runs in rows["rows"]
        for run in runs
    )


def evaluations(study: Study, rows: pd.DataFrame, reach: Reach, margin: float) -> tuple[str, ...]:
    """Commands that evaluate a cohort's finalists on a cast of which no run of the study met anyone.

    Args:
        study: The study.
        rows: The cohort's combinations.
        reach: Says how many players it takes.
        margin: Difference that is to be found.

    Returns:
        A command a run, and one that compares what they find; none where each was evaluated on another cast already.
    """
    runs: list[int] = []
    for row in finalists(rows):
        if len(runs) + len(row["rows"]) <= MAX_RUNS or not runs:
            runs += row["rows"]
    evaluated = set(_evaluated_elsewhere(study))
    if all(study.table.at[run, "experiment_id"] in evaluated for run in runs):
        return ()
    seed = 1 + max(cast for each in study.results.resolved if isinstance(cast := each.get(CAST), int))
    wanted = reach.players(margin, reach.quantile) or reach.design.players
    players = min(max(wanted, reach.design.players), MOST_PLAYERS)
    clips = max(round(int(rows["clips"].max()) / reach.design.players), 1) * (players + 2)
    words = [f"{CAST}={seed}", f"data.synthetic.split_players=[1,1,{players}]", f"data.synthetic.clips={clips}"]
    folders = [Path(str(study.table.at[run, "folder"])) for run in runs]
    lines = [shlex.join([*EVALUATE.split(), _shown(folder), *words]) for folder in folders]
    return (*lines, shlex.join([*ANALYZE.split(), _shown(_beside(folders[0]))]))


def _evaluated_elsewhere(study: Study) -> Iterator[str]:
    """Ids of the runs that were evaluated on a cast that no trained run has."""
    if EVALUATED not in study.table:
        return
    own = study.table[EVALUATED].isna()
    trained = {study.results.resolved[row].get(CAST) for row in study.table.index[own]}
    for row in study.table.index[~own]:
        if study.results.resolved[row].get(CAST) not in trained:
            yield str(study.table.at[row, EVALUATED])


def _beside(folder: Path) -> Path:
    """Where a run's evaluations are written."""
    root = next((path for path in folder.resolve().parents if path.name in ROOT_NAMES), None)
    return (root.parent if root else Path.cwd()) / "outputs" / "evaluate"


def _shown(path: Path) -> str:
    """A path as short as it can be given from here; never one that reads as an option."""
    whole = path.resolve()
    near = str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)
    return str(whole) if near.startswith("-") else near
