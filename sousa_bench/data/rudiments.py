"""The 40 rudiments: class list, families, names for people, spellings that occur in the wild.

Source: Percussive Arts Society, "International Drum Rudiments" (1984): 15 rolls, 4 diddles, 11 flams, 10 drags. The
slugs are those of SOUSA's `labels/samples.parquet`; their alphabetical order is the class order of every model.
"""

import difflib
import re
from collections.abc import Iterable

from sousa_bench.errors import DataError
from sousa_bench.task import Task

_BY_FAMILY: dict[str, tuple[str, ...]] = {
    "rolls": (
        "single_stroke_roll",
        "single_stroke_four",
        "single_stroke_seven",
        "multiple_bounce_roll",
        "triple_stroke_roll",
        "double_stroke_open_roll",
        "five_stroke_roll",
        "six_stroke_roll",
        "seven_stroke_roll",
        "nine_stroke_roll",
        "ten_stroke_roll",
        "eleven_stroke_roll",
        "thirteen_stroke_roll",
        "fifteen_stroke_roll",
        "seventeen_stroke_roll",
    ),
    "diddles": (
        "single_paradiddle",
        "double_paradiddle",
        "triple_paradiddle",
        "paradiddle_diddle",
    ),
    "flams": (
        "flam",
        "flam_accent",
        "flam_tap",
        "flamacue",
        "flam_paradiddle",
        "single_flammed_mill",
        "flam_paradiddle_diddle",
        "pataflafla",
        "swiss_army_triplet",
        "inverted_flam_tap",
        "flam_drag",
    ),
    "drags": (
        "drag",
        "single_drag_tap",
        "double_drag_tap",
        "lesson_25",
        "single_dragadiddle",
        "drag_paradiddle_1",
        "drag_paradiddle_2",
        "single_ratamacue",
        "double_ratamacue",
        "triple_ratamacue",
    ),
}

FAMILY_NAMES: tuple[str, ...] = tuple(_BY_FAMILY)
"""The four families in the order of the PAS sheet: rolls, diddles, flams, drags."""

FAMILIES: dict[str, str] = {slug: family for family, slugs in _BY_FAMILY.items() for slug in slugs}
"""Family of each slug, in the order of the PAS sheet."""

RUDIMENTS: tuple[str, ...] = tuple(sorted(FAMILIES))
"""The 40 class slugs, alphabetical: class `i` of every model is `RUDIMENTS[i]`."""

INDEX: dict[str, int] = {slug: index for index, slug in enumerate(RUDIMENTS)}
"""Class number of each slug."""

NUM_CLASSES: int = len(RUDIMENTS)

DISPLAY: dict[str, str] = {slug: slug.replace("_", " ").capitalize() for slug in RUDIMENTS} | {
    "paradiddle_diddle": "Single paradiddle-diddle",
    "flam_paradiddle_diddle": "Flam paradiddle-diddle",
    "drag_paradiddle_1": "Drag paradiddle #1",
    "drag_paradiddle_2": "Drag paradiddle #2",
    "swiss_army_triplet": "Swiss Army triplet",
}
"""Names for people, as the PAS sheet prints them."""

TASK = Task(RUDIMENTS, DISPLAY, FAMILIES, noun="rudiment", group="player")
"""SOUSA's question: which rudiment does a clip hold, and players are the sample."""

_ROLL_LENGTHS = {
    "5": "five",
    "6": "six",
    "7": "seven",
    "9": "nine",
    "10": "ten",
    "11": "eleven",
    "13": "thirteen",
    "15": "fifteen",
    "17": "seventeen",
}

ALIASES: dict[str, str] = {
    "single_paradiddle_diddle": "paradiddle_diddle",
    "single_paradiddlediddle": "paradiddle_diddle",
    "paradiddlediddle": "paradiddle_diddle",
    "flam_paradiddlediddle": "flam_paradiddle_diddle",
    "paradiddle": "single_paradiddle",
    "half_drag": "drag",
    "drag_ruff": "drag",
    "ruff": "drag",
    "drag_half_drag_or_ruff": "drag",
    "single_drag": "single_drag_tap",
    "double_drag": "double_drag_tap",
    "lesson_twenty_five": "lesson_25",
    "lesson25": "lesson_25",
    "dragadiddle": "single_dragadiddle",
    "single_drag_a_diddle": "single_dragadiddle",
    "drag_paradiddle_no_1": "drag_paradiddle_1",
    "drag_paradiddle_no_2": "drag_paradiddle_2",
    "drag_paradiddle1": "drag_paradiddle_1",
    "drag_paradiddle2": "drag_paradiddle_2",
    "ratamacue": "single_ratamacue",
    "double_stroke_roll": "double_stroke_open_roll",
    "open_roll": "double_stroke_open_roll",
    "long_roll": "double_stroke_open_roll",
    "multiple_bounce": "multiple_bounce_roll",
    "buzz_roll": "multiple_bounce_roll",
    "press_roll": "multiple_bounce_roll",
    "closed_roll": "multiple_bounce_roll",
    "single_stroke": "single_stroke_roll",
    "triple_stroke": "triple_stroke_roll",
    "flam_a_cue": "flamacue",
    "flammed_mill": "single_flammed_mill",
    "pata_fla_fla": "pataflafla",
    "swiss_triplet": "swiss_army_triplet",
} | {f"{digits}_stroke_roll": f"{word}_stroke_roll" for digits, word in _ROLL_LENGTHS.items()}
"""Other spellings, already in lower case with underscores, and the slug each stands for."""


def canonical(slug: str) -> str:
    """Map any known spelling to its class slug.

    Case, hyphens, spaces and a `#` before a number don't matter: `Flam-Paradiddle`, `drag paradiddle #1`.

    Args:
        slug: A rudiment's name as some dataset spells it.

    Returns:
        The slug, one of `RUDIMENTS`.

    Raises:
        DataError: The name is unknown; the message holds the nearest known ones.
    """
    key = re.sub(r"[^0-9a-z]+", "_", str(slug).strip().lower()).strip("_")
    key = ALIASES.get(key, key)
    if key in FAMILIES:
        return key
    near = difflib.get_close_matches(key, [*RUDIMENTS, *ALIASES], n=3, cutoff=0.6)
    names = dict.fromkeys(ALIASES.get(name, name) for name in near)
    hint = f"did you mean {' or '.join(names)}?" if names else f"the 40 known ones are: {', '.join(RUDIMENTS)}."
    raise DataError(f"Unknown rudiment {slug!r}: {hint}")


def label(slug: str) -> int:
    """Class number of a rudiment in any known spelling.

    Raises:
        DataError: As `canonical`.
    """
    return INDEX[canonical(slug)]


def family_members(family: str, slugs: Iterable[str] = RUDIMENTS) -> tuple[str, ...]:
    """Those of `slugs` that belong to `family` (one of `FAMILY_NAMES`), in the given order."""
    if family not in _BY_FAMILY:
        raise DataError(f"Unknown family {family!r}: there are {', '.join(FAMILY_NAMES)}.")
    return tuple(slug for slug in slugs if FAMILIES[slug] == family)
