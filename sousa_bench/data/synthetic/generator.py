"""Which clips a dataset holds, and each of them by its number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sousa_bench.data import SPLITS
from sousa_bench.data.rudiments import NUM_CLASSES, RUDIMENTS
from sousa_bench.data.synthetic import DOMAINS, SAMPLE_RATE, SPLIT_PLAYERS, check_domain
from sousa_bench.data.synthetic.drums import DRUMS, make_bank
from sousa_bench.data.synthetic.performance import Performance, Player, make_player, perform
from sousa_bench.data.synthetic.rooms import ROOMS, VARIANTS, render
from sousa_bench.errors import DataError

TEMPO_BPM: dict[str, tuple[int, int]] = {"target": (60, 180), "source": (60, 180)}
"""Range of tempi, both ends included."""

RHYTHM_SHARES: dict[str, dict[str, float]] = {
    "target": {"even": 0.75, "notated": 0.25},
    "source": {"even": 0.25, "sousa": 0.5, "notated": 0.25},
}
"""Share of clips in each rhythm (`notation`)."""

AUDIO_TAIL_MS = 500.0
"""The sound goes on for this long after SOUSA's `duration_sec`, as in its files."""


@dataclass(frozen=True)
class Clip:
    """One rendered clip with everything known about it.

    Attributes:
        index: Place in the dataset.
        sample_id: Unique within the dataset.
        rudiment: Slug.
        label: Class number.
        split: "train", "val" or "test".
        player: Who plays.
        tempo_bpm: Tempo.
        rhythm: One of `notation.RHYTHMS`.
        performance: The strokes.
        drum: Index into `drums.DRUMS[domain]`.
        room: Index into `rooms.ROOMS[domain]`.
        audio: (samples,) int16 at `SAMPLE_RATE`, mono.
    """

    index: int
    sample_id: str
    rudiment: str
    label: int
    split: str
    player: Player
    tempo_bpm: int
    rhythm: str
    performance: Performance
    drum: int
    room: int
    audio: NDArray[np.int16]


def _drawn(shares: dict[str, float], at: float) -> str:
    """The name at `at` (0 to 1) of the shares laid end to end."""
    bounds = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(bounds, at, side="right"))]


MOST_PLAYERS = 1_000_000
"""Of a split: more than any dataset has clips for."""


def split_counts(clips: int, split_players: tuple[int, int, int]) -> tuple[int, int, int]:
    """Clips per split in proportion to its players, the test's first; whole rounds of the classes from 400 clips on."""
    unit = NUM_CLASSES if clips >= 10 * NUM_CLASSES and clips % NUM_CLASSES == 0 else 1
    units, total = clips // unit, sum(split_players)
    floor = 1 if clips >= 3 else 0
    test = max(floor, round(units * split_players[2] / total))
    val = min(max(floor, round(units * split_players[1] / total)), units - test)
    return (units - val - test) * unit, val * unit, test * unit


class Generator:
    """A dataset as a function of the clip's number: any clip, in any order, in any process, bit for bit the same.

    Args:
        clips: Number of clips.
        seed: Seed of players and clips.
        domain: "target" or "source".
        split_players: Players of train, val and test.

    Raises:
        DataError: Fewer than one clip, an unknown domain, a negative seed, a split without players or with too many.
    """

    def __init__(
        self,
        clips: int,
        seed: int,
        domain: str = "target",
        split_players: tuple[int, int, int] = SPLIT_PLAYERS,
    ) -> None:
        if clips < 1:
            raise DataError(f"A synthetic dataset of {clips} clips: ask for at least 1.")
        if seed < 0:
            raise DataError(f"Synthetic data with seed {seed}: a seed is 0 or more.")
        if len(split_players) != 3 or min(split_players) < 1:
            raise DataError(f"split_players={tuple(split_players)}: each of train, val and test needs a player.")
        if max(split_players) > MOST_PLAYERS:
            raise DataError(f"split_players={str(split_players)[:60]}: a split of more than {MOST_PLAYERS:,} players.")
        self.clips, self.seed, self.domain = clips, seed, check_domain(domain)
        self.split_players = split_players
        self.counts = split_counts(clips, split_players)
        rng = np.random.default_rng([seed, DOMAINS.index(domain), 0x51])
        self._classes = rng.permutation(NUM_CLASSES)
        self._cast = [rng.permutation(players) for players in split_players]

    def player(self, number: int) -> Player:
        """Player `number` of the cast: train's first, then val's, then test's."""
        return make_player(self.seed, self.domain, number)

    def place(self, index: int) -> tuple[str, str, int]:
        """Split, rudiment slug and player number of clip `index`: classes balanced, players spread over all classes."""
        if not 0 <= index < self.clips:
            raise DataError(f"Clip {index} of a synthetic dataset of {self.clips} clips.")
        slug = RUDIMENTS[self._classes[index % NUM_CLASSES]]
        part = 0
        while index >= self.counts[part]:
            index -= self.counts[part]
            part += 1
        cast = self._cast[part]
        member = cast[(index + index // NUM_CLASSES) % len(cast)]
        return SPLITS[part], slug, int(member) + sum(self.split_players[:part])

    def clip(self, index: int) -> Clip:
        """Make clip `index`."""
        split, slug, number = self.place(index)
        player = self.player(number)
        rng = np.random.default_rng([self.seed, DOMAINS.index(self.domain), index, 0xC1])
        low, high = TEMPO_BPM[self.domain]
        tempo = int(rng.integers(low, high + 1))
        rhythm = _drawn(RHYTHM_SHARES[self.domain], float(rng.random()))
        drum, room = int(rng.integers(len(DRUMS[self.domain]))), int(rng.integers(len(ROOMS[self.domain])))
        performance = perform(slug, tempo, player, rhythm, rng)
        samples = int((performance.duration_ms + AUDIO_TAIL_MS) * SAMPLE_RATE / 1000)
        variant, bank = int(rng.integers(VARIANTS)), make_bank(self.domain, drum)
        audio = render(performance.strokes, samples, bank, self.domain, room, variant, rng)
        preset = ROOMS[self.domain][room].preset.replace("_", "")
        sample_id = f"{player.code}_{slug}_{tempo}bpm_{bank.drum.code}_{preset}_{index:06d}"
        label = RUDIMENTS.index(slug)
        return Clip(index, sample_id, slug, label, split, player, tempo, rhythm, performance, drum, room, audio)
