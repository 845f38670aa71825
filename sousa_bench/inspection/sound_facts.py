"""What the sounds of all clips say together: formats, lengths, bad clips, and sounds that occur more than once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, compress
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.data import SPLITS

LISTED = 100
"""Names in a list of the JSON; its `count` tells how many there are."""

COPIES = 10
"""Copies of a sound in such a list."""

BAD = {"silent": "silent", "empty": "empty", "short": "too short", "long": "too long", "unreadable": "unreadable"}
"""The kinds of clips that can't be used, as they are told; files that are missing are counted without listening."""

_CONSEQUENCE = {
    ("train", "val"): "validation, which chooses runs and epochs, hears what was trained on",
    ("train", "test"): "the test hears what was trained on; delete one file of each pair, or put both into one split",
    ("val", "test"): "runs and epochs are chosen by sounds that are tested",
}


def sound_facts(clips: pd.DataFrame, max_duration: float) -> dict[str, Any]:
    """Facts about the sounds; everything in them is JSON.

    Args:
        clips: One row a clip: `split`, `class`, `label`, `clip` (its file, for people), and the fields of `Heard`.
        max_duration: Seconds of a clip that a training hears.
    """
    good = clips[clips["kind"] == ""]
    lengths = good["seconds"]
    return {
        "heard": len(good),
        "seconds": round(float(lengths.sum()), 3),
        "lengths": [round(float(f), 3) for f in (lengths.min(), lengths.median(), lengths.max())] if len(good) else [],
        "max_duration": max_duration,
        "longer": int((lengths > max_duration).sum()),
        "sample_rates": _counts(good["rate"]),
        "channels": _counts(good["channels"]),
        "bad": {kind: _bad(clips[clips["kind"] == kind]) for kind in BAD},
        "clipped": _listed(good.loc[good["clipped"].astype(bool), "clip"].tolist()),
        "duplicates": _duplicates(good),
    }


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}


def _listed(items: Sequence[Any]) -> dict[str, Any]:
    return {"count": len(items), "clips": list(items[:LISTED])}


def _bad(clips: pd.DataFrame) -> dict[str, Any]:
    return _listed([{"clip": name, "reason": why} for name, why in zip(clips["clip"], clips["reason"], strict=True)])


def _duplicates(good: pd.DataFrame) -> dict[str, Any]:
    """Sounds that occur more than once: within a split, in two of them, and under different classes."""
    again = good[good.duplicated("digest", keep=False)][["digest", "clip", "split", "class", "label"]]
    sounds = [again.iloc[where] for where in again.groupby("digest", sort=False).indices.values()]
    splits = [set(rows["split"]) for rows in sounds]

    def those(held: Sequence[bool]) -> dict[str, Any]:
        shown = [_unlike_first(rows).head(COPIES) for rows in compress(sounds, held)][:LISTED]
        return {
            "count": sum(held),
            "sounds": [rows[["clip", "split", "class"]].to_dict("records") for rows in shown],
        }

    return {
        "sounds": len(sounds),
        "clips": len(again),
        "within": those([len(names) < len(rows) for names, rows in zip(splits, sounds, strict=True)]),
        "across": {
            f"{one} and {other}": those([{one, other} <= names for names in splits])
            for one, other in combinations(SPLITS, 2)
        },
        "of_different_classes": those([rows["label"].nunique() > 1 for rows in sounds]),
    }


def _unlike_first(rows: pd.DataFrame) -> pd.DataFrame:
    """The copies of a sound, those of other splits and classes first."""
    return rows.iloc[np.argsort(rows.duplicated(["split", "class"]), kind="stable")]


def refusals(sounds: dict[str, Any], skipped: bool) -> list[str]:
    """Why a training on these sounds would be refused, or would be tested on what it learnt from.

    Args:
        sounds: From `sound_facts`.
        skipped: Whether bad clips are left out (`data.on_bad_clip=skip`).
    """
    said = [] if skipped else _bad_clips(sounds, "restore them, or leave them out with data.on_bad_clip=skip")
    return said + _across(sounds, "train", "test")


def remarks(sounds: dict[str, Any], skipped: bool) -> list[str]:
    """What a reader of the results must know of these sounds; arguments as for `refusals`."""
    said = _bad_clips(sounds, "left out (data.on_bad_clip=skip)") if skipped else []
    if count := sounds["clipped"]["count"]:
        names = _some(sounds["clipped"]["clips"], count)
        said.append(f"{_clips(count)} clipped, with three samples in a row or more at full scale: {names}")
    duplicates = sounds["duplicates"]
    said += _across(sounds, "train", "val") + _across(sounds, "val", "test")
    if count := duplicates["within"]["count"]:
        said.append(f"{_sounds(count)} more than once within a split: {_pairs(duplicates['within'], '')}")
    if count := duplicates["of_different_classes"]["count"]:
        named = _pairs(duplicates["of_different_classes"], "class")
        said.append(f"{_sounds(count)} more than once with different classes: {named}")
    return said


def _bad_clips(sounds: dict[str, Any], what_then: str) -> list[str]:
    said = []
    for kind, bad in sounds["bad"].items():
        names = _some([f"{each['clip']} {each['reason']}" for each in bad["clips"]], bad["count"])
        said += [f"{_clips(bad['count'])} {BAD[kind]} ({names}): {what_then}"] if bad["count"] else []
    return said


def _across(sounds: dict[str, Any], one: str, other: str) -> list[str]:
    found = sounds["duplicates"]["across"][f"{one} and {other}"]
    if not found["count"]:
        return []
    return [f"{_sounds(found['count'])} in both {one} and {other} ({_pairs(found)}): {_CONSEQUENCE[one, other]}"]


def _clips(count: int) -> str:
    return f"{count:,} clip{'s are' if count > 1 else ' is'}"


def _sounds(count: int) -> str:
    return f"{count:,} sound{'s stand' if count > 1 else ' stands'}"


def _some(names: Sequence[str], count: int, most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if count > most else "")


def _pairs(found: dict[str, Any], unlike: str = "split") -> str:
    """Copies by name: of each sound one for each split or class, or with neither the first two of one split."""
    named = []
    for group in found["sounds"][:3]:
        if unlike:
            rows = list({row[unlike]: row for row in reversed(group)}.values())[::-1]
            named.append(" = ".join(f"{row['clip']} ({row[unlike]})" for row in rows[:3]))
        else:
            of_split = [[row["clip"] for row in group if row["split"] == split] for split in SPLITS]
            named.append(" = ".join(max(of_split, key=len)[:2]))
    return _some(named, found["count"])
