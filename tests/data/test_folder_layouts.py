"""Sounds of any task: class folders, and tables beside the sounds."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import soundfile as sf
from noise_data import data, noise

from sousa_bench.data import SPLITS, SousaData

BIRDS = ("finch", "owl", "wren")


def write_sounds(root: Path, names: list[str]) -> None:
    """A tenth of a second of noise in each file."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / name, noise(seed=seed, rate=8_000, channels=1), 8_000)


def folder(root: Path, **values: object) -> SousaData:
    return data(root, **{"name": "folder", "clips": {}} | values)


def by_split(made: SousaData) -> dict[str, set[str]]:
    """The clips of each split."""
    chosen = made.chosen()
    return {split: set(chosen.loc[chosen["split"] == split, "sample_id"]) for split in SPLITS}


def test_class_folders_by_split(tmp_path: Path) -> None:
    """Folders named in any usual spelling of a split, any audio suffix, nested; the classes are the folders' names."""
    files = [
        f"{split}/{bird}/{name}"
        for split in ("training", "dev", "eval")
        for bird in BIRDS
        for name in ("a.wav", "b.flac", "deep/er/c.ogg")
    ]
    root = tmp_path / "birds"
    write_sounds(root, files)
    made = folder(root)
    made.prepare([16_000])
    assert made.task.classes == BIRDS
    assert (made.task.noun, made.task.group, made.task.several) == ("class", "clip", False)
    assert by_split(made) == {
        split: {name for name in files if name.startswith(there)}
        for split, there in (("train", "training"), ("val", "dev"), ("test", "eval"))
    }
    assert made.understood == {
        "layout": "class folders",
        "label": "the folder's name",
        "split": "given",
        "group": "none: each clip stands for itself",
    }
    assert made.describe()["understood"] == made.understood
    assert any("each clip stands for itself" in warning for warning in made.warnings)


def test_class_folders_without_splits(tmp_path: Path) -> None:
    """Each class is spread over all three splits, and another seed spreads it otherwise."""
    root = tmp_path / "birds"
    write_sounds(root, [f"{bird}/{i}.wav" for bird in BIRDS for i in range(20)])
    first, again, other = folder(root), folder(root), folder(root, subset_seed=1)
    assert by_split(first) == by_split(again) != by_split(other)
    for made in (first, other):
        counts = made.chosen().groupby(["split", "class"]).size()
        assert {split: set(counts[split]) for split in SPLITS} == {"train": {14}, "val": {2}, "test": {4}}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_beside_the_sounds(tmp_path: Path, suffix: str) -> None:
    """The same clips from each kind of table, columns by their usual names in any case."""
    root = tmp_path / "birds"
    names = [f"wav/{bird}_{site}_{i}.wav" for bird in BIRDS for site in "abcdef" for i in range(2)]
    write_sounds(root, names)
    parts = [Path(name).stem.split("_") for name in names]
    table = pd.DataFrame({"Filename": names, "Category": [part[0] for part in parts]})
    table["Site_ID"] = [part[1] for part in parts]
    if suffix == "parquet":
        table.to_parquet(root / "metadata.parquet")
    elif suffix == "jsonl":
        rows = [json.dumps(row) for row in table.to_dict("records")]
        (root / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    else:
        table.to_csv(root / f"metadata.{suffix}", index=False, sep="\t" if suffix == "tsv" else ",")
    made = folder(root, columns={"group": "site_id"})
    made.prepare([16_000])
    assert made.task.classes == BIRDS
    assert made.task.group == "site"
    assert made.understood["label"] == "Category"
    assert made.understood["group"] == "Site_ID"
    chosen = made.chosen()
    assert set(chosen["sample_id"]) == set(names)
    assert (chosen["group"] == [Path(name).stem.split("_")[1] for name in chosen["sample_id"]]).all()
    groups = [set(part["group"]) for _, part in chosen.groupby("split")]
    assert sum(map(len, groups)) == 6
    assert set.union(*groups) == set("abcdef")
