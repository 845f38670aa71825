"""Which clips a run uses: filters, splits by player, and stratified subsets.

Every choice depends on hashes of names and a seed, never on the order of rows or on a random generator's state, so that
it is the same on every machine.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sousa_bench.data import SPLITS
from sousa_bench.data.sources.source import UNKNOWN
from sousa_bench.errors import ConfigError, DataError

SHARES = {"train": 0.68, "val": 0.13, "test": 0.19}
"""SOUSA's own split of its 100 players; new splits follow it."""

NAME_FILTERS = ("soundfont", "augmentation_preset", "skill_tier")
"""The filters that take a name or several."""

REFIT = {"val": ("val",), "all": ("val", "test")}
"""What `data.refit` may be: for each the splits that are trained on besides the training clips."""


def also_trained(refit: object) -> tuple[str, ...]:
    """The splits that are trained on besides the training clips where `data.refit` is this; none by default."""
    return REFIT.get(str(refit), ())


@dataclass(frozen=True)
class Filters:
    """What a clip must be; None lets everything pass.

    Attributes:
        soundfont: One or several of the dataset's soundfonts.
        augmentation_preset: One or several of its recording conditions.
        skill_tier: One or several of its skill tiers.
        tempo_min: Beats per minute, inclusive.
        tempo_max: Beats per minute, inclusive.
    """

    soundfont: tuple[str, ...] | None = None
    augmentation_preset: tuple[str, ...] | None = None
    skill_tier: tuple[str, ...] | None = None
    tempo_min: float | None = None
    tempo_max: float | None = None

    def active(self) -> dict[str, object]:
        """Those filters that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that pass.

        Raises:
            DataError: A value that no clip has, or a column that this dataset lacks.
        """
        keep = np.ones(len(table), dtype=bool)
        for name in NAME_FILTERS:
            wanted = getattr(self, name)
            if wanted is not None:
                keep &= table[name].isin(_spelt(table, name, wanted)).to_numpy()
        tempo = table["tempo_bpm"].to_numpy(dtype=np.float64)
        if self.tempo_min is not None or self.tempo_max is not None:
            if np.isnan(tempo).all():
                raise DataError("This dataset tells no tempo: data.tempo_min and data.tempo_max can't be used.")
            low, high = self.tempo_min or 0.0, np.inf if self.tempo_max is None else self.tempo_max
            within = (tempo >= low) & (tempo <= high)
            keep &= within
            if not within.any():
                raise DataError(
                    f"No clip has a tempo from {low:g} to {high:g}: this dataset's go from {np.nanmin(tempo):g} to "
                    f"{np.nanmax(tempo):g} (data.tempo_min, data.tempo_max)."
                )
        return table[keep]


def name_list(key: str, value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """A filter's name or names.

    Raises:
        ConfigError: Anything else.
    """
    if value is None:
        return None
    values = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not values or not all(isinstance(item, str) and item for item in values):
        raise ConfigError(f"data.{key}={value} can't be: it must be a name or a list of names.")
    return values


def _spelt(table: pd.DataFrame, name: str, wanted: Sequence[str]) -> list[str]:
    """The dataset's own spelling of each wanted value; case doesn't matter."""
    present = sorted(set(table[name].tolist()))
    if present == [UNKNOWN]:
        raise DataError(f"This dataset tells no {name}: data.{name} can't be used.")
    spelling = {value.lower(): value for value in present}
    for value in wanted:
        if value.lower() not in spelling:
            near = difflib.get_close_matches(value.lower(), list(spelling), n=1)
            hint = f"did you mean {spelling[near[0]]}? " if near else ""
            raise DataError(f"No clip has data.{name}={value}: {hint}There are: {', '.join(present)}.")
    return [spelling[value.lower()] for value in wanted]


def order(texts: Sequence[str], seed: int) -> np.ndarray:
    """(texts,) uint64: a number for each text that looks random and depends on text and seed alone."""
    start = hashlib.blake2b(str(seed).encode(), digest_size=8)
    numbers = bytearray()
    for text in texts:
        state = start.copy()
        state.update(text.encode())
        numbers += state.digest()
    return np.frombuffer(bytes(numbers), dtype="<u8")


def _order_of(values: Sequence[str], seed: int) -> np.ndarray:
    """(values,) `order`'s number for each of many values of which few differ."""
    unique = sorted(set(values))
    numbers = dict(zip(unique, order(unique, seed), strict=True))
    return np.array([numbers[value] for value in values], dtype=np.uint64)


def choose(split: pd.DataFrame, count: int | None, seed: int, by_shard: bool = False) -> pd.DataFrame:
    """`count` clips of one split, as equal over classes as it goes; a smaller choice lies within a larger one.

    Clips are numbered within their class by hash; the choice takes all first ones, then all second ones, and so on. A
    class that runs out leaves its places to the others.

    Args:
        split: Clips of one split.
        count: How many; None or more than there are: all.
        seed: `data.subset_seed`.
        by_shard: Number the clips shard by shard, so that a subset needs few of them.
    """
    if count is None or count >= len(split):
        return split
    klass = _order_of(split["class"].tolist(), seed)
    by_class = np.lexsort((*_clip_order(split, seed, by_shard), klass))
    starts = np.r_[0, np.flatnonzero(np.diff(klass[by_class])) + 1]
    rank = np.empty(len(split), dtype=np.int64)
    rank[by_class] = np.arange(len(split)) - np.repeat(starts, np.diff(np.r_[starts, len(split)]))
    return split.iloc[np.lexsort((klass, rank))[:count]]


def choose_per_class(split: pd.DataFrame, count: int | None, seed: int, by_shard: bool = False) -> pd.DataFrame:
    """The first `count` clips of each class in the order of `choose`; a smaller choice lies within a larger one.

    Where clips have several labels, a clip that is among the first of one class counts for its other classes too, which
    may so have more than `count`; clips without a label are taken for a class of their own.

    Args:
        split: Clips of one split.
        count: How many of each class; None: all.
        seed: `data.subset_seed`.
        by_shard: See `choose`.
    """
    if count is None:
        return split
    hashed = np.lexsort(_clip_order(split, seed, by_shard))
    labels = pd.Series(split["label"].to_numpy()[hashed], index=hashed).explode()
    rank = labels.groupby(labels, dropna=False, sort=False).cumcount()
    return split.iloc[np.unique(rank.index[rank < count])]


def _clip_order(split: pd.DataFrame, seed: int, by_shard: bool) -> list[np.ndarray]:
    """What clips of one class are sorted by, the most important last, as `np.lexsort` wants it."""
    keys = [order(split["sample_id"].tolist(), seed)]
    return [*keys, _order_of(split["shard"].tolist(), seed)] if by_shard else keys


def parse_fold(fold: str | None) -> tuple[int, int] | None:
    """`"2/5"` → (2, 5).

    Raises:
        ConfigError: Anything else.
    """
    if fold is None:
        return None
    parts = str(fold).split("/")
    if len(parts) == 2 and all(part.strip().isdigit() for part in parts):
        k, n = int(parts[0]), int(parts[1])
        if n >= 3 and 1 <= k <= n:
            return k, n
    raise ConfigError(
        f"data.fold={fold} can't be: it is k/n, the k-th of n folds, with n at least 3 and k from 1 to n, such as 1/5."
    )


def _players(table: pd.DataFrame, least: int, what: str) -> list[str]:
    """Players so that neighbours are of one skill tier, and otherwise in hashed order."""
    tiers = dict(zip(table["group"].tolist(), table["skill_tier"].tolist(), strict=True))
    names = sorted(tiers)
    if len(names) < least:
        raise DataError(f"{what} needs at least {least} players; there are {len(names)}: {', '.join(names[:5])}.")
    if len(names) == len(table) > 1:
        raise DataError(f"{what} splits by player, and this dataset doesn't tell which clips are whose.")
    hashes = dict(zip(names, order(names, 0), strict=True))
    return sorted(names, key=lambda name: (tiers[name], hashes[name]))


def fold_splits(table: pd.DataFrame, k: int, n: int) -> pd.DataFrame:
    """Cross-validation by player: fold k is the test split, the next fold validation, the rest training.

    Raises:
        DataError: Fewer players than folds.
    """
    players = _players(table, n, f"data.fold={k}/{n}")
    role = {k - 1: "test", k % n: "val"}
    of_player = {player: role.get(i % n, "train") for i, player in enumerate(players)}
    return _with_splits(table, of_player)


def resplit(table: pd.DataFrame) -> pd.DataFrame:
    """New splits by player in SOUSA's own proportions, each skill tier spread over all three.

    Raises:
        DataError: Fewer than three players.
    """
    players = _players(table, 3, "data.resplit=true")
    counts = dict.fromkeys(SPLITS, 0)
    of_player: dict[str, str] = {}
    for i, player in enumerate(players):
        empty = [split for split in SPLITS if not counts[split]]
        behind = empty if len(players) - i == len(empty) else SPLITS
        split = max(behind, key=lambda name: SHARES[name] * (i + 1) - counts[name])
        counts[split] += 1
        of_player[player] = split
    return _with_splits(table, of_player)


def _with_splits(table: pd.DataFrame, of_player: Mapping[str, str]) -> pd.DataFrame:
    return table.assign(split=[of_player[player] for player in table["group"].tolist()])


def refuse_unlabelled(table: pd.DataFrame, split: str, way_out: str) -> None:
    """Some clip that a split scores must have a label, where clips may have several or none.

    Args:
        table: The split's clips, `label` a tuple of numbers.
        split: Its name.
        way_out: What can be done, as a sentence.

    Raises:
        DataError: None has one.
    """
    if len(table) and not table["label"].map(bool).any():
        raise DataError(f"No clip of the {split} split ({len(table):,} clips) has a label to score by. {way_out}")


def refuse_empty(table: pd.DataFrame, why: str, splits: Sequence[str] = SPLITS) -> None:
    """Each of some splits must hold a clip.

    Raises:
        DataError: One doesn't.
    """
    held = Counter(table["split"].tolist())
    empty = [split for split in splits if not held[split]]
    if empty:
        counts = ", ".join(f"{split} {held[split]:,}" for split in SPLITS)
        raise DataError(f"The {' and '.join(empty)} split is empty ({counts}). {why}")
