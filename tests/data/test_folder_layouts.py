"""Sounds of any task: class folders, and tables beside the sounds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from noise_data import data, noise

from sousa_bench.data import SPLITS, SousaData
from sousa_bench.errors import ConfigError
from sousa_bench.inspection.inspect_data import main

BIRDS = ("finch", "owl", "wren")
PATTERN_NAMES = (("", ""), ("", "?P<nest_id>"))


def write_sounds(root: Path, names: list[str]) -> None:
    """A tenth of a second of noise in each file."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / name, noise(seed=seed, rate=8_000, channels=1), 8_000)


def folder(root: Path, **values: object) -> SousaData:
    return data(root, **({"name": "folder", "clips": {}} | values))


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
        assert counts.unstack().notna().all().all()
        assert counts["train"].between(13, 14).all()
        assert counts["test"].between(3, 5).all()


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


def test_a_table_in_each_splits_folder(tmp_path: Path) -> None:
    """The layout of the hub's audiofolder: names count from the folder that the table lies in."""
    root = tmp_path / "birds"
    for split in ("train", "validation", "test"):
        names = [f"{i}.wav" for i in range(3)]
        write_sounds(root / split, names)
        pd.DataFrame({"file_name": names, "label": BIRDS}).to_csv(root / split / "metadata.csv", index=False)
    made = folder(root)
    made.prepare([16_000])
    assert made.describe()["counts"] == {"train": 3, "val": 3, "test": 3}
    assert made.understood["split"] == "given"
    assert "validation/2.wav" in by_split(made)["val"]
    anew = folder(root, columns={"split": False}, resplit=True)
    assert "given" not in anew.understood["split"]


def table_folder(root: Path, table: pd.DataFrame) -> Path:
    """A folder with `metadata.csv` and the sounds that it names."""
    root.mkdir(parents=True, exist_ok=True)
    write_sounds(root, sorted(set(table["file_name"])))
    table.to_csv(root / "metadata.csv", index=False)
    return root


def birds(clips: int = 36, **columns: object) -> pd.DataFrame:
    """Clips of three birds by turns, from nine sites by turns of three."""
    table = pd.DataFrame({"file_name": [f"{i}_{'abcdefghi'[i // 3 % 9]}_.wav" for i in range(clips)]})
    table["label"] = [BIRDS[i % 3] for i in range(clips)]
    return table.assign(**columns)


def test_given_folds_are_kept(tmp_path: Path) -> None:
    """Fold k tests, the next validates, the rest train; without data.fold the first tests, which is said."""
    table = birds(fold=[1 + i // 3 % 4 for i in range(36)])
    root = table_folder(tmp_path / "birds", table)
    fold_of = dict(zip(table["file_name"], table["fold"], strict=True))
    for k in range(1, 5):
        made = folder(root, fold=f"{k}/4")
        folds = {split: {fold_of[name] for name in names} for split, names in by_split(made).items()}
        assert folds == {"test": {k}, "val": {k % 4 + 1}, "train": {1, 2, 3, 4} - {k, k % 4 + 1}}
        assert sum(map(len, by_split(made).values())) == 36
    unasked = folder(root)
    assert by_split(unasked) == by_split(folder(root, fold="1/4"))
    assert unasked.understood["split"] == "the folds that are given: 1 tests, 2 validates (data.fold=k/4)"
    with pytest.raises(ConfigError, match=r"data\.fold=1/5: these data come in 4 folds .* Give data\.fold=k/4"):
        folder(root, fold="1/5").chosen()


def test_folds_by_group(tmp_path: Path) -> None:
    """Each group tests once, whole."""
    root = table_folder(tmp_path / "birds", birds())
    tested = []
    for k in range(1, 4):
        made = folder(root, group_pattern="_([a-z])_", fold=f"{k}/3")
        chosen = made.chosen()
        groups = {split: set(chosen.loc[chosen["split"] == split, "group"]) for split in SPLITS}
        assert sum(map(len, groups.values())) == 9
        tested += sorted(groups["test"])
        assert set(chosen.loc[chosen["split"] == "test", "class"]) == set(BIRDS)
    assert sorted(tested) == list("abcdefghi")
    assert made.task.group == "group"


def test_groups_of_one_class_are_spread_by_class(tmp_path: Path) -> None:
    """A bird sings its own species: each species is in each split, no bird in two."""
    table = birds(clips=90, bird_id=[f"{i % 3}-{i // 9}" for i in range(90)])
    made = folder(table_folder(tmp_path / "birds", table), columns={"group": "bird_id"})
    assert made.task.group == "bird"
    chosen = made.chosen()
    assert (chosen.groupby("group")["split"].nunique() == 1).all()
    assert (chosen.groupby("split")["class"].nunique() == 3).all()
    made.prepare([16_000])
    assert made.warnings == []


def test_validation_is_taken_from_train(tmp_path: Path) -> None:
    table = birds(split=["test" if i // 3 % 9 > 6 else "training" for i in range(36)])
    table["speaker"] = [name.split("_")[1] for name in table["file_name"]]
    made = folder(table_folder(tmp_path / "birds", table))
    chosen = made.chosen()
    assert set(chosen.loc[chosen["split"] == "test", "group"]) == {"h", "i"}
    assert (chosen.groupby("group")["split"].nunique() == 1).all()
    assert chosen.loc[chosen["split"] == "val", "group"].nunique() == 2
    assert made.understood["split"].startswith("train and test given; val taken from train by speaker")


def test_a_clip_may_be_a_part_of_a_recording(tmp_path: Path) -> None:
    """Its samples are that part's, whatever other part of the file is in the cache; the recording is its group."""
    root = tmp_path / "birds"
    root.mkdir()
    rate = 16_000
    recordings = {f"{name}.wav": noise(3, rate, 1, seed) for seed, name in enumerate("abc")}
    for name, samples in recordings.items():
        sf.write(root / name, samples, rate, subtype="PCM_16")
    table = pd.DataFrame({"wav": sorted(recordings) * 3, "onset": [0, 0, 0, 0.5, 0.5, 0.5, 2, 2, 2]})
    table["offset"] = [0.25, 0.25, 0.25, 1.5, 1.5, 1.5, None, None, None]
    table["label"] = [*["finch"] * 3, *["owl"] * 3, *["wren"] * 3]
    table.to_csv(root / "metadata.csv", index=False)
    made = folder(root, max_duration=0.75)
    made.prepare([rate])
    assert made.task.group == "recording"
    assert set(made.chosen()["sample_id"]) >= {"a.wav@0-0.25", "a.wav@0.5-1.5", "a.wav@2-"}
    for split in SPLITS:
        store = made.waveforms(split, rate)
        for row, sample_id in enumerate(made.rows(split)["sample_id"]):
            name, _, part = sample_id.partition("@")
            begin, end = (float(second or 3) for second in part.split("-"))
            expected = recordings[name][round(begin * rate) : round(min(end, begin + 0.75) * rate), 0]
            np.testing.assert_allclose(store.read(row) / 32768, expected, atol=1 / 32768)
    moved = folder(root, max_duration=0.75)
    assert moved.fingerprint == made.fingerprint
    table.assign(onset=table["onset"] + 0.01, sample_id=[f"x{i}" for i in range(9)]).to_csv(
        root / "metadata.csv", index=False
    )
    one = folder(root).fingerprint
    table.assign(sample_id=[f"x{i}" for i in range(9)]).to_csv(root / "metadata.csv", index=False)
    assert folder(root).fingerprint != one


def test_several_labels(tmp_path: Path) -> None:
    """Commas, semicolons or lists; a clip may have none."""
    cells = ["owl,finch", "wren", "", "owl", "finch,wren,owl", "wren,owl"] * 6
    texts = birds().drop(columns="label").assign(labels=cells)
    root = table_folder(tmp_path / "birds", texts)
    made = folder(root)
    made.prepare([16_000])
    assert made.task.several
    assert made.task.classes == BIRDS
    rows = pd.concat([made.rows(split) for split in SPLITS]).set_index("sample_id")
    expected = {"owl,finch": (0, 1), "wren": (2,), "": (), "owl": (1,), "finch,wren,owl": (0, 1, 2), "wren,owl": (1, 2)}
    assert [rows["label"][name] for name in texts["file_name"]] == [expected[cell] for cell in cells]
    assert any("6 clips have none of the labels" in warning for warning in made.warnings)
    records = [
        {"file_name": name, "labels": cell.split(",") if cell else []}
        for name, cell in zip(texts["file_name"], cells, strict=True)
    ]
    (root / "metadata.csv").unlink()
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert folder(root).fingerprint == made.fingerprint


def test_the_classes_and_their_order(tmp_path: Path) -> None:
    """Numbers in their order, or as asked for. Where a folder lies doesn't count, the order of classes does."""
    root = table_folder(tmp_path / "birds", birds(label=[str(i % 12) for i in range(36)]))
    made = folder(root)
    assert made.task.classes == tuple(map(str, range(12)))
    backwards = folder(root, classes=[*map(str, reversed(range(12)))])
    assert backwards.task.classes[0] == "11"
    assert backwards.fingerprint != made.fingerprint
    moved = root.rename(tmp_path / "moved")
    assert folder(moved).fingerprint == made.fingerprint
    table = pd.read_csv(moved / "metadata.csv", dtype=str)
    table.assign(file_name=[f"{moved}/{name}" for name in table["file_name"]]).to_csv(
        moved / "metadata.csv", index=False
    )
    assert folder(moved).fingerprint == made.fingerprint


def test_a_choice_made_for_sousa_reads_any_folder(tmp_path: Path, generator: Path) -> None:
    """The folder says what it is: data=tiny draws 1,000 clips of the birds at most, data=folder reads SOUSA."""
    root = table_folder(tmp_path / "birds", birds())
    assert data(root, clips={"train": 5}).chosen()["split"].value_counts()["train"] == 5
    sousa = folder(generator)
    sousa.prepare([16_000])
    assert sousa.task.noun == "rudiment"
    assert sousa.understood == {}
    assert "understood" not in sousa.describe()
    with pytest.raises(ConfigError, match=r"data\.classes is for data of any task, and .*generator folder"):
        folder(generator, classes=["a", "b"]).chosen()
    with pytest.raises(
        ConfigError, match=r"data=folder makes its own clips and their labels: leave data\.group_pattern"
    ):
        SousaData("folder", synthetic={"clips": 40}, group_pattern="(x)").check()


OWN_LAYOUT = """
import pandas as pd

from sousa_bench.data.sources.labelled_folder import LabelledFolder


class Nests(LabelledFolder):
    layout = "nests"
    labels = "nests.txt"

    def read(self):
        lines = [line.split() for line in (self.root / self.labels).read_text().splitlines()]
        self.taken = {"group": "nest"}
        return pd.DataFrame(lines, columns=["file_name", "label", "group"])
"""


def test_a_layout_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class with one method has groups, splits and the cache like any other."""
    (tmp_path / "bird_layouts.py").write_text(OWN_LAYOUT)
    monkeypatch.syspath_prepend(tmp_path)
    root = table_folder(tmp_path / "birds", birds())
    lines = [f"{name} {BIRDS[i % 3]} {'abcdef'[i // 6]}" for i, name in enumerate(birds()["file_name"])]
    (root / "nests.txt").write_text("\n".join(lines))
    made = folder(root, layout="bird_layouts.Nests")
    made.prepare([16_000])
    assert made.task.group == "nest"
    assert made.describe()["groups"] == {"train": 4, "val": 1, "test": 1}
    assert made.describe()["distinct_groups"] == 6
    assert made.warnings == []


def test_a_pattern_needs_no_second_pair_of_quotes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell takes the quotes away, and the pattern is read all the same."""
    root = table_folder(tmp_path / "birds", birds())
    pattern = r"data.group_pattern=^\d+_([a-z]+)_"
    assert main(["data=folder", f"data.root={root}", pattern, "--json", "--no-listen"]) == 0
    assert json.loads(capsys.readouterr().out)["understood"]["group"].startswith(f"{pattern} in the file's name (")


def test_a_brackets_name_is_what_groups_are_called(tmp_path: Path) -> None:
    """The bracket with a name is the group's, wherever it stands; without one, groups are groups."""
    root = table_folder(tmp_path / "birds", birds())
    plain, named = (folder(root, group_pattern=f"({first}[0-9]+)_({name}[a-z])_") for first, name in PATTERN_NAMES)
    assert (plain.task.group, named.task.group) == ("group", "nest")
    assert set(plain.chosen()["group"]) == {file.split("_")[0] for file in birds()["file_name"]}
    assert set(named.chosen()["group"]) == {file.split("_")[1] for file in birds()["file_name"]}
    assert "9 nests: a, b, c, …" in named.understood["group"]
    with pytest.raises(ConfigError, match=r"finds no owl in '"):
        folder(root, group_pattern="(?P<owl_id>[A-Z]+)_").chosen()


def test_commas_at_the_ends_of_rows_shift_no_column(tmp_path: Path) -> None:
    root = tmp_path / "birds"
    names = [f"{i}.wav" for i in range(12)]
    write_sounds(root, names)
    lines = ["file_name,label", *(f"{name},{BIRDS[i % 3]}," for i, name in enumerate(names))]
    (root / "metadata.csv").write_text("\n".join(lines))
    made = folder(root)
    assert set(made.chosen()["sample_id"]) == set(names)
    assert made.task.classes == BIRDS


def test_parts_that_begin_a_hundredth_apart_are_two_clips(tmp_path: Path) -> None:
    """Ten hours into a recording, too."""
    root = tmp_path / "nights"
    names = [f"{i}.wav" for i in range(6)]
    write_sounds(root, names)
    table = pd.DataFrame({"file_name": names * 2, "label": BIRDS * 4, "onset": [36000.12] * 6 + [36000.14] * 6})
    table.to_csv(root / "metadata.csv", index=False)
    ids = set(folder(root).chosen()["sample_id"])
    assert ids == {f"{name}@36000.1{digit}-" for name in names for digit in (2, 4)}


@pytest.mark.slow
def test_many_files_are_listed_in_one_pass(tmp_path: Path) -> None:
    """20,000 clips in 40 classes; 500,000 take less than a minute and 1 GB."""
    root = tmp_path / "birds"
    for bird in range(40):
        (root / f"{bird:02d}").mkdir(parents=True)
        for clip in range(500):
            (root / f"{bird:02d}" / f"{clip}.wav").touch()
    begin = time.monotonic()
    made = folder(root)
    assert len(made.chosen()) == 20_000
    assert made.fingerprint
    assert time.monotonic() - begin < 20
