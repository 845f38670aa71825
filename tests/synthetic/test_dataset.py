"""The folder that the generator writes, and the clips in it."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.data.synthetic import VERSIONS, Generator, describe, write_dataset
from sousa_bench.data.synthetic.__main__ import main
from sousa_bench.data.synthetic.drums import DRUMS, Drum, make_bank
from sousa_bench.data.synthetic.rooms import ROOMS, Room
from sousa_bench.errors import UserError

TEXT = {"sample_id", "profile_id", "rudiment_slug", "skill_tier", "skill_tier_binary", "dominant_hand", "midi_path"}
TEXT |= {"audio_path", "soundfont", "augmentation_preset", "augmentation_group_id", "aug_soundfont", "aug_room_type"}
TEXT |= {"aug_mic_type"}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    write_dataset(folder, 120, seed=5, workers=1)
    return folder


def test_layout_is_sousas(dataset: Path) -> None:
    samples = pd.read_parquet(dataset / "labels" / "samples.parquet")
    strokes = pd.read_parquet(dataset / "labels" / "strokes.parquet")
    splits = json.loads((dataset / "splits.json").read_text())
    assert len(samples) == samples["sample_id"].nunique() == 120
    assert samples["rudiment_slug"].value_counts().to_dict() == dict.fromkeys(RUDIMENTS, 3)
    assert strokes.groupby("sample_id").size().to_dict() == samples.set_index("sample_id")["num_strokes"].to_dict()
    members = [set(splits[f"{name}_profile_ids"]) for name in ("train", "val", "test")]
    assert set.union(*members) == set(samples["profile_id"])
    assert sum(map(len, members)) == len(set.union(*members)) == splits["stats"]["total_profiles"]
    assert not list(dataset.rglob("*.part"))
    assert not (dataset / "labels" / "parts").exists()


def test_columns_have_sousas_types(dataset: Path) -> None:
    schema = pq.read_schema(dataset / "labels" / "samples.parquet")
    assert len(schema.names) == 25
    for field in schema:
        if field.name in TEXT:
            assert field.type == pa.large_string()
    assert schema.field("tempo_bpm").type == pa.int64()
    assert schema.field("aug_bit_depth").type == pa.null()


def test_audio_is_what_the_labels_say(dataset: Path) -> None:
    samples = pd.read_parquet(dataset / "labels" / "samples.parquet")
    for row in samples.iloc[::7].itertuples():
        audio, rate = soundfile.read(dataset / row.audio_path, dtype="int16")
        assert (rate, audio.ndim) == (32000, 1)
        assert len(audio) / rate == pytest.approx(row.duration_sec + 0.5, abs=0.001)
        assert 0.87 < np.abs(audio.astype(float)).max() / 32768 < 0.89


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(dataset: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_dataset(tmp_path / "two", 120, seed=5, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert digest(tmp_path / "two") == digest(dataset)
    assert seen[0] == (0, 120)
    assert seen[-1] == (120, 120)


def test_a_clip_alone_is_the_clip_in_the_set(dataset: Path) -> None:
    clip = Generator(120, seed=5).clip(77)
    row = pd.read_parquet(dataset / "labels" / "samples.parquet").iloc[77]
    assert row["sample_id"] == clip.sample_id
    audio, _ = soundfile.read(dataset / row["audio_path"], dtype="int16")
    np.testing.assert_array_equal(audio, clip.audio)


def test_seeds_differ() -> None:
    one, other = Generator(40, seed=0).clip(0), Generator(40, seed=1).clip(0)
    assert one.player.player_id != other.player.player_id
    assert not np.array_equal(one.audio[:1000], other.audio[:1000]) or len(one.audio) != len(other.audio)


def test_strokes_are_heard_where_the_labels_say() -> None:
    generator = Generator(400, seed=0)
    clip = next(c for c in map(generator.clip, range(400)) if c.rudiment == "triple_stroke_roll" and c.drum == 2)
    audio = np.abs(clip.audio.astype(float))
    accents = clip.performance.strokes[clip.performance.strokes["is_accent"]]
    for time in accents["actual_time_ms"]:
        at = int(time * 32)
        assert audio[at : at + 320].max() > 2 * np.median(audio[max(0, at - 320) : at])


@pytest.mark.parametrize("clips", [1000, 400, 3000])
def test_splits_by_player_balanced_by_class(clips: int) -> None:
    generator = Generator(clips, seed=0)
    places = [generator.place(index) for index in range(clips)]
    players = {name: {number for split, _, number in places if split == name} for name in ("train", "val", "test")}
    assert not players["train"] & players["test"]
    assert not players["train"] & players["val"]
    assert len(players["test"]) >= 20
    for name in players:
        counts = Counter(slug for split, slug, _ in places if split == name)
        assert set(counts.values()) == {len([1 for place in places if place[0] == name]) // 40}
    share = {name: sum(place[0] == name for place in places) / clips for name in players}
    assert share["train"] == pytest.approx(0.68, abs=0.05)
    assert share["test"] == pytest.approx(0.19, abs=0.05)


def test_every_player_plays_many_rudiments() -> None:
    generator = Generator(4000, seed=0)
    played: dict[int, set[str]] = {}
    for index in range(4000):
        _, slug, number = generator.place(index)
        played.setdefault(number, set()).add(slug)
    assert min(map(len, played.values())) >= 20


def sound(thing: Drum | Room) -> tuple[object, ...]:
    """All that is heard of it, whatever it is called."""
    return tuple(value for key, value in vars(thing).items() if key not in ("name", "preset", "room_type"))


def test_domains_share_no_player_drum_or_room() -> None:
    target, source = Generator(40, 0, "target"), Generator(40, 0, "source")
    players = [{g.player(number).player_id for number in range(800)} for g in (target, source)]
    assert not players[0] & players[1]
    assert not {drum.name for drum in DRUMS["target"]} & {drum.name for drum in DRUMS["source"]}
    assert not {room.preset for room in ROOMS["target"]} & {room.preset for room in ROOMS["source"]}
    assert not set(map(sound, DRUMS["target"])) & set(map(sound, DRUMS["source"]))
    assert not set(map(sound, ROOMS["target"])) & set(map(sound, ROOMS["source"]))
    banks = [make_bank(domain, 0).shots for domain in ("target", "source")]
    assert not np.allclose(banks[0], banks[1])


@pytest.mark.slow
def test_source_drums_are_many_and_none_is_as_extreme_as_the_targets() -> None:
    source, target = DRUMS["source"], DRUMS["target"]
    assert len({drum.name for drum in source}) == len(source) == 48
    assert len({room.preset for room in ROOMS["source"]}) == 30
    for key in ("fundamental_hz", "attack", "tone"):
        assert max(getattr(drum, key) for drum in source) < max(getattr(drum, key) for drum in target)
    for index, drum in enumerate(source):
        shots = make_bank("source", index).shots
        assert np.isfinite(shots).all(), drum.name
        assert 1 <= np.abs(shots).max() < 1.5, drum.name


def test_harder_strokes_are_brighter() -> None:
    for index in range(len(DRUMS["target"])):
        power = np.abs(np.fft.rfft(make_bank("target", index).shots[:, 0, 0])) ** 2
        centroid = (power * np.arange(power.shape[1])).sum(1) / power.sum(1)
        assert centroid[-1] > centroid[0]


def test_a_version_names_what_is_played() -> None:
    """Strokes to a microsecond, drum, room and tempo of some clips of each domain: another hash is another version."""
    played = {}
    for domain in ("target", "source"):
        generator, content = Generator(960, seed=3, domain=domain), hashlib.sha256()
        for number in range(0, 960, 120):
            clip = generator.clip(number)
            strokes = pd.DataFrame(clip.performance.strokes).round(3).fillna(-1)
            facts = (clip.rudiment, clip.rhythm, clip.tempo_bpm, clip.drum, clip.room, strokes.to_csv(index=False))
            content.update(repr(facts).encode())
        played[VERSIONS[domain]] = content.hexdigest()[:16]
    assert played == {"2": "daf4e9cef5fdbaf4", "6": "40a1322def85754c"}


def test_description_covers_the_request() -> None:
    base = describe(100, 0, "target")
    assert base == describe(100, 0, "target")
    assert base["version"] == VERSIONS["target"]
    assert json.loads(json.dumps(base)) == base
    others = [describe(101, 0, "target"), describe(100, 1, "target"), describe(100, 0, "source")]
    assert all(other != base for other in others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips": 0}, "0 clips"),
        ({"domain": "moon"}, "'moon'.*'target' and 'source'"),
        ({"seed": -1}, "seed -1"),
        ({"split_players": (5, 0, 5)}, r"\(5, 0, 5\)"),
        ({"split_players": (5, 10**400, 5)}, "of more than 1,000,000 players"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_impossible_requests(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path / "x", **({"clips": 10, "seed": 0} | arguments))  # type: ignore[arg-type]


def test_a_cast_of_test_players_takes_no_clips_from_below_zero() -> None:
    """One player to train and one to validate, as where a leader is confirmed on fresh players."""
    for clips, players in ((480, 58), (1040, 50), (416, 50), (3, 8)):
        generator = Generator(clips, 0, split_players=(1, 1, players))
        assert min(generator.counts) >= 0, (clips, players)
        assert sum(generator.counts) == clips, (clips, players)
        assert Counter(generator.place(index)[0] for index in range(clips)) == Counter(
            dict(zip(("train", "val", "test"), generator.counts, strict=True))
        ), (clips, players)


@pytest.mark.slow
def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "audio").write_text("in the way")
    with pytest.raises(UserError, match=r"failed in a worker process.*audio"):
        write_dataset(tmp_path, 120, seed=0, workers=2)
    assert not (tmp_path / "labels" / "samples.parquet").exists()


def test_workers_import_no_torch() -> None:
    code = "import sys, sousa_bench.data.synthetic.writer; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_command_writes_a_dataset_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path / "set"), "--clips", "12", "--domain", "source"]
    assert main(command) == 0
    assert "12 clips in" in capsys.readouterr().out
    assert len(list((tmp_path / "set" / "audio").rglob("*.flac"))) == 12
    assert main(command) == 2
    assert "already holds a dataset" in capsys.readouterr().err
