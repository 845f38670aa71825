"""Whether a run has met the evaluated clips, or their players, before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sousa_bench.errors import UserError
from sousa_bench.evaluation.data import SplitData
from sousa_bench.finished import FinishedRun

CLIP = ["sample_id", "player", "label"]
ROLES = {"train": "was trained on", "val": "chose its best epoch by"}


def met_before(run: FinishedRun, data: SplitData) -> tuple[dict[str, Any], list[str]]:
    """Count what the run has met of the evaluated clips.

    Args:
        run: Its training and validation clips are found by its own config; none is decoded.
        data: The evaluated clips.

    Returns:
        ``clips`` and ``players`` by split, for the result, and a sentence for each that is not zero.
    """
    clips = data.chosen()
    counts: dict[str, Any] = {}
    for split in ROLES:
        try:
            known = SplitData.of(split, run.config["data"]).chosen()
        except UserError as error:
            return {}, [f"whether the run has met these clips before can't be told: {error}"]
        counts[split] = {
            "clips": len(clips.merge(known[CLIP], on=CLIP)),
            "players": int(clips.loc[clips["player"].isin(known["player"]), "player"].nunique()),
        }
    return counts, _sentences(counts, clips)


def _sentences(counts: Mapping[str, Any], clips: pd.DataFrame) -> list[str]:
    made = []
    players = clips["player"].nunique()
    for split, role in ROLES.items():
        found = counts[split]
        if found["clips"]:
            made.append(
                f"the run {role} {found['clips']:,} of these {len(clips):,} clips: the metrics don't show how it does "
                "on new ones"
            )
        elif found["players"]:
            made.append(
                f"the run {role} other clips of {found['players']} of these {players} players: the metrics don't show "
                "how it does on new players"
            )
    return made
