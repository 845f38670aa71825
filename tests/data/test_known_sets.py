"""Known data sets, written as their makers hand them out: splits and folds as given, classes in the official order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from known_layouts import (
    WRITERS,
    made_up,
    put,
    write_ast_json,
    write_esc50,
    write_fsd50k,
    write_labelled_hub,
    write_speech_commands,
    write_urbansound8k,
)

from sousa_bench.data import SPLITS, SousaData
from sousa_bench.errors import ConfigError, DataError


def data(root: Path, **more: Any) -> SousaData:
    return SousaData(name="folder", root=str(root), **more)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """60 clips: three classes, four speakers, five takes."""
    return made_up(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def tagged(clips: pd.DataFrame) -> pd.DataFrame:
    """The same with two labels on every other clip."""
    more = ["" if i % 2 else ",loud" for i in range(len(clips))]
    return clips.assign(label=clips["label"] + more)


def ids(made: SousaData) -> dict[str, set[str]]:
    chosen = made.chosen()
    return {split: set(chosen["sample_id"][chosen["split"] == split]) for split in SPLITS}


@pytest.mark.parametrize(
    ("write", "count", "below"),
    [
        (write_esc50, 5, lambda row: f"audio/{row.filename}"),
        (write_urbansound8k, 10, lambda row: f"audio/fold{row.fold}/{row.slice_file_name}"),
    ],
)
def test_each_fold_gets_exactly_its_files(clips: pd.DataFrame, tmp_path: Path, write, count: int, below) -> None:
    table = write(tmp_path, clips)
    files = pd.Series([below(row) for row in table.itertuples()])
    for k in range(1, count + 1):
        found = ids(data(tmp_path, fold=f"{k}/{count}"))
        validates = k % count + 1
        assert found["test"] == set(files[table["fold"] == k])
        assert found["val"] == set(files[table["fold"] == validates])
        assert found["train"] == set(files[~table["fold"].isin([k, validates])])


@pytest.mark.parametrize("write", [write_esc50, write_urbansound8k])
def test_given_folds_are_never_mixed_anew(clips: pd.DataFrame, tmp_path: Path, write) -> None:
    write(tmp_path, clips)
    with pytest.raises(ConfigError, match=r"data\.fold=1/4: these data come in (5|10) folds .*data\.fold=k/(5|10)"):
        data(tmp_path, fold="1/4").chosen()
    task = data(tmp_path, fold="1/5" if write is write_esc50 else "1/10").task
    assert task.classes == ("c", "b", "a")  # by number, not by name
    assert task.group == "recording"


def test_urbansound8k_start_and_end_cut_nothing(clips: pd.DataFrame, tmp_path: Path) -> None:
    write_urbansound8k(tmp_path, clips)
    made = data(tmp_path)
    made.prepare([8_000])
    assert set(made.waveforms("test", 8_000).lengths) == {960}


def test_speech_commands(clips: pd.DataFrame, tmp_path: Path) -> None:
    names = np.array(write_speech_commands(tmp_path, clips))
    made = data(tmp_path)
    made.prepare([8_000])
    assert made.describe()["source"] == "Speech Commands"
    assert ids(made) == {split: set(names[clips["split"] == split]) for split in SPLITS}
    assert made.task.classes == ("a", "b", "c")
    assert made.task.group == "speaker"
    assert set(made.rows("test")["group"]) == {"s3"}
    assert made.warnings == []


def test_fsd50k(tagged: pd.DataFrame, tmp_path: Path) -> None:
    table = write_fsd50k(tmp_path, tagged)
    made = data(tmp_path)
    made.prepare([8_000])
    where = tagged["split"].map({"train": "dev", "val": "dev", "test": "eval"})
    files = [f"FSD50K.{part}_audio/{name}.wav" for part, name in zip(where, table["fname"], strict=True)]
    assert ids(made) == {split: set(np.array(files)[tagged["split"] == split]) for split in SPLITS}
    assert made.task.several
    assert made.task.classes == ("loud", "c", "b", "a")  # the vocabulary's order
    assert made.task.group == "uploader"
    labels = dict(zip(files, tagged["label"], strict=True))
    for row in made.rows("test").itertuples():
        assert {made.task.classes[number] for number in row.label} == set(labels[row.sample_id].split(","))


def test_fsd50k_without_its_metadata_has_no_groups(tagged: pd.DataFrame, tmp_path: Path) -> None:
    write_fsd50k(tmp_path, tagged)
    shutil.rmtree(tmp_path / "FSD50K.metadata")
    made = data(tmp_path)
    assert not made.task.grouped


def test_audioset_json(tagged: pd.DataFrame, tmp_path: Path) -> None:
    table = write_ast_json(tmp_path, tagged)
    made = data(tmp_path)
    made.prepare([8_000])
    assert ids(made) == {split: set(table["file_name"][tagged["split"] == split]) for split in SPLITS}
    assert made.task.several
    assert made.task.classes == ("/m/00", "/m/01", "/m/02", "/m/03")
    assert [made.task.display(name) for name in made.task.classes] == ["loud", "c", "b", "a"]
    moved = data(Path(shutil.copytree(tmp_path, tmp_path.with_name("moved"))))
    with pytest.raises(DataError, match="leads out of the folder"):  # the paths of val are absolute
        moved.prepare([8_000])


def test_audioset_json_of_one_label_a_clip(clips: pd.DataFrame, tmp_path: Path) -> None:
    write_ast_json(tmp_path, clips)
    task = data(tmp_path).task
    assert not task.several
    assert task.classes == ("/m/00", "/m/01", "/m/02")


@pytest.mark.parametrize("several", [False, True])
def test_a_labelled_dataset_of_the_hub(
    clips: pd.DataFrame, tagged: pd.DataFrame, tmp_path: Path, several: bool
) -> None:
    table = tagged if several else clips
    known = write_labelled_hub(tmp_path, table)
    made = data(tmp_path)
    made.prepare([8_000])
    assert made.task.classes == tuple(known)
    assert made.task.several is several
    assert made.task.group == "speaker"
    names = np.array([f"{c.speaker}_{c.take}_{c.label}.wav" for c in table.itertuples()])
    assert ids(made) == {split: set(names[table["split"] == split]) for split in SPLITS}
    labels = dict(zip(names, table["label"], strict=True))
    for row in made.rows("val").itertuples():
        numbers = row.label if several else (row.label,)
        assert {known[number] for number in numbers} == set(labels[row.sample_id].split(","))
    again = data(tmp_path)  # from the list that is kept
    assert again.task == made.task
    assert again.fingerprint == made.fingerprint


def test_one_label_column_of_many_is_named(clips: pd.DataFrame, tmp_path: Path) -> None:
    """Of a hub's dataset that tells several things of a clip."""
    write_labelled_hub(tmp_path, clips)
    assert data(tmp_path, columns={"label": "speaker_id", "group": False}).task.classes == ("s0", "s1", "s2", "s3")
    with pytest.raises(ConfigError, match=r"data\.columns\.label=speaker: .*no such column.*speaker_id"):
        data(tmp_path, columns={"label": "speaker"}).chosen()


@pytest.mark.parametrize("layout", [name for name in WRITERS if name != "hub Parquet"])
def test_a_file_that_is_not_there(clips: pd.DataFrame, tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, clips)
    gone = sorted(data(tmp_path).chosen()["sample_id"][data(tmp_path).chosen()["split"] == "test"])[0]
    (tmp_path / gone).unlink()
    with pytest.raises(DataError, match=f"{gone} is missing.*data.on_bad_clip=skip"):
        data(tmp_path).prepare([8_000])
    skipping = data(tmp_path, on_bad_clip="skip")
    skipping.prepare([8_000])
    assert list(skipping.describe()["skipped"]["clips"]) == [gone]


@pytest.mark.parametrize("write", [write_esc50, write_urbansound8k])
def test_a_fold_that_is_not_there(clips: pd.DataFrame, tmp_path: Path, write) -> None:
    write(tmp_path, clips)
    path = next(tmp_path.glob("meta*/*.csv"))
    table = pd.read_csv(path)
    table[table["fold"] != 3].to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"{path.name}: fold 3 is missing\. There are \d+ folds"):
        data(tmp_path).chosen()


def test_a_class_with_two_numbers(clips: pd.DataFrame, tmp_path: Path) -> None:
    table = write_esc50(tmp_path, clips)
    table.loc[7, "target"] = 9
    table.to_csv(tmp_path / "meta" / "esc50.csv", index=False)
    with pytest.raises(DataError, match=rf"esc50\.csv: the class {table['category'][7]} is both"):
        data(tmp_path).chosen()


def test_a_label_out_of_the_vocabulary(tagged: pd.DataFrame, tmp_path: Path) -> None:
    write_fsd50k(tmp_path / "fsd", tagged)
    path = tmp_path / "fsd" / "FSD50K.ground_truth" / "eval.csv"
    path.write_text(path.read_text().replace("loud", "laud"))
    with pytest.raises(
        DataError,
        match=r"label 'laud' \(FSD50K\.eval_audio/\d+\.wav\) is not among the classes of FSD50K.ground_truth.*loud",
    ):
        data(tmp_path / "fsd").chosen()
    write_ast_json(tmp_path / "ast", tagged)
    path = tmp_path / "ast" / "datafiles" / "eval_data.json"
    path.write_text(path.read_text().replace("/m/00", "/m/09"))
    with pytest.raises(DataError, match=r"label '/m/09' \(audio/.*\.wav\) is not among"):
        data(tmp_path / "ast").chosen()


def test_a_number_without_a_name_in_the_hubs_schema(clips: pd.DataFrame, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_labelled_hub(tmp_path, clips)
    path = tmp_path / "data" / "test-00000-of-00002.parquet"
    content = pq.read_table(path)
    column = content.schema.get_field_index("label")
    pq.write_table(content.set_column(column, "label", [[7] * len(content)]), path)
    with pytest.raises(DataError, match=r"test-00000-of-00002\.parquet: the label 7 has no name"):
        data(tmp_path).chosen()


def test_a_table_that_is_not_there_or_lacks_a_column(tagged: pd.DataFrame, tmp_path: Path) -> None:
    write_fsd50k(tmp_path, tagged)
    path = tmp_path / "FSD50K.ground_truth" / "eval.csv"
    pd.read_csv(path).drop(columns="labels").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"eval\.csv has no column 'labels'"):
        data(tmp_path).chosen()
    path.unlink()
    with pytest.raises(DataError, match=r"eval\.csv is missing"):
        data(tmp_path).chosen()


def test_speech_commands_with_a_file_of_another_name(clips: pd.DataFrame, tmp_path: Path) -> None:
    write_speech_commands(tmp_path, clips)
    put(clips["path"].iloc[0], tmp_path, "a/mine.wav")
    with pytest.raises(DataError, match=r"a/mine\.wav is not called WORD/SPEAKER_nohash_NUMBER\.wav"):
        data(tmp_path).chosen()


def test_a_clip_in_two_lists(clips: pd.DataFrame, tagged: pd.DataFrame, tmp_path: Path) -> None:
    write_speech_commands(tmp_path / "words", clips)
    words = tmp_path / "words"
    first = (words / "validation_list.txt").read_text().splitlines()[0]
    with (words / "testing_list.txt").open("a") as file:
        file.write(f"{first}\n")
    with pytest.raises(DataError, match=f"{first} stands in both validation_list.txt and testing_list.txt"):
        data(words).chosen()
    write_ast_json(tmp_path / "ast", tagged)
    lists = tmp_path / "ast" / "datafiles"
    shutil.copy(lists / "eval_data.json", lists / "train_more.json")
    with pytest.raises(DataError, match=r"stands in eval_data\.json and train_more\.json"):
        data(tmp_path / "ast").chosen()


@pytest.mark.parametrize(
    "content",
    ['{"clips": []}', '{"data": [{"wav": "a.wav"}]}', "[", pytest.param("[" * 200_000, id="deep"), '{"data": []}'],
)
def test_json_of_another_form(tagged: pd.DataFrame, tmp_path: Path, content: str) -> None:
    write_ast_json(tmp_path, tagged)
    (tmp_path / "datafiles" / "eval_data.json").write_text(content)
    with pytest.raises(DataError):
        data(tmp_path).chosen()


def test_a_speaker_in_two_splits_is_warned_of(clips: pd.DataFrame, tmp_path: Path) -> None:
    leaking = clips.assign(
        speaker=clips["speaker"].replace("s3", "s0"), take=clips["take"] + 10 * (clips["speaker"] == "s3")
    )
    write_speech_commands(tmp_path, leaking)
    made = data(tmp_path)
    made.prepare([8_000])
    assert any("1 speaker with clips in both train and test (s0)" in warning for warning in made.warnings)


def test_parts_of_a_rows_audio(clips: pd.DataFrame, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_labelled_hub(tmp_path, clips)
    for path in (tmp_path / "data").glob("*.parquet"):
        content = pq.read_table(path)
        content = content.append_column("onset", pa.array([0.0] * len(content)))
        pq.write_table(content.append_column("offset", pa.array([0.11] * len(content))), path)
    made = data(tmp_path)
    made.prepare([8_000])
    assert set(made.waveforms("test", 8_000).lengths) == {880}
    whole = data(tmp_path, columns={"onset": False, "offset": False})
    whole.prepare([8_000])
    assert set(whole.waveforms("test", 8_000).lengths) == {960}
    assert whole.fingerprint != made.fingerprint


def test_keys_that_a_layout_does_not_know(hub: Path, clips: pd.DataFrame, tmp_path: Path) -> None:
    write_esc50(tmp_path / "esc", clips)
    with pytest.raises(ConfigError, match=r"data\.columns\.group=take can't be: .* holds ESC-50"):
        data(tmp_path / "esc", columns={"group": "take"}).chosen()
    assert not data(tmp_path / "esc", columns={"group": False}).task.grouped
    with pytest.raises(ConfigError, match=r"data\.columns is for data of any task, and .* holds SOUSA"):
        data(hub, columns={"label": "skill_tier"}).chosen()
    write_labelled_hub(tmp_path / "hub", clips)
    with pytest.raises(ConfigError, match=r"data\.group_pattern=x has no bracket"):
        data(tmp_path / "hub", group_pattern="x").chosen()


def test_audio_that_is_called_the_same_in_every_row(clips: pd.DataFrame, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_labelled_hub(tmp_path, clips)
    for path in (tmp_path / "data").glob("*.parquet"):
        content = pq.read_table(path)
        speakers = content["speaker_id"].to_pylist()
        pq.write_table(content.append_column("path", pa.array([f"x_{who}.wav" for who in speakers])), path)
    made = data(tmp_path, columns={"group": False}, group_pattern="_(s[0-9])")
    assert len(made.chosen()) == len(clips)
    assert set(made.chosen()["group"]) == {"s0", "s1", "s2", "s3"}
