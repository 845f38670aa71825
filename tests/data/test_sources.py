"""The three layouts, and what is said when a folder holds none of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from noise_data import data, noise, rows, write_audio, write_hub, write_labels

from sousa_bench.data import SPLITS
from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.data.sources.find_source import find_source
from sousa_bench.data.sources.hub import HubRepository
from sousa_bench.data.sources.source import COLUMNS, standard_table
from sousa_bench.errors import DataError


def test_generator_folder(generator: Path) -> None:
    made = data(generator)
    made.prepare([16_000, 32_000])
    assert made.describe()["counts"] == {"train": 160, "val": 40, "test": 40}
    assert made.describe()["players"] == {"train": 4, "val": 1, "test": 1}
    assert made.warnings == []
    table = made.rows("test")
    assert tuple(table.columns) == COLUMNS
    assert list(table["sample_id"]) == sorted(table["sample_id"])
    assert [RUDIMENTS[label] for label in table["label"]] == list(table["class"])
    assert set(table["group"]) == {"player-005"}
    assert set(table["tempo_bpm"]) == {110.0}


def test_waveforms_are_the_files(generator: Path) -> None:
    """Row by row the waveform is that of the file which the labels name, at half scale and to the resampler's error."""
    import soundfile as sf
    import soxr

    made = data(generator)
    made.prepare([16_000, 44_100])
    labels = pd.read_parquet(generator / "labels" / "samples.parquet").set_index("sample_id")
    store = made.waveforms("val", 44_100)
    resampled = made.waveforms("val", 16_000)
    for i, name in enumerate(made.rows("val")["sample_id"]):
        audio, rate = sf.read(generator / labels.loc[name, "audio_path"])
        mono = audio.mean(axis=1)
        assert store.lengths[i] == len(store.read(i)) == len(mono)
        np.testing.assert_allclose(store.read(i) / 32768, mono, atol=1 / 32768)
        np.testing.assert_allclose(resampled.read(i) / 32768, soxr.resample(mono, rate, 16_000), atol=2 / 32768)


def test_the_same_clips_in_every_layout(generator: Path, tmp_path: Path) -> None:
    """Tables and waveforms don't depend on the layout."""
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    write_hub(tmp_path / "hub", labels)
    old = tmp_path / "old"
    shutil.copytree(generator / "audio", old / "audio")
    splits = {"player-004": "validation", "player-005": "test"}
    csv = labels.assign(
        split=[splits.get(player, "train") for player in labels["profile_id"]],
        rudiment_slug=[slug.replace("_", "-") for slug in labels["rudiment_slug"]],
    )
    csv.sample(frac=1, random_state=3).to_csv(old / "metadata.csv", index=False)
    first, *others = [data(root) for root in (generator, tmp_path / "hub", old)]
    first.prepare([16_000])
    for other in others:
        other.prepare([16_000])
        assert other.warnings == []
        for split in SPLITS:
            pd.testing.assert_frame_equal(first.rows(split), other.rows(split))
        ours, theirs = first.waveforms("test", 16_000), other.waveforms("test", 16_000)
        for i in range(len(ours)):
            np.testing.assert_allclose(ours.read(i), theirs.read(i), atol=2)  # the hub copy here is 16-bit


def test_metadata_csv_with_the_least_columns(tmp_path: Path) -> None:
    """Players come from the generator's ids; what isn't told is unknown, and filters on it are refused."""
    table = rows(rudiments=4)
    write_audio(tmp_path, table)
    split = {4: "val", 5: "test"}
    few = table[["sample_id", "rudiment_slug", "audio_path"]]
    few.assign(split=[split.get(i // 4, "train") for i in range(24)]).to_csv(tmp_path / "metadata.csv", index=False)
    made = data(tmp_path)
    made.prepare([16_000])
    assert made.describe()["players"] == {"train": 4, "val": 1, "test": 1}
    assert set(made.rows("train")["soundfont"]) == {"unknown"}
    assert made.rows("train")["tempo_bpm"].isna().all()
    assert any("beginning of sample_id" in warning for warning in made.warnings)
    with pytest.raises(DataError, match="tells no soundfont"):
        data(tmp_path, soundfont="FluidR3_GM").prepare([16_000])
    with pytest.raises(DataError, match="tells no tempo"):
        data(tmp_path, tempo_max=100).prepare([16_000])


def test_metadata_csv_without_any_player(tmp_path: Path) -> None:
    """Each clip is a player of its own, which is said, and splitting by player is refused."""
    table = rows(players=3, rudiments=3)
    table["sample_id"] = [f"clip{i}" for i in range(9)]
    write_audio(tmp_path, table)
    few = table[["sample_id", "rudiment_slug", "audio_path"]].assign(split=["train", "dev", "test"] * 3)
    few.to_csv(tmp_path / "metadata.csv", index=False)
    made = data(tmp_path)
    made.prepare([16_000])
    assert made.describe()["players"] == {"train": 3, "val": 3, "test": 3}
    assert any("player of its own" in warning for warning in made.warnings)
    with pytest.raises(DataError, match="doesn't tell which clips are whose"):
        data(tmp_path, resplit=True).prepare([16_000])


def test_a_player_in_train_and_test_is_told(tmp_path: Path) -> None:
    table = rows(players=3, rudiments=3)
    write_audio(tmp_path, table)
    table.assign(split=["train", "val", "test"] * 3).to_csv(tmp_path / "metadata.csv", index=False)
    made = data(tmp_path)
    made.prepare([16_000])
    told = [warning for warning in made.warnings if "in both" in warning]
    pairs = ("train and val", "train and test", "val and test")
    assert len(told) == 3
    assert all(f"3 players with clips in both {pair}" in warning for pair, warning in zip(pairs, told, strict=True))
    again = data(tmp_path, resplit=True)
    again.prepare([16_000])
    assert not any("in both" in warning for warning in again.warnings)


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_player_in_any_two_splits_is_told(tmp_path: Path, first: str, second: str) -> None:
    table = rows(players=4, rudiments=2)
    write_audio(tmp_path, table)
    splits = ["train", "train", "val", "val", "test", "test", first, second]
    table.assign(split=splits).to_csv(tmp_path / "metadata.csv", index=False)
    made = data(tmp_path)
    made.prepare([16_000])
    told = [warning for warning in made.warnings if "in both" in warning]
    assert len(told) == 1
    assert told[0].startswith(f"1 player with clips in both {first} and {second} (player-003)")


def test_metadata_csv_clips_without_a_split_are_told(tmp_path: Path) -> None:
    table = rows(players=4, rudiments=3)
    write_audio(tmp_path, table)
    splits = [*["train"] * 3, *["val"] * 3, *["test"] * 3, None, None, "train"]
    table.assign(split=splits).to_csv(tmp_path / "metadata.csv", index=False)
    made = data(tmp_path)
    made.prepare([16_000])
    assert made.describe()["counts"] == {"train": 4, "val": 3, "test": 3}
    assert [warning for warning in made.warnings if "without a split" in warning] == [
        "2 clips of 1 player (player-003) without a split: not used; data.resplit=true uses all clips"
    ]
    everything = data(tmp_path, resplit=True)
    everything.prepare([16_000])
    assert sum(everything.describe()["counts"].values()) == 12
    assert not any("without a split" in warning for warning in everything.warnings)


def test_hub_subset_reads_few_shards(tmp_path: Path) -> None:
    """With `fewest` a subset comes from one shard where one will do; with `all` from every shard."""
    write_hub(tmp_path, rows(players=8, rudiments=5, clips=2), shards=4)
    small = {"train": 5, "val": 1, "test": 1}
    few, spread = (data(tmp_path, clips=small, shards=kind) for kind in ("fewest", "all"))
    chosen = few._chosen[few._chosen["split"] == "train"]
    everywhere = spread._chosen[spread._chosen["split"] == "train"]
    assert chosen["class"].nunique() == 5
    assert chosen["shard"].nunique() < everywhere["shard"].nunique()
    few.prepare([16_000])
    assert few.describe()["counts"] == small


def test_hub_folder_with_a_shard_missing_says_so(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub, tmp_path / "part")
    (tmp_path / "part" / "audio" / "train-00001-of-00002.parquet").unlink()
    made = data(tmp_path / "part")
    made.prepare([16_000])
    assert any("1 of the 2 train shards" in warning for warning in made.warnings)


def test_hub_audio_as_a_file_beside_the_shard(tmp_path: Path) -> None:
    """A row may name a file where it holds no bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile as sf

    table = rows(players=3, rudiments=1).drop(columns="audio_path")
    for i, split in enumerate(("train", "validation", "test")):
        sf.write(tmp_path / f"{i}.flac", noise(seed=i), 44_100)
        content = pa.Table.from_pandas(table.iloc[i : i + 1], preserve_index=False)
        content = content.append_column("audio", pa.array([{"bytes": None, "path": f"{i}.flac"}]))
        pq.write_table(content, tmp_path / f"{split}-00000-of-00001.parquet")
    made = data(tmp_path)
    made.prepare([16_000])
    assert made.waveforms("test", 16_000).lengths[0] == round(0.12 * 16_000)


def test_sousa_root_variable(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUSA_ROOT", str(generator))
    made = data(None, hub_id="zkeown/sousa")
    made.prepare([16_000])
    assert made.describe()["place"] == str(generator)


def test_the_variable_is_not_read_where_the_hub_id_names_other_data(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUSA_ROOT", str(generator))
    found = find_source(None, "someone/birds", None, tmp_path)
    assert (type(found), found.place) == (HubRepository, "hub dataset someone/birds")
    assert find_source(None, None, None, tmp_path).place == str(generator)


def test_no_such_folder_names_what_is_near(generator: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*sousaa.*no such folder.* sousa"):
        data(generator.with_name("sousaa")).prepare([16_000])


def test_hub_id_as_root_names_the_right_key() -> None:
    with pytest.raises(DataError, match=r"data\.hub_id=zkeown/sousa"):
        data(Path("zkeown/sousa")).prepare([16_000])


def test_a_folder_in_none_of_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    with pytest.raises(DataError, match=r"labels/samples\.parquet.*metadata\.csv.*train-\*\.parquet.*holds cache, wav"):
        data(tmp_path).prepare([16_000])


def test_the_folder_above_is_corrected(generator: Path) -> None:
    with pytest.raises(DataError, match=f"Did you mean {generator}"):
        data(generator.parent).prepare([16_000])


def test_unknown_slug(generator: Path) -> None:
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    labels.loc[3, "rudiment_slug"] = "flamacu"
    labels.to_parquet(generator / "labels" / "samples.parquet")
    with pytest.raises(DataError, match=f"{labels['sample_id'][3]}.*'flamacu'.*flamacue"):
        data(generator).prepare([16_000])


def test_a_sample_id_twice(generator: Path) -> None:
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    labels.loc[3, "sample_id"] = labels.loc[4, "sample_id"]
    write_labels(generator, labels)
    with pytest.raises(DataError, match=f"{labels['sample_id'][4]}.*more than once"):
        data(generator).prepare([16_000])


def test_labels_that_are_no_parquet(generator: Path) -> None:
    (generator / "labels" / "samples.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"samples\.parquet can't be read as Parquet"):
        data(generator).prepare([16_000])


def test_a_cut_shard(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub, tmp_path / "cut")
    shard = tmp_path / "cut" / "audio" / "test-00000-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"test-00000-of-00002\.parquet can't be read.*download it again"):
        data(tmp_path / "cut").prepare([16_000])


def test_an_empty_split_offers_resplit(generator: Path) -> None:
    """The public generator writes such a file for 10 players."""
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    players = sorted(set(labels["profile_id"]))
    write_labels(generator, labels, {"train": players[:5], "val": [], "test": players[5:]})
    with pytest.raises(DataError, match=r"val split is empty \(train 200, val 0, test 40\).*data\.resplit=true"):
        data(generator).prepare([16_000])
    made = data(generator, resplit=True)
    made.prepare([16_000])
    assert all(made.describe()["counts"].values())
    assert sum(made.describe()["players"].values()) == 6
    assert made.describe()["distinct_players"] == 6


def test_no_splits_at_all_offers_resplit(generator: Path) -> None:
    (generator / "splits.json").unlink()
    with pytest.raises(DataError, match=r"names no splits: data\.resplit=true"):
        data(generator).prepare([16_000])
    data(generator, resplit=True).prepare([16_000])


def test_a_player_in_two_splits_is_refused(generator: Path) -> None:
    content = json.loads((generator / "splits.json").read_text())
    content["test_profile_ids"].append(content["train_profile_ids"][0])
    (generator / "splits.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="player-000 into both train and test"):
        data(generator).prepare([16_000])


def test_a_player_in_no_split_is_told(generator: Path) -> None:
    content = json.loads((generator / "splits.json").read_text())
    content["train_profile_ids"].remove("player-001")
    (generator / "splits.json").write_text(json.dumps(content))
    made = data(generator)
    made.prepare([16_000])
    assert made.describe()["counts"]["train"] == 120
    assert any("40 clips of 1 player (player-001) without a split" in warning for warning in made.warnings)
    everything = data(generator, fold="1/3")
    everything.prepare([16_000])
    assert not any("without a split" in warning for warning in everything.warnings)


def csv_folder(root: Path, **columns: object) -> Path:
    """Nine clips of three players, `columns` in place of theirs, in the metadata.csv layout."""
    table = rows(players=3, rudiments=3).rename(columns={"profile_id": "player"})
    write_audio(root, table)
    table.assign(**{"split": ["train"] * 3 + ["val"] * 3 + ["test"] * 3, **columns}).to_csv(
        root / "metadata.csv", index=False
    )
    return root


def test_text_stays_text(tmp_path: Path) -> None:
    """Only an empty cell is missing: players, clips and soundfonts may be called NA or 007."""
    players = ["NA"] * 3 + ["null"] * 3 + ["None", "nan", "007"]
    ids = ["NA", "null", "None", "nan", "NaN", "n/a", "<NA>", "NULL", "001"]
    fonts = ["NA", "", "nan", "None", "x", "y", "z", "1", "01"]
    made = data(csv_folder(tmp_path, player=players, sample_id=ids, soundfont=fonts))
    made.prepare([16_000])
    tables = pd.concat([made.rows(split) for split in SPLITS]).set_index("sample_id").loc[ids]
    assert list(tables["group"]) == players
    assert list(tables["soundfont"]) == [font or "unknown" for font in fonts]
    assert not any("names no players" in warning for warning in made.warnings)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = csv_folder(tmp_path) / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    data(tmp_path).prepare([16_000])


def test_a_byte_order_mark_in_splits_json(generator: Path) -> None:
    path = generator / "splits.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    data(generator).prepare([16_000])


@pytest.mark.parametrize(
    "encode", [lambda t: t.replace("audio/", "audio\0/", 1).encode(), lambda t: t.encode("utf-16")]
)
def test_nul_bytes_in_a_csv_file(tmp_path: Path, encode) -> None:
    path = csv_folder(tmp_path) / "metadata.csv"
    path.write_bytes(encode(path.read_text()))
    with pytest.raises(DataError, match=r"metadata\.csv can't be read as CSV \(it holds NUL bytes; save it as UTF-8\)"):
        data(tmp_path).prepare([16_000])


def test_line_ends_of_all_kinds_in_one_table(tmp_path: Path) -> None:
    path = csv_folder(tmp_path) / "metadata.csv"
    head, *lines = path.read_text().splitlines()
    path.write_bytes(f"{head}\r\n{lines[0]}\n{lines[1]}\r\n".encode() + "\n\r\n".join(lines[2:]).encode())
    made = data(tmp_path)
    made.prepare([16_000])
    assert sum(made.describe()["counts"].values()) == len(lines)


def test_names_that_differ_in_case_or_in_unicodes_form_alone_stay_apart(tmp_path: Path) -> None:
    players = ["zoë", "zoë", "Zoë", "a", "A", "ａ", "b", "B", "b "]
    made = data(csv_folder(tmp_path, player=players, sample_id=[f"{name}!" for name in players]))
    made.prepare([16_000])
    assert sorted(pd.concat([made.rows(split) for split in SPLITS])["sample_id"]) == sorted(f"{p}!" for p in players)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("sample_id", [[1], [2]]),
        ("rudiment_slug", [1.5, float("nan")]),
        ("audio_path", [3, 4]),
        ("profile_id", [{"a": 1}, {"a": 2}]),
    ],
)
def test_a_column_of_another_type_is_one_message(generator: Path, column: str, values: list) -> None:
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    labels[column] = [values[i % 2] for i in range(len(labels))]
    labels.to_parquet(generator / "labels" / "samples.parquet")
    with pytest.raises(DataError, match=rf"samples\.parquet|column '{column}' holds lists or objects"):
        data(generator).prepare([16_000])


def test_splits_of_ten_thousand_levels_are_one_message(generator: Path) -> None:
    (generator / "splits.json").write_text("[" * 10_000 + "]" * 10_000)
    with pytest.raises(DataError, match=r"splits\.json can't be read \(maximum recursion"):
        data(generator).prepare([16_000])


@pytest.mark.parametrize("value", [None, "", "audio/a\0b.flac"])
def test_a_path_that_names_no_file(generator: Path, value: str | None) -> None:
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    labels["audio_path"] = [value if i == 3 else path for i, path in enumerate(labels["audio_path"])]
    write_labels(generator, labels)
    with pytest.raises(DataError, match=rf"row 4 \({labels['sample_id'][3]}\): audio_path is .*, which names no file"):
        data(generator).prepare([16_000])


def test_a_late_duplicate_is_found_in_one_pass() -> None:
    ids = [f"clip{i}" for i in range(200_000)] + ["clip199999"]
    frame = pd.DataFrame({"sample_id": ids, "rudiment_slug": "flam", "player": "p"})
    start = time.monotonic()
    with pytest.raises(DataError, match="sample_id 'clip199999' more than once"):
        standard_table(frame, "table")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("skip", [False, True])
def test_a_pipe_among_the_clips_is_refused_unopened(generator: Path, skip: bool) -> None:
    path = next((generator / "audio" / "flam").glob("*.flac"))
    path.unlink()
    os.mkfifo(path)
    made = data(generator, on_bad_clip="skip" if skip else "error")
    assert made.fingerprint
    if skip:
        made.prepare([16_000])
        assert list(made.describe()["skipped"]["clips"].values()) == ["is no regular file"]
    else:
        with pytest.raises(DataError, match=rf"{path.name} is no regular file"):
            made.prepare([16_000])


@pytest.mark.parametrize("name", ["labels/samples.parquet", "splits.json", "metadata.csv", "train-0-of-1.parquet"])
def test_a_pipe_as_a_table_is_refused_unopened(generator: Path, tmp_path: Path, name: str) -> None:
    root = generator if name == "splits.json" else tmp_path / "new"
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    with pytest.raises(DataError, match=rf"{name} is no regular file"):
        data(root).prepare([16_000])


@pytest.mark.parametrize("way", ["..", "absolute", "link", "folder"])
def test_clips_outside_of_the_folder_are_refused(generator: Path, tmp_path: Path, way: str) -> None:
    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    path = generator / labels["audio_path"][3]
    private = tmp_path / "private"
    private.mkdir()
    moved = path.rename(private / path.name)
    if way == "link":
        path.symlink_to(moved)
    elif way == "folder":
        (generator / "more").symlink_to(private)
    where = {"..": f"../private/{path.name}", "absolute": str(moved), "folder": f"more/{path.name}"}
    labels.loc[3, "audio_path"] = where.get(way, labels["audio_path"][3])
    write_labels(generator, labels)
    with pytest.raises(DataError, match=r"samples\.parquet, row 4: audio_path '.*' leads out of the folder"):
        data(generator, on_bad_clip="skip").prepare([16_000])


def test_audio_beside_a_shard_stays_below_its_folder(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile as sf

    sf.write(tmp_path / "secret.flac", noise(), 44_100)
    (tmp_path / "set").mkdir()
    for split in ("train", "validation", "test"):
        content = pa.Table.from_pandas(rows(players=1, rudiments=1).drop(columns="audio_path"), preserve_index=False)
        content = content.append_column("audio", pa.array([{"bytes": None, "path": "../secret.flac"}]))
        content = content.set_column(0, "sample_id", pa.array([split]))
        pq.write_table(content, tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"parquet row 0: the audio's path '\.\./secret\.flac' leads out of"):
        data(tmp_path / "set").prepare([16_000])


def test_a_linked_root_links_within_it_and_a_snapshot_of_the_hub_are_read(generator: Path, tmp_path: Path) -> None:
    (generator / "audio").rename(generator / "files")
    (generator / "audio").symlink_to("files")
    (tmp_path / "link").symlink_to(generator)
    data(tmp_path / "link").prepare([16_000])
    repository = tmp_path / "datasets--zkeown--sousa"
    snapshot = repository / "snapshots" / "0123abcd"
    (repository / "blobs").mkdir(parents=True)
    shutil.copytree(tmp_path / "link", snapshot)
    for i, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        blob = path.rename(repository / "blobs" / str(i))
        path.symlink_to(os.path.relpath(blob, path.parent))
    data(snapshot).prepare([16_000])
