"""`data.per_class`: training subsets of so many clips a class, each within the next larger one."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from noise_data import data

from sousa_bench.data.subset import choose_per_class
from sousa_bench.errors import ConfigError


def chosen(root: Path, **more):
    made = data(root, clips={}, **more)
    table = made.chosen()
    return made, {split: set(table.loc[table["split"] == split, "sample_id"]) for split in ("train", "val", "test")}


def test_subsets_are_nested_and_leave_the_other_splits(generator: Path) -> None:
    made = {count: chosen(generator, per_class=count) for count in (1, 2, 3, "all", None)}
    clips = {count: splits["train"] for count, (_, splits) in made.items()}
    assert clips[1] < clips[2] < clips[3] < clips["all"] == clips[None]
    for count in (1, 2, 3):
        held = Counter(made[count][0].chosen().query("split == 'train'")["class"])
        assert set(held.values()) == {count}
        assert len(held) == 40
    for split in ("val", "test"):
        assert len({frozenset(splits[split]) for _, splits in made.values()}) == 1
    assert chosen(generator, per_class=1, subset_seed=1)[1]["train"] != clips[1]


def test_runs_of_one_curve_share_their_base(generator: Path) -> None:
    whole, few, fewer = (chosen(generator, per_class=count)[0] for count in ("all", 2, 1))
    assert len({each.fingerprint for each in (whole, few, fewer)}) == 3
    assert len({each.test_fingerprint for each in (whole, few, fewer)}) == 1
    assert few.base_fingerprint == fewer.base_fingerprint == whole.fingerprint
    assert data(generator, clips={}).fingerprint == whole.fingerprint


def test_a_class_with_fewer_clips_is_a_fact_in_the_result(generator: Path) -> None:
    made = data(generator, clips={}, per_class=5)
    made.prepare([16_000])
    assert any("data.per_class=5: 40 of 40 classes have fewer training clips" in line for line in made.warnings)
    assert made.describe()["base_fingerprint"] == data(generator, clips={}).fingerprint


def test_clips_of_several_labels_are_among_the_first_of_one() -> None:
    labels = [(0,), (0, 1), (1, 2), (2,), (), (0, 2), (), (1,)]
    table = pd.DataFrame({"sample_id": [f"clip{i}" for i in range(8)], "label": labels, "class": "x", "shard": ""})
    sizes = [choose_per_class(table, count, seed=0) for count in (1, 2, 3, 9)]
    for smaller, larger in itertools.pairwise(sizes):
        assert set(smaller["sample_id"]) <= set(larger["sample_id"])
    for count, part in zip((1, 2, 3), sizes, strict=False):
        held = Counter(number for numbers in part["label"] for number in numbers)
        assert all(held[number] >= min(count, 4) for number in (0, 1, 2))
        assert sum(not numbers for numbers in part["label"]) == min(count, 2)
    assert len(sizes[-1]) == 8
    assert len(sizes[0]) < 5


@pytest.mark.parametrize("value", [0, -1, 1.5, "some", True])
def test_an_impossible_number_is_refused(generator: Path, value) -> None:
    with pytest.raises(ConfigError, match=r"data\.per_class=.* must be a number of training clips of each class"):
        chosen(generator, per_class=value)
