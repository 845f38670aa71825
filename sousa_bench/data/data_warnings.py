"""What a reader of the results must know about the clips that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pandas as pd

from sousa_bench.data import SPLITS
from sousa_bench.rudiments import RUDIMENTS

_CONSEQUENCE = {
    ("train", "val"): "validation, by which runs and epochs are chosen, doesn't show how the model does on new players",
    ("train", "test"): "the test doesn't show how the model does on new players",
    ("val", "test"): "runs and epochs are chosen by players that are tested",
}


def without_split(available: pd.DataFrame) -> list[str]:
    """Clips that the dataset puts into no split.

    Args:
        available: All clips that could be drawn, with `player` and `split`.
    """
    left = available[~available["split"].isin(SPLITS)]
    if not len(left):
        return []
    return [
        f"{_count(len(left), 'clip')} of {_count(left['player'].nunique(), 'player')} ({_some(left['player'])}) "
        "without a split: not used; data.resplit=true uses all clips"
    ]


def shared_players(used: Mapping[str, pd.DataFrame]) -> list[str]:
    """Players whose clips lie in two splits.

    Args:
        used: The clips of each split.
    """
    players = {split: set(table["player"]) for split, table in used.items()}
    return [
        f"{_count(len(both), 'player')} with clips in both {one} and {other} ({_some(both)}): "
        f"{_CONSEQUENCE[one, other]}; data.resplit=true splits by player"
        for one, other in combinations(SPLITS, 2)
        if (both := players[one] & players[other])
    ]


def absent_classes(used: Mapping[str, pd.DataFrame]) -> list[str]:
    """Classes of which a split holds no clip.

    Args:
        used: The clips of each split.
    """
    gaps = []
    for split, table in used.items():
        held = set(table["rudiment"])
        if absent := [slug for slug in RUDIMENTS if slug not in held]:
            named = f"{', '.join(absent[:3])}{', …' if len(absent) > 3 else ''}"
            gaps.append(f"{len(absent)} of {len(RUDIMENTS)} classes have no clip in the {split} split: {named}")
    return gaps


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _some(names: pd.Series | set[str]) -> str:
    several = sorted(set(names))
    return ", ".join(several[:3]) + (", …" if len(several) > 3 else "")
