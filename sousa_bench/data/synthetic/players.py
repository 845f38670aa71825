"""Players of four skill tiers and what each of them gets wrong."""

import uuid
from dataclasses import dataclass

import numpy as np

from sousa_bench.data.synthetic.version import DOMAINS

TIERS: tuple[str, ...] = ("beginner", "intermediate", "advanced", "professional")
BINARY_TIER: dict[str, str] = {
    "beginner": "novice",
    "intermediate": "novice",
    "advanced": "skilled",
    "professional": "skilled",
}
TIER_PREFIX: dict[str, str] = {"beginner": "beg", "intermediate": "int", "advanced": "adv", "professional": "pro"}

_TIER_CYCLE = ("advanced", "intermediate", "beginner", "professional", "intermediate", "advanced")
"""Tiers in the order in which players are cast: every split holds all four, the middle ones more often."""


@dataclass(frozen=True)
class Ranges:
    """Per tier: the (low, high) from which each player's own habits are drawn."""

    jitter_ms: tuple[float, float]
    drift: tuple[float, float]
    velocity_sd: tuple[float, float]
    weak_hand: tuple[float, float]
    accent: tuple[float, float]
    lead_scale: tuple[float, float]
    lead_sd: tuple[float, float]
    second_stroke: tuple[float, float]


# The spread of SOUSA's own strokes (labels/strokes.parquet): timing errors within a clip of 18 ms for an advanced
# player, 45 to 60 for intermediate ones, 66 for a beginner; velocity errors of 12, 20 and 23.
RANGES: dict[str, Ranges] = {
    "beginner": Ranges((28, 60), (0.02, 0.07), (14, 22), (8, 20), (0.45, 0.80), (1.2, 2.1), (0.20, 0.40), (6, 16)),
    "intermediate": Ranges((18, 45), (0.012, 0.05), (11, 19), (5, 14), (0.6, 0.9), (1.0, 1.8), (0.12, 0.28), (4, 11)),
    "advanced": Ranges((7, 18), (0.005, 0.02), (6, 12), (2, 9), (0.8, 1.0), (0.9, 1.15), (0.06, 0.14), (2, 7)),
    "professional": Ranges((3, 8), (0.002, 0.01), (3, 7), (0, 4), (0.9, 1.05), (0.93, 1.07), (0.03, 0.08), (0, 4)),
}


@dataclass(frozen=True)
class Player:
    """One player's habits, the same in all of his clips.

    Attributes:
        player_id: A UUID, as SOUSA's `profile_id`; different in every domain and for every seed.
        number: Place in the cast, from 0.
        tier: One of `TIERS`.
        dominant_hand: "right" or "left"; the dominant hand leads.
        jitter_ms: Standard deviation of a stroke's timing error at a stroke interval of 150 ms.
        drift: Relative tempo change over a clip, standard deviation.
        velocity_sd: Standard deviation of a stroke's velocity error (MIDI units).
        weak_hand: How much softer the other hand plays (MIDI units).
        accent: Share of the written accent's extra velocity that is played.
        lead_scale: Mean lead of grace notes relative to the written one.
        lead_sd: Its relative spread from one grace note to the next.
        second_stroke: How much softer a diddle's second stroke is (MIDI units).
        second_late: How late it comes, as a share of the interval (negative: early).
        loudness: Offset of all velocities (MIDI units).
        bounce_ms: Interval between the bounces of a buzz stroke.
    """

    player_id: str
    number: int
    tier: str
    dominant_hand: str
    jitter_ms: float
    drift: float
    velocity_sd: float
    weak_hand: float
    accent: float
    lead_scale: float
    lead_sd: float
    second_stroke: float
    second_late: float
    loudness: float
    bounce_ms: float

    @property
    def code(self) -> str:
        """Short name as in SOUSA's sample ids, e.g. `adv017`."""
        return f"{TIER_PREFIX[self.tier]}{self.number:03d}"


def make_player(seed: int, domain: str, number: int) -> Player:
    """Player `number` of a domain's cast; the same whatever the size of the cast."""
    tier = _TIER_CYCLE[number % len(_TIER_CYCLE)]
    spread = RANGES[tier]
    rng = np.random.default_rng([seed, DOMAINS.index(domain), number, 0x9A])
    draw = {name: float(rng.uniform(*getattr(spread, name))) for name in Ranges.__dataclass_fields__}
    skill = TIERS.index(tier)
    return Player(
        player_id=str(uuid.UUID(bytes=rng.bytes(16), version=4)),
        number=number,
        tier=tier,
        dominant_hand="left" if rng.random() < 0.15 else "right",
        second_late=float(rng.normal(0, (0.10, 0.07, 0.03, 0.015)[skill])),
        loudness=float(rng.uniform(-8, 6)),
        bounce_ms=float(np.exp(rng.uniform(np.log(4), np.log(26)))),
        **draw,
    )
