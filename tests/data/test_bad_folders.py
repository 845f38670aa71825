"""Folders of any task that can't be used: one message that names the thing and the way out, before any training."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import soundfile as sf
from noise_data import data, noise

from sousa_bench.data.sources.audio_files import files_below
from sousa_bench.errors import DataError
from sousa_bench.inspection.inspect_data import main
from sousa_bench.training.evaluated_clips import SplitData

BIRDS = ("finch", "owl", "wren")


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Twelve clips of three birds, with sites a to d, beside a `metadata.csv`."""
    root = tmp_path / "birds"
    root.mkdir()
    table = pd.DataFrame({"file_name": [f"{i}_{'abcd'[i // 3]}.wav" for i in range(12)], "label": BIRDS * 4})
    for seed, name in enumerate(table["file_name"]):
        sf.write(root / name, noise(rate=8_000, channels=1, seed=seed), 8_000)
    table.to_csv(root / "metadata.csv", index=False)
    return root


def changed(root: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(root / "metadata.csv")).to_csv(root / "metadata.csv", index=False)


def cell(row: int, column: str, value: object) -> Callable[[Path], None]:
    """A change of one cell."""

    def change(root: Path) -> None:
        table = pd.read_csv(root / "metadata.csv", dtype=object)
        table.loc[row, column] = value
        table.to_csv(root / "metadata.csv", index=False)

    return change


def columns(**values: object) -> Callable[[Path], None]:
    """A change of whole columns."""
    return lambda root: changed(root, lambda table: table.assign(**values))


def as_jsonl(*labels: object, **more: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        names = pd.read_csv(root / "metadata.csv")["file_name"]
        lines = [
            json.dumps({"file_name": name, "label": labels[i % len(labels)], **more}) for i, name in enumerate(names)
        ]
        (root / "metadata.csv").unlink()
        (root / "metadata.jsonl").write_text("\n".join(lines))

    return change


def two_tables(root: Path) -> None:
    (root / "metadata.tsv").write_text((root / "metadata.csv").read_text().replace(",", "\t"))


def twice(root: Path) -> None:
    changed(root, lambda table: pd.concat([table, table.iloc[[4]]]))


BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "label unknown to data.classes": (
        cell(4, "label", "fnich"),
        ["data.classes=[wren,owl,finch]"],
        "The label 'fnich' (4_b.wav) is not among data.classes (near: finch). Add it there, or correct the label",
    ),
    "classes that are one": (lambda _: None, ["data.classes=[owl]"], "data.classes=['owl'] can't be"),
    "file that is not there": (cell(4, "file_name", "4_b.wv"), [], "4_b.wv is missing (there is 4_b.wav)"),
    "two tables": (two_tables, [], "two tables, metadata.csv and metadata.tsv: say which one holds with data.table="),
    "table that is not there": (lambda _: None, ["data.table=metdata.csv"], "no such file in"),
    "path that leaves the folder": (cell(4, "file_name", "../x/4.wav"), [], "'../x/4.wav' leads out of the folder"),
    "empty path": (cell(4, "file_name", None), [], "metadata.csv, row 5: the file's name is"),
    "one class": (columns(label="owl"), [], "metadata.csv holds one class only (owl)"),
    "one group": (
        columns(site="a"),
        ["data.columns.group=site"],
        "needs at least 3 sites; there is 1: a. Give a column 'split', or split clip by clip with data.columns.group=f",
    ),
    "more folds than groups": (
        lambda _: None,
        ["data.fold=1/5", "data.group_pattern=_(.)"],
        "data.fold=1/5 needs at least 5 groups; there are 4: a, b, c, d",
    ),
    "duplicate row": (twice, [], "lists '4_b.wav' twice, in rows 5 and 13: delete one"),
    "file listed under two names": (
        cell(5, "file_name", "./x/../4_b.wav"),
        [],
        "lists '4_b.wav' twice, in rows 5 and 6",
    ),
    "two ways to the group": (lambda _: None, ["data.group_pattern=_(.)", "data.columns.group=x"], "choose one"),
    "list among single labels": (
        as_jsonl("owl", "finch", ["owl", "wren"]),
        [],
        "mixes single and several labels: 0_a.wav has 'owl', 2_a.wav has ['owl', 'wren']",
    ),
    "commas among single labels": (
        cell(4, "label", "owl,wren"),
        [],
        "mixes single and several labels: 4_b.wav has 'owl,wren', and 'owl' is a label by itself",
    ),
    "label and labels": (columns(labels="owl"), [], "say which with data.columns.label=label or data.columns.labels="),
    "no label": (cell(4, "label", None), [], "1 of 12 clips have no label, the first is 4_b.wav"),
    "no column of labels": (
        lambda root: changed(root, lambda table: table.rename(columns={"label": "bird"})),
        [],
        "no column was recognised as the labels; it has: file_name, bird. Name it with data.columns.label=NAME",
    ),
    "column that is not there": (lambda _: None, ["data.columns.group=speker"], "data.columns.group=speker: "),
    "pattern that finds nothing": (
        cell(4, "file_name", "4-b.wav"),
        ["data.group_pattern=_([a-z])"],
        "finds no group in '4-b.wav'",
    ),
    "pattern without a bracket": (lambda _: None, ["data.group_pattern=_[a-z]"], "has no bracket"),
    "pattern that is none": (lambda _: None, ["data.group_pattern=_([a-z"], "is no regular expression"),
    "group missing for one clip": (
        lambda root: [columns(site="a")(root), cell(4, "site", None)(root)],
        ["data.columns.group=site"],
        "1 of 12 clips have no site, the first is 4_b.wav",
    ),
    "unknown split": (columns(split="trian"), [], "names a split 'trian'"),
    "no test": (columns(split=["train"] * 6 + ["val"] * 6), [], "The test split is empty (train 6, val 6, test 0)"),
    "two folds": (columns(fold=[1, 2] * 6), [], "There are 2 folds, and train, val and test need three"),
    "offset without onset": (columns(offset=0.05), [], "says where clips end (offset) and not where they begin"),
    "offset before onset": (
        columns(onset=0.1, offset=0.05),
        [],
        "row 1 (0_a.wav): a clip from onset 0.1 to offset 0.05",
    ),
    "onset that is no number": (columns(onset="now"), [], "row 1 (0_a.wav): onset is 'now', not seconds"),
    "onset beyond all numbers": (
        as_jsonl("owl", "finch", onset=10**400),
        [],
        "row 1 (0_a.wav): onset is 1000",
    ),
    "label that is an object": (
        as_jsonl("owl", {"is": "finch"}),
        [],
        "metadata.jsonl, row 2: label is {'is': 'finch'}, neither text nor number, nor a list of these",
    ),
    "label that is a list of lists": (as_jsonl(["owl"], [["finch"]]), [], "row 2: label is [['finch']], neither text"),
    "group that is a list": (as_jsonl("owl", "finch", speaker=["a"]), [], "row 1: group is ['a'], neither text"),
    "onset that is an object": (as_jsonl("owl", "finch", onset={}), [], "row 1: onset is {}, neither text nor number."),
    "two marks between labels": (
        lambda root: changed(root, lambda t: t.drop(columns="label").assign(labels=["man, speaking;dog", "dog"] * 6)),
        [],
        "labels hold both ',' and ';' ('man, speaking;dog'), so what stands between two labels can't be told",
    ),
    "JSON that is nested too deep": (
        lambda root: (root / "x.jsonl").write_text("[" * 200_000),
        ["data.table=x.jsonl"],
        "x.jsonl can't be read as JSONL",
    ),
    "comma that is not in quotes": (
        lambda root: (root / "x.csv").write_text("file_name,label\n0_a.wav,man,speaking\n"),
        ["data.table=x.csv"],
        "a row holds more cells than there are columns",
    ),
    "table above the folder": (lambda _: None, ["data.table=../x.csv"], "a file below data.root, or null"),
    "table elsewhere": (lambda _: None, ["data.table=/x.csv"], "a file below data.root, or null"),
    "label that colours the terminal": (cell(4, "label", "o\x1b[31mwl"), [], r"holds the label 'o\x1b[31mwl', with"),
    "label that turns the text": (cell(4, "label", "o\u202ewl"), [], r"holds the label 'o\u202ewl', with"),
    "group that clears the terminal": (
        lambda root: [columns(site="a")(root), cell(4, "site", "\x9b2J")(root)],
        ["data.columns.group=site"],
        r"holds the site '\x9b2J', with characters that can't be shown: rename it",
    ),
    "name of a file that can't be shown": (cell(4, "file_name", "4\u2066.wav"), [], r"file's name '4\u2066.wav', with"),
    "sample_id that can't be shown": (columns(sample_id=[f"{i}\a" for i in range(12)]), [], r"sample_id '0\x07', with"),
    "column that can't be shown": (columns(**{"a\x1b": "x"}), [], r"holds the column 'a\x1b', with"),
    "table that is no table": (
        lambda root: (root / "x.txt").write_text("a"),
        ["data.table=x.txt"],
        "a table's name ends in .csv, .tsv, .jsonl, .parquet",
    ),
    "broken line of JSON": (
        lambda root: (root / "x.jsonl").write_text("{"),
        ["data.table=x.jsonl"],
        "x.jsonl can't be read as JSONL",
    ),
    "empty table": (lambda root: (root / "metadata.csv").write_text("file_name,label\n"), [], "names no clips"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused(name: str, birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, words, said = BAD[name]
    spoil(birds)
    code = main(["data=folder", f"data.root={birds}", *words])
    output = capsys.readouterr()
    assert code in (1, 2)
    assert said in output.out + output.err
    assert "Traceback" not in output.out + output.err


def test_a_missing_file_refuses_the_run_before_it_starts(birds: Path) -> None:
    """The fingerprint is what a sweep asks for first."""
    (birds / "4_b.wav").unlink()
    with pytest.raises(DataError, match=r"4_b\.wav is missing"):
        _ = data(birds, clips={}).fingerprint
    skipping = data(birds, clips={}, on_bad_clip="skip")
    assert skipping.fingerprint
    skipping.prepare([16_000])
    assert skipping.describe()["skipped"]["count"] == 1


def sounds(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / name, noise(rate=8_000, channels=1, seed=seed), 8_000)
    return root


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["owl/1.wav", "owl/2.wav"], r"holds no layout that is known.* class folders \(two or more"),
        (["train/owl/1.wav", "test/owl/2.wav"], "holds one class only"),
        (
            ["train/owl/1.wav", "test/owl/2.wav", "more/finch/3.wav"],
            r"like splits \(test, train\) beside others \(more",
        ),
        (["train/owl/1.wav", "test/2.wav"], r"test/2\.wav lies in a split's folder"),
        (["owl/1.wav", "wren/2.wav", "3.wav"], r"3\.wav beside them, whose class nothing tells"),
        (["1.wav", "2.wav"], r"need folders called by their class, or a metadata\.csv"),
        (["pack/owl/1.wav", "pack/wren/2.wav"], r"Did you mean .*/pack\?"),
    ],
)
def test_folders_that_are_no_class_folders(tmp_path: Path, names: list[str], said: str) -> None:
    root = sounds(tmp_path / "birds", *names)
    with pytest.raises(DataError, match=said):
        data(root).chosen()


def test_a_table_of_an_unknown_name_is_offered(birds: Path) -> None:
    (birds / "metadata.csv").rename(birds / "songs.csv")
    with pytest.raises(DataError, match=re.escape("If songs.csv holds the labels: data.table=songs.csv")):
        data(birds).chosen()
    assert len(data(birds, table="songs.csv", clips={}).chosen()) == 12


def test_what_is_no_sound_is_left_out_and_told(tmp_path: Path) -> None:
    """Also a folder whose class is called like a split, and a table that isn't read."""
    root = sounds(tmp_path / "noises", *(f"{name}/{i}.wav" for name in ("train", "siren") for i in range(6)))
    (root / "siren" / "notes.txt").write_text("x")
    (root / "siren" / ".hidden.wav").write_text("x")
    (root / "labels.csv").write_text("x")
    made = data(root, clips={})
    made.prepare([16_000])
    assert made.task.classes == ("siren", "train")
    assert len(made.chosen()) == 12
    assert any("1 file in the class folders left out, since no sound" in warning for warning in made.warnings)
    assert any("labels.csv beside the class folders was not read" in warning for warning in made.warnings)


def test_a_class_with_one_clip_is_told(birds: Path) -> None:
    cell(4, "label", "heron")(birds)
    made = data(birds, clips={})
    made.prepare([16_000])
    assert any("1 of 4 classes have one clip only" in warning and "heron" in warning for warning in made.warnings)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    root = sounds(tmp_path / "birds", "owl/1.wav", "wren/deep/2.wav")
    (root / "wren" / "deep" / "up").symlink_to(root / "wren")
    with pytest.raises(DataError, match=r"wren/deep/up is a link back to .*wren, .* Remove the link"):
        data(root).chosen()


@pytest.mark.parametrize("name", [b"n\xe9st.wav", b"a\nb.wav", b"a\xc2\x9bb.wav", "a\u202eb.wav".encode()])
def test_a_name_that_cant_be_shown_is_refused(tmp_path: Path, name: bytes) -> None:
    root = sounds(tmp_path / "birds", "owl/1.wav", "wren/2.wav")
    Path(os.fsdecode(os.fsencode(root / "owl") + b"/" + name)).touch()
    with pytest.raises(DataError, match="a name with characters that can't be shown: rename it"):
        data(root).chosen()


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    root = sounds(tmp_path / "birds", "owl/1.wav", "wren/2.wav")
    (root / "owl" / "x.wav").symlink_to("x.wav")
    with pytest.raises(DataError, match=r"owl/x\.wav can't be followed .*: remove the link"):
        data(root).chosen()


def test_a_link_that_leads_nowhere_is_a_missing_clip(tmp_path: Path) -> None:
    root = sounds(tmp_path / "birds", *(f"{bird}/{i}.wav" for bird in BIRDS for i in range(4)))
    (root / "owl" / "x.wav").symlink_to("nowhere.wav")
    with pytest.raises(DataError, match=r"owl/x\.wav is missing"):
        _ = data(root).fingerprint


def test_two_links_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    root = sounds(tmp_path / "birds", "owl/1.wav", "wren/2.wav")
    (root / "owl" / "w").symlink_to(root / "wren")
    (root / "wren" / "o").symlink_to(root / "owl")
    with pytest.raises(DataError, match="is a link back to"):
        list(files_below(root))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_any_label_is_refused_before_the_run(split: str, birds: Path) -> None:
    splits = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    labels = ["" if name == split else "owl,wren" for name in splits]
    changed(birds, lambda table: table.drop(columns="label").assign(labels=labels, split=splits))
    said = rf"No clip of the {split} split \(4 clips\) has a label to score by\..*data\.resplit=true"
    with pytest.raises(DataError, match=said):
        _ = data(birds, clips={}).fingerprint
    with pytest.raises(DataError, match=said):
        data(birds, clips={}).prepare([16_000])
    other = {"val": "test", "test": "val"}[split]
    SplitData(other, name="birds", root=str(birds)).prepare([16_000])
    with pytest.raises(DataError, match=rf"No clip of the {split} split .*--split"):
        SplitData(split, name="birds", root=str(birds)).prepare([16_000])
