"""Players of four skill tiers, and what each of them makes of a line of notation: strokes with their errors."""

import uuid
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data.synthetic import DOMAINS, TARGET_SECONDS
from sousa_bench.data.synthetic.notation import BOUNCE_DECAY, VELOCITY, Note, entry

TIERS: tuple[str, ...] = ("beginner", "intermediate", "advanced", "professional")

_TIER_CYCLE = ("advanced", "intermediate", "beginner", "professional", "intermediate", "advanced")
"""Tiers in the order in which players are cast: every split holds all four, the middle ones more often."""

_TARGET_HABITS: dict[str, tuple[tuple[float, float], ...]] = {
    "jitter_ms": ((28, 60), (18, 45), (7, 18), (3, 8)),
    "drift": ((0.02, 0.07), (0.012, 0.05), (0.005, 0.02), (0.002, 0.01)),
    "velocity_sd": ((14, 22), (11, 19), (6, 12), (3, 7)),
    "weak_hand": ((8, 20), (5, 14), (2, 9), (0, 4)),
    "accent": ((0.45, 0.80), (0.6, 0.9), (0.8, 1.0), (0.9, 1.05)),
    "lead_scale": ((1.2, 2.1), (1.0, 1.8), (0.9, 1.15), (0.93, 1.07)),
    "lead_sd": ((0.20, 0.40), (0.12, 0.28), (0.06, 0.14), (0.03, 0.08)),
    "second_stroke": ((6, 16), (4, 11), (2, 7), (0, 4)),
}
# Spread as the strokes of four of SOUSA's players are; tests/synthetic/test_performance.py compares the two.
_SOURCE_HABITS: dict[str, tuple[tuple[float, float], ...]] = {
    "jitter_ms": ((40, 80), (28, 70), (8, 24), (3, 9)),
    "drift": _TARGET_HABITS["drift"],
    "velocity_sd": ((12, 20), (10, 18), (7, 12), (3, 7)),
    "accent": ((0.8, 1.1), (0.8, 1.1), (0.9, 1.1), (0.95, 1.05)),
    "lead_scale": _TARGET_HABITS["lead_scale"],
    "lead_sd": _TARGET_HABITS["lead_sd"],
    "accent_sd": ((0.2, 0.55), (0.2, 0.5), (0.1, 0.3), (0.0, 0.15)),
    "weak_share": ((0.18, 0.42), (0.1, 0.34), (0.03, 0.17), (0.0, 0.08)),
    "second_share": ((0.02, 0.18), (0.02, 0.16), (0.02, 0.14), (0.0, 0.1)),
    "grace_share": ((0.45, 0.63), (0.45, 0.63), (0.45, 0.63), (0.35, 0.63)),
}
HABITS = {"target": _TARGET_HABITS, "source": _SOURCE_HABITS}
"""By domain and attribute of a `Player`: for each of `TIERS` the (low, high) from which a player's value is drawn."""


LEAD_IN_MS: dict[str, tuple[float, float]] = {"target": (120.0, 120.0), "source": (0.0, 240.0)}
"""By domain: silence before a clip's first beat, from the shortest to the longest; SOUSA's clips have none."""


@dataclass(frozen=True)
class Player:
    """One player's habits, the same in all of his clips.

    Attributes:
        player_id: A UUID, as SOUSA's `profile_id`; different in every domain and for every seed.
        number: Place in the cast, from 0.
        tier: One of `TIERS`.
        dominant_hand: "right" or "left"; it leads, but in SOUSA's rhythm, where the right hand does.
        jitter_ms: Standard deviation of a stroke's timing error; unless it is constant, at an interval of 150 ms.
        drift: Relative tempo change over a clip, standard deviation.
        velocity_sd: Standard deviation of a stroke's velocity error (MIDI units).
        accent: Share of the written accent's extra velocity that is played.
        lead_scale: Mean lead of grace notes relative to the written one.
        lead_sd: Its relative spread from one grace note to the next.
        second_late: How late a diddle's second stroke comes, as a share of the interval (negative: early).
        loudness: Offset of all velocities (MIDI units).
        bounce_ms: Interval between the bounces of a buzz stroke.
        weak_hand: How much softer the other hand plays (MIDI units).
        second_stroke: How much softer a diddle's second stroke is (MIDI units).
        weak_share: Share of its velocity by which a stroke of the other hand is softer.
        second_share: Share of its velocity by which a diddle's second stroke is softer.
        accent_sd: Standard deviation of `accent` from one accent to the next.
        grace_share: Velocity of a grace note relative to its stroke's as played; 0: as written.
        constant_jitter: Timing errors are as large between fast strokes as between slow ones, so that strokes can
            change places and grace notes come before the stroke before; else they shrink with the interval.
        lead_in_ms: The shortest and the longest silence before the first beat, drawn for each clip.
    """

    player_id: str
    number: int
    tier: str
    dominant_hand: str
    jitter_ms: float
    drift: float
    velocity_sd: float
    accent: float
    lead_scale: float
    lead_sd: float
    second_late: float
    loudness: float
    bounce_ms: float
    weak_hand: float = 0.0
    second_stroke: float = 0.0
    weak_share: float = 0.0
    second_share: float = 0.0
    accent_sd: float = 0.0
    grace_share: float = 0.0
    constant_jitter: bool = False
    lead_in_ms: tuple[float, float] = LEAD_IN_MS["target"]

    @property
    def code(self) -> str:
        """Short name as in SOUSA's sample ids, e.g. `adv017`."""
        return f"{self.tier[:3]}{self.number:03d}"


@lru_cache(maxsize=1024)
def make_player(seed: int, domain: str, number: int) -> Player:
    """Player `number` of a domain's cast; the same whatever the size of the cast."""
    tier = _TIER_CYCLE[number % len(_TIER_CYCLE)]
    skill = TIERS.index(tier)
    rng = np.random.default_rng([seed, DOMAINS.index(domain), number, 0x9A])
    habits = {name: float(rng.uniform(*ranges[skill])) for name, ranges in HABITS[domain].items()}
    return Player(
        player_id=str(uuid.UUID(bytes=rng.bytes(16), version=4)),
        number=number,
        tier=tier,
        dominant_hand="left" if rng.random() < 0.15 else "right",
        second_late=float(rng.normal(0, (0.10, 0.07, 0.03, 0.015)[skill])),
        loudness=float(rng.uniform(-8, 6)),
        bounce_ms=float(np.exp(rng.uniform(np.log(4), np.log(26)))),
        constant_jitter=domain == "source",
        lead_in_ms=LEAD_IN_MS[domain],
        **habits,
    )


SOUSA_TAIL_MS = 500.0
"""SOUSA's `duration_sec` ends this long after the last stroke."""

STROKE = np.dtype(
    [
        ("index", "i8"),
        ("hand", "U1"),
        ("stroke_type", "U6"),
        ("intended_time_ms", "f8"),
        ("actual_time_ms", "f8"),
        ("intended_velocity", "i8"),
        ("actual_velocity", "i8"),
        ("is_grace_note", "?"),
        ("is_accent", "?"),
        ("diddle_position", "f8"),
        ("flam_spacing_ms", "f8"),
        ("parent_stroke_index", "f8"),
        ("buzz_count", "f8"),
    ]
)
"""One row a stroke, grace notes and bounces included; the names of SOUSA's `labels/strokes.parquet`, NaN for none."""


@dataclass(frozen=True)
class Performance:
    """A rudiment as played.

    Attributes:
        strokes: Rows of dtype `STROKE` in the order of the notation, a grace note before its stroke.
        cycles: SOUSA cycles played.
        duration_ms: SOUSA's duration: the last stroke plus 500 ms.
    """

    strokes: NDArray[np.void]
    cycles: int
    duration_ms: float


def cycles_for(slug: str, tempo_bpm: float, rhythm: str) -> int:
    """Whole cycles that come nearest to four seconds, at least one."""
    rudiment = entry(slug, rhythm)
    cycle_s = rudiment.onsets(rhythm)[1] * rudiment.passes * 60.0 / tempo_bpm
    return max(1, round(TARGET_SECONDS / cycle_s))


def score(slug: str, cycles: int, rhythm: str, left_lead: bool) -> tuple[list[Note], NDArray[np.float64]]:
    """All main strokes of a performance and their onsets in beats, without any human error."""
    rudiment = entry(slug, rhythm)
    onsets, length = rudiment.onsets(rhythm)
    passes = cycles * rudiment.passes
    notes = [note for number in range(passes) for note in rudiment.pass_notes(number, left_lead)]
    beats = (np.arange(passes)[:, None] * length + np.asarray(onsets)[None, :]).ravel()
    return notes, beats


def perform(slug: str, tempo_bpm: float, player: Player, rhythm: str, rng: np.random.Generator) -> Performance:
    """Play a rudiment for about four seconds.

    Args:
        slug: One of the 40.
        tempo_bpm: Quarter notes a minute.
        player: Whose errors are made.
        rhythm: One of `notation.RHYTHMS`.
        rng: Source of the errors.
    """
    cycles = cycles_for(slug, tempo_bpm, rhythm)
    left_lead = player.dominant_hand == "left" and rhythm != "sousa"  # there the right hand leads, the stronger or not
    notes, beats = score(slug, cycles, rhythm, left_lead)
    shortest, longest = player.lead_in_ms
    lead_in = rng.uniform(shortest, longest) if longest > shortest else shortest
    intended = lead_in + beats * 60_000.0 / tempo_bpm
    gaps = np.diff(intended, append=intended[-1] + 250.0)
    before = np.concatenate([[250.0], gaps[:-1]])
    actual = intended + _timing_errors(intended, np.minimum(gaps, before), notes, player, rng)
    if not player.constant_jitter:
        least_gaps = np.arange(len(notes)) * 4.0
        actual = np.maximum.accumulate(np.maximum(actual, 5.0) + least_gaps) - least_gaps
    velocities = _velocities(notes, player, rng)
    rows: list[tuple[object, ...]] = []
    nan = float("nan")
    for place, note in enumerate(notes):
        free = actual[place] - (actual[place - 1] if place else 0.0)
        leads = _grace_leads(note, free, player, rng)
        first = len(rows)
        main = first + len(leads)
        for hand, written, lead in zip(note.graces, note.leads_ms, leads, strict=True):
            if player.grace_share:  # SOUSA's scatter by 7 to 9 around that, whoever plays
                grace = velocities[place] * player.grace_share + rng.normal(0, min(player.velocity_sd, 8.0))
            else:
                grace = VELOCITY["grace"] + player.loudness * 0.5 + rng.normal(0, player.velocity_sd)
            times = (intended[place] - written, actual[place] - lead)
            speeds = (VELOCITY["grace"], _midi(grace))
            rows.append((0, hand.upper(), "grace", *times, *speeds, True, False, nan, lead, float(main), nan))
        buzz = int(rng.integers(4, 9)) if note.kind == "buzz" else 0
        speeds = (VELOCITY[note.kind], velocities[place])
        times = (intended[place], actual[place])
        tail = (False, note.accent, float(note.diddle_position or nan), nan, nan, float(buzz) if buzz else nan)
        rows.append((0, note.hand, note.kind, *times, *speeds, *tail))
        rows += _bounces(note, main, buzz, times, speeds, gaps[place], player, rng)
    strokes = np.array(rows, dtype=STROKE)
    strokes["index"] = np.arange(len(strokes))
    strokes["actual_time_ms"] -= min(0.0, strokes["actual_time_ms"].min())
    end = float(strokes["actual_time_ms"].max())
    return Performance(strokes, cycles, end + SOUSA_TAIL_MS)


def _midi(velocity: float) -> int:
    return int(np.clip(round(velocity), 1, 127))


def _timing_errors(
    intended: NDArray[np.float64],
    interval: NDArray[np.float64],
    notes: list[Note],
    player: Player,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Errors in ms: a jitter with some memory, tempo drift, uneven diddles."""
    # From stroke to stroke SOUSA's errors correlate by 0.18 to 0.39, and by 0.05 to 0.15 without their drift.
    correlation = 0.1 if player.constant_jitter else 0.3
    white = rng.standard_normal(len(intended)) * np.sqrt(1 - correlation**2)
    jitter = white
    for place in range(1, len(jitter)):
        jitter[place] += correlation * jitter[place - 1]
    scale = 1.0 if player.constant_jitter else np.clip(0.4 + 0.6 * interval / 150.0, 0.4, 1.6)
    through = np.linspace(0, 1, len(intended))
    span = intended[-1] - intended[0]
    drift = span * player.drift * (rng.normal() * through + 0.5 * rng.normal() * np.sin(np.pi * through)) * 0.5
    second = np.array([note.diddle_position == 2 for note in notes])
    return player.jitter_ms * jitter * scale + drift + second * player.second_late * interval


def _velocities(notes: list[Note], player: Player, rng: np.random.Generator) -> list[int]:
    errors = rng.normal(0, player.velocity_sd, len(notes)) + 4.0 * np.sin(
        np.linspace(0, rng.uniform(2, 9), len(notes)) + rng.uniform(0, 6)
    )
    strong = "R" if player.dominant_hand == "right" else "L"
    played = []
    for note, error in zip(notes, errors, strict=True):
        wanted = float(VELOCITY[note.kind])
        if note.accent:
            share = player.accent + (rng.normal(0, player.accent_sd) if player.accent_sd else 0.0)
            wanted = VELOCITY["tap"] + (wanted - VELOCITY["tap"]) * share
        if note.diddle_position == 2:
            wanted = wanted * (1 - player.second_share) - player.second_stroke
        if note.hand != strong:
            wanted = wanted * (1 - player.weak_share) - player.weak_hand
        played.append(_midi(wanted + player.loudness + error))
    return played


def _grace_leads(note: Note, free_ms: float, player: Player, rng: np.random.Generator) -> list[float]:
    """Leads of the grace notes, ms: the player's own spacing, squeezed to the room after the stroke before."""
    if not note.graces:
        return []
    scale = player.lead_scale * max(0.25, 1 + rng.normal(0, player.lead_sd))
    leads = np.asarray(note.leads_ms) * scale * np.exp(rng.normal(0, player.lead_sd * 0.5, len(note.leads_ms)))
    leads = np.sort(leads)[::-1]
    if player.constant_jitter:
        return leads.tolist()
    return (leads * min(1.0, max(free_ms * 0.75, 4.0) / leads[0])).tolist()


def _bounces(
    note: Note,
    main: int,
    count: int,
    times: tuple[float, float],
    speeds: tuple[int, int],
    gap_ms: float,
    player: Player,
    rng: np.random.Generator,
) -> list[tuple[object, ...]]:
    """The bounces that follow a buzz stroke's first contact; SOUSA's flags: grace notes of type `buzz`."""
    if count < 2:
        return []
    spacing = min(player.bounce_ms * np.exp(rng.normal(0, 0.12)), 0.9 * gap_ms / count)
    rows: list[tuple[object, ...]] = []
    at = 0.0
    for bounce in range(1, count):
        at += spacing * 0.96**bounce
        decay = BOUNCE_DECAY**bounce
        when = (times[0] + at, times[1] + at)
        speed = (int(speeds[0] * decay), _midi(speeds[1] * decay))
        nan = float("nan")
        rows.append((0, note.hand, "buzz", *when, *speed, True, False, nan, -at, float(main), nan))
    return rows
