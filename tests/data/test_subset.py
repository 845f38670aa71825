"""Subsets, filters, folds."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from noise_data import data, rows

from sousa_bench.data import SPLITS
from sousa_bench.data.sources.source import standard_table
from sousa_bench.data.subset import choose, fold_splits, order, parse_fold, resplit
from sousa_bench.errors import ConfigError, DataError


def table(players: int = 10, clips: int = 3, rudiments: int = 40) -> pd.DataFrame:
    frame = rows(players, rudiments, clips)
    return standard_table(frame.assign(player=frame["profile_id"], split="train"), "labels")


def test_a_subset_is_stratified_and_independent_of_row_order() -> None:
    whole = table()
    part = choose(whole, 100, seed=0)
    counts = Counter(part["class"])
    assert len(part) == 100
    assert len(counts) == 40
    assert max(counts.values()) - min(counts.values()) <= 1
    shuffled = choose(whole.sample(frac=1, random_state=1), 100, seed=0)
    assert set(shuffled["sample_id"]) == set(part["sample_id"])
    assert set(choose(whole, 100, seed=1)["sample_id"]) != set(part["sample_id"])


def test_subsets_are_nested() -> None:
    whole = table()
    sizes = [set(choose(whole, count, seed=0)["sample_id"]) for count in (7, 80, 100, 777)]
    for smaller, larger in itertools.pairwise(sizes):
        assert smaller < larger


def test_a_class_that_runs_out_leaves_its_places_to_others() -> None:
    whole = table(rudiments=4)
    scarce = whole[(whole["label"] != 0) | (np.arange(len(whole)) < 2)]
    counts = Counter(choose(scarce, 62, seed=0)["label"])
    assert counts[0] <= 2
    assert sum(counts.values()) == 62
    assert max(counts.values()) - min(n for label, n in counts.items() if label) <= 1


def test_hashes_are_the_same_in_every_process() -> None:
    """Python's own hash differs from process to process; these numbers mustn't, on any machine."""
    names = ["beg003_flam_168bpm", "ä", ""]
    code = "from sousa_bench.data.subset import order; print(order(['beg003_flam_168bpm', 'ä', ''], 7).tolist())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(order(names, 7).tolist())
    assert order(["beg003_flam_168bpm"], 0).tolist() == [9944225108600564493]


def test_folds_are_a_partition_by_player() -> None:
    whole = table(players=10)
    tested: list[str] = []
    for k in range(1, 6):
        split = fold_splits(whole, k, 5)
        players = {name: set(split.loc[split["split"] == name, "group"]) for name in SPLITS}
        assert sum(map(len, players.values())) == len(set.union(*players.values())) == 10
        assert len(players["test"]) == len(players["val"]) == 2
        tested += players["test"]
    assert sorted(tested) == sorted(set(whole["group"]))


def test_resplit_keeps_players_whole_and_sousas_shares() -> None:
    whole = table(players=100, clips=1, rudiments=2)
    split = resplit(whole)
    players = split.groupby("split")["group"].nunique()
    assert split.groupby("group")["split"].nunique().max() == 1
    assert players.to_dict() == {"train": 68, "val": 13, "test": 19}
    assert split[split["split"] == "test"]["skill_tier"].nunique() == 4
    assert resplit(table(players=3)).groupby("split")["group"].nunique().to_dict() == dict.fromkeys(SPLITS, 1)


def test_too_few_players() -> None:
    with pytest.raises(DataError, match=r"data\.resplit=true needs at least 3 players; there are 2"):
        resplit(table(players=2))
    with pytest.raises(DataError, match=r"data\.fold=1/5 needs at least 5 players; there are 4"):
        fold_splits(table(players=4), 1, 5)


@pytest.mark.parametrize("fold", ["5", "0/5", "6/5", "1/2", "a/b", "1/5/2", "1.5/5"])
def test_impossible_folds(fold: str) -> None:
    with pytest.raises(ConfigError, match="k/n"):
        parse_fold(fold)


def test_filters_choose(generator: Path) -> None:
    made = data(generator, skill_tier=["beginner", "Intermediate"], tempo_min=70, tempo_max=110)
    made.prepare([16_000])
    for split in SPLITS:
        part = made.rows(split)
        assert set(part["skill_tier"]) <= {"beginner", "intermediate"}
        assert part["tempo_bpm"].between(70, 110).all()
    assert made.describe()["filters"]["tempo_max"] == 110


def test_a_filter_value_that_does_not_occur(generator: Path) -> None:
    with pytest.raises(DataError, match=r"soundfont=FluidR3: did you mean FluidR3_GM\? There are: Arachno, FluidR3"):
        data(generator, soundfont="FluidR3").prepare([16_000])
    with pytest.raises(DataError, match="No clip has a tempo from 200 to inf: this dataset's go from 60 to 110"):
        data(generator, tempo_min=200).prepare([16_000])


def test_filters_that_empty_a_split_are_named(generator: Path) -> None:
    with pytest.raises(DataError, match=r"val split is empty.*data\.skill_tier"):
        data(generator, skill_tier="intermediate").prepare([16_000])


def test_fold_through_the_data(generator: Path) -> None:
    tested = set()
    for k in (1, 2, 3):
        made = data(generator, fold=f"{k}/3")
        made.prepare([16_000])
        assert made.describe()["players"] == {"train": 2, "val": 2, "test": 2}
        tested |= set(made.rows("test")["group"])
    assert len(tested) == 6
