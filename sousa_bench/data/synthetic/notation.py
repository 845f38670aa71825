"""What the 40 rudiments are: sticking, accents, grace notes, diddles, drags, buzzes and rhythm, one readable line each.

Source: Percussive Arts Society, "International Drum Rudiments" (1984). Where the sheet prints no accent at all (single
stroke four and seven, triple stroke roll, flam, drag) the group's first stroke is accented, as SOUSA does, since the
group could not be told from a plain roll otherwise.

How a line reads. Notes stand between spaces, in the order in which they sound, for a right-hand lead:

    R  L      one stroke of that hand
    >         the stroke before it is accented
    lR  llR   lower case: grace notes before the main stroke: one is a flam, two are a drag
    RR  LLL   strokes of one hand in a row, each a full note: a diddle, a triple
    (LL)      a drag written out: two strokes in the time of one
    ~         a multiple-bounce (buzz) stroke
    :1/2      length of each stroke in beats where it differs from the entry's `unit`

A line is one *pass*. Where the sheet alternates, the next pass is its mirror image. SOUSA counts in *cycles* of
`passes` passes each.

Three rhythms. `notated` plays the lengths above. `even` is the public SOUSA generator's grid: every symbol, grace notes
included, takes an equal share of the pass (`slots`), whatever the sheet's rhythm says; a main stroke stands in its own
slot, and its grace notes sound just before it. `sousa` is that grid with the lines of `SOUSA`, which SOUSA's generator
plays where it differs from the sheet: what real SOUSA clips sound like.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from sousa_bench.errors import DataError

FLAM_LEAD_MS: tuple[float, ...] = (30.0,)
"""Lead of a flam's grace note before its main stroke, ms (SOUSA's strokes: 30.2 ± 2.9 for an advanced player)."""

DRAG_LEADS_MS: tuple[float, ...] = (43.0, 15.0)
"""Leads of a drag's two grace notes, ms, in order of sounding (SOUSA's strokes: 42.3 and 14.9)."""

VELOCITY: dict[str, int] = {"accent": 120, "diddle": 75, "buzz": 70, "tap": 65, "grace": 40}
"""MIDI velocity that a perfect player would give each type of stroke (SOUSA's `intended_velocity`)."""

RHYTHMS: tuple[str, ...] = ("even", "notated", "sousa")

BOUNCE_DECAY = 0.85
"""Velocity of each bounce of a buzz stroke relative to the one before (SOUSA: 70, 59, 50, 42, 36, 31, 26, 22)."""


@dataclass(frozen=True)
class Note:
    """One main stroke with what belongs to it.

    Attributes:
        hand: "R" or "L".
        kind: "accent", "diddle", "buzz" or "tap"; an accent wins over a diddle, as in SOUSA's `stroke_type`.
        accent: Whether it is accented.
        graces: Hands of its grace notes, in order of sounding: none, one (flam) or two (drag).
        diddle_position: 1 or 2 in a diddle, else None.
        beats: Notated length, in beats.
        slots: Slots that the stroke itself takes on the even grid: 1, or 1/2 in a written-out drag.
    """

    hand: str
    kind: str
    accent: bool
    graces: str
    diddle_position: int | None
    beats: Fraction
    slots: Fraction

    @property
    def leads_ms(self) -> tuple[float, ...]:
        """Leads of the grace notes before this stroke, ms, in order of sounding."""
        return ((), FLAM_LEAD_MS, DRAG_LEADS_MS)[len(self.graces)]

    def mirrored(self) -> "Note":
        """The same note with the hands exchanged."""
        swap = str.maketrans("RLrl", "LRlr")
        return replace(self, hand=self.hand.translate(swap), graces=self.graces.translate(swap))


_TOKEN = re.compile(r"^(?P<grace>[rl]{0,2})(?P<body>\(?(?:[RL]>?)+\)?)(?P<buzz>~?)(?::(?P<beats>\d+(?:/\d+)?))?$")


@dataclass(frozen=True)
class Rudiment:
    """One entry of the table.

    Attributes:
        line: One pass, right-hand lead, in the notation of this module.
        unit: Length of a stroke in beats where the line says none.
        even: Length of a pass in beats on the even grid (SOUSA's, or its slot length times our symbols).
        alternates: Whether the next pass is mirrored.
        passes: Passes in one SOUSA cycle.
    """

    line: str
    unit: Fraction
    even: Fraction
    alternates: bool
    passes: int

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """The main strokes of one right-hand-led pass."""
        return tuple(note for token in self.line.split() for note in _parse(token, self.unit))

    def pass_notes(self, number: int, left_lead: bool = False) -> tuple[Note, ...]:
        """The main strokes of pass `number` (from 0), for a right- or left-hand lead."""
        mirror = left_lead != (self.alternates and number % 2 == 1)
        return tuple(note.mirrored() for note in self.notes) if mirror else self.notes

    def cycle(self, left_lead: bool = False) -> tuple[Note, ...]:
        """The main strokes of the first SOUSA cycle."""
        return tuple(note for number in range(self.passes) for note in self.pass_notes(number, left_lead))

    def onsets(self, rhythm: str) -> tuple[tuple[float, ...], float]:
        """Where the main strokes of a pass stand.

        Args:
            rhythm: One of `RHYTHMS`.

        Returns:
            Onsets in beats from the start of the pass, and the pass's length in beats.

        Raises:
            DataError: `rhythm` is none of them.
        """
        if rhythm not in RHYTHMS:
            raise DataError(f"Unknown rhythm {rhythm!r}: there are {', '.join(map(repr, RHYTHMS))}.")
        position, onsets = Fraction(0), []
        for note in self.notes:
            if rhythm != "notated":
                position += len(note.graces)
            onsets.append(position)
            position += note.beats if rhythm == "notated" else note.slots
        scale = Fraction(1) if rhythm == "notated" else self.even / position
        return tuple(float(onset * scale) for onset in onsets), float(position * scale)


def _parse(token: str, unit: Fraction) -> list[Note]:
    match = _TOKEN.match(token)
    if match is None:
        raise DataError(f"Rudiment table: {token!r} is not in the notation that this file's head explains.")
    drag = match["body"].startswith("(")
    strokes = re.findall(r"([RL])(>?)", match["body"])
    beats = Fraction(match["beats"]) if match["beats"] else unit
    share = Fraction(1, len(strokes)) if drag else Fraction(1)
    notes = []
    for place, (hand, mark) in enumerate(strokes):
        diddle = place + 1 if len(strokes) == 2 else None
        kind = "accent" if mark else "buzz" if match["buzz"] else "diddle" if diddle else "tap"
        graces = match["grace"] if place == 0 else ""
        notes.append(Note(hand, kind, bool(mark), graces, diddle, beats * share, share))
    return notes


def _entry(line: str, unit: str, even: str, passes: int, alternates: bool) -> Rudiment:
    return Rudiment(line, Fraction(unit), Fraction(even), alternates, passes)


ALTERNATES, REPEATS = True, False

# slug: line of one pass | unit, beats | even grid, beats a pass | passes a cycle | next pass
TABLE: dict[str, Rudiment] = {
    # Rolls: single strokes
    "single_stroke_roll": _entry("R L", "1/4", "1/2", 4, REPEATS),
    "single_stroke_four": _entry("R> L R L:1/2", "1/6", "1", 1, REPEATS),
    "single_stroke_seven": _entry("R> L R L R L R:1", "1/6", "2", 1, ALTERNATES),
    # Rolls: multiple bounce and triple strokes
    "multiple_bounce_roll": _entry("R~ L~", "1/4", "1/2", 4, REPEATS),
    "triple_stroke_roll": _entry("R>RR", "1/3", "1", 2, ALTERNATES),
    # Rolls: double strokes
    "double_stroke_open_roll": _entry("RR LL", "1/4", "1", 1, REPEATS),
    "five_stroke_roll": _entry("RR LL R>:1/2", "1/4", "3/2", 1, ALTERNATES),
    "six_stroke_roll": _entry("R> LL RR L>", "1/4", "3/2", 1, REPEATS),
    "seven_stroke_roll": _entry("RR LL RR L>:1/2", "1/4", "2", 1, REPEATS),
    "nine_stroke_roll": _entry("RR LL RR LL R>:1/2", "1/4", "5/2", 1, ALTERNATES),
    "ten_stroke_roll": _entry("RR LL RR LL R>:1/2 L>:1/2", "1/4", "5/2", 1, REPEATS),
    "eleven_stroke_roll": _entry("RR LL RR LL RR L>:1/2", "1/4", "3", 1, REPEATS),
    "thirteen_stroke_roll": _entry("RR LL RR LL RR LL R>:1/2", "1/4", "7/2", 1, ALTERNATES),
    "fifteen_stroke_roll": _entry("RR LL RR LL RR LL RR L>:1/2", "1/4", "4", 1, REPEATS),
    "seventeen_stroke_roll": _entry("RR LL RR LL RR LL RR LL R>:1/2", "1/4", "9/2", 1, ALTERNATES),
    # Diddles
    "single_paradiddle": _entry("R> L RR", "1/4", "1", 2, ALTERNATES),
    "double_paradiddle": _entry("R> L R L RR", "1/4", "3/2", 2, ALTERNATES),
    "triple_paradiddle": _entry("R> L R L R L RR", "1/4", "2", 2, ALTERNATES),
    "paradiddle_diddle": _entry("R> L RR LL", "1/6", "1", 2, REPEATS),
    # Flams
    "flam": _entry("lR>", "1/2", "1/2", 2, ALTERNATES),
    "flam_accent": _entry("lR> L R", "1/3", "1", 2, ALTERNATES),
    "flam_tap": _entry("lR>R", "1/4", "3/4", 2, ALTERNATES),
    "flamacue": _entry("lR L> R L lR:1/2", "1/4", "7/4", 2, ALTERNATES),
    "flam_paradiddle": _entry("lR> L RR", "1/4", "5/4", 2, ALTERNATES),
    "single_flammed_mill": _entry("lR>R L R", "1/4", "5/4", 2, ALTERNATES),
    "flam_paradiddle_diddle": _entry("lR> L RR LL", "1/6", "1", 2, ALTERNATES),
    "pataflafla": _entry("lR> L R rL>", "1/4", "3/2", 2, REPEATS),
    "swiss_army_triplet": _entry("lR>R L", "1/3", "1", 2, REPEATS),
    "inverted_flam_tap": _entry("lR> L", "1/4", "3/4", 2, ALTERNATES),
    "flam_drag": _entry("lR> (LL) R", "1/3", "1", 2, ALTERNATES),
    # Drags
    "drag": _entry("llR>", "1/2", "1/2", 2, ALTERNATES),
    "single_drag_tap": _entry("llR L>", "1/2", "1", 2, ALTERNATES),
    "double_drag_tap": _entry("llR llR L>", "1/3", "7/6", 2, ALTERNATES),
    "lesson_25": _entry("llR L R>:1/2", "1/4", "5/4", 2, REPEATS),
    "single_dragadiddle": _entry("(R>R) L RR", "1/4", "1", 2, ALTERNATES),
    "drag_paradiddle_1": _entry("R>:1/2 llR L RR", "1/4", "7/4", 2, ALTERNATES),
    "drag_paradiddle_2": _entry("R>:1/2 llR:1/2 llR L RR", "1/4", "5/2", 2, ALTERNATES),
    "single_ratamacue": _entry("llR L R L>:1/2", "1/6", "1", 2, ALTERNATES),
    "double_ratamacue": _entry("llR:1/2 llR L R L>:1/2", "1/6", "3/2", 2, ALTERNATES),
    "triple_ratamacue": _entry("llR:1/2 llR:1/2 llR L R L>:1/2", "1/6", "2", 2, ALTERNATES),
}


def _even(line: str, even: str, passes: int, alternates: bool) -> Rudiment:
    """A rudiment for the even grid alone, where a stroke is as long as its slot."""
    slots = sum(line.count(hand) for hand in "RLrl")
    return Rudiment(line, Fraction(even) / slots, Fraction(even), alternates, passes)


# The rudiments that SOUSA's generator plays in another way, read off its labels (labels/strokes.parquet). The double
# drag tap alone is only near: the first two of its four grace notes stand there at -0.7 and 0.5 slots of the pass, at a
# grace note's velocity. Here they are taps in the first two slots.
# slug: line of one pass | even grid, beats a pass | passes a cycle | next pass
SOUSA: dict[str, Rudiment] = {
    "single_stroke_seven": _even("R> L R L R L> R", "2", 1, REPEATS),
    "five_stroke_roll": _even("RR LL R>", "3/2", 1, REPEATS),
    "nine_stroke_roll": _even("RR LL RR LL R>", "5/2", 1, REPEATS),
    "ten_stroke_roll": _even("R> LL RR LL RR L>", "5/2", 1, REPEATS),
    "thirteen_stroke_roll": _even("RR LL RR LL RR LL R>", "7/2", 1, REPEATS),
    "seventeen_stroke_roll": _even("RR LL RR LL RR LL RR LL R>", "9/2", 1, REPEATS),
    "paradiddle_diddle": _even("R> L RR LL", "1", 2, ALTERNATES),
    "flam_tap": _even("lR> R", "3/4", 2, ALTERNATES),
    "flamacue": _even("lR> L R L R>", "3/2", 2, ALTERNATES),
    "single_flammed_mill": _even("lR> LL", "1", 2, ALTERNATES),
    "pataflafla": _even("lR> L rL> R", "3/2", 2, ALTERNATES),
    "swiss_army_triplet": _even("lR> L L", "1", 2, ALTERNATES),
    "inverted_flam_tap": _even("L lR>", "3/4", 2, ALTERNATES),
    "flam_drag": _even("lR> L llR>", "3/2", 2, ALTERNATES),
    "single_drag_tap": _even("llR> L", "1", 2, ALTERNATES),
    "lesson_25": _even("llR> rrL> rL>", "2", 2, ALTERNATES),
    "single_dragadiddle": _even("llR> L RR", "3/2", 2, ALTERNATES),
    "double_drag_tap": _even("L L llR> L", "1", 2, ALTERNATES),
    "drag_paradiddle_1": _even("llR> L R LL", "7/4", 2, ALTERNATES),
    "drag_paradiddle_2": _even("llR> L rrL> R LL", "5/2", 2, ALTERNATES),
    "double_ratamacue": _even("llR rrL R L R>", "3/2", 2, ALTERNATES),
    "triple_ratamacue": _even("llR rrL llR L R L>", "2", 2, ALTERNATES),
}


def entry(slug: str, rhythm: str) -> Rudiment:
    """The rudiment as that rhythm plays it."""
    return SOUSA.get(slug, TABLE[slug]) if rhythm == "sousa" else TABLE[slug]
