"""Clips that are damaged, and clips that are only unusual."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from noise_data import data, noise, write_hub

from sousa_bench.errors import DataError


def clip_of(root: Path, player: str = "player-000", number: int = 3) -> tuple[Path, str]:
    labels = pd.read_parquet(root / "labels" / "samples.parquet")
    row = labels[labels["profile_id"] == player].iloc[number]
    return root / row["audio_path"], row["sample_id"]


def missing(path: Path) -> None:
    path.rename(path.with_suffix(".FLAC2"))


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def silent(path: Path) -> None:
    sf.write(path, np.zeros((4410, 2)), 44_100)


def no_samples(path: Path) -> None:
    sf.write(path, np.zeros((0, 2)), 44_100, format="WAV")


def cut_wav(path: Path) -> None:
    sf.write(path, noise(), 44_100, format="WAV")
    cut_in_half(path)


def not_finite(path: Path) -> None:
    sf.write(path, np.full((4410, 2), np.nan), 44_100, format="WAV", subtype="FLOAT")


def infinite(path: Path) -> None:
    sf.write(path, np.where(np.arange(8820).reshape(-1, 2) == 5000, np.inf, 0.1), 44_100, format="WAV", subtype="FLOAT")


def one_sample(path: Path) -> None:
    sf.write(path, np.full((1, 1), 0.5), 44_100)


def claims_hours(path: Path) -> None:
    """A header of 2**36 - 1 samples, 18 days, over a tenth of a second."""
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)


def six_milliseconds(path: Path) -> None:
    sf.write(path, noise(0.006), 44_100)


def just_too_short(path: Path) -> None:
    sf.write(path, noise(0.0995), 44_100)


def text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>" * 50)


DAMAGES = [
    (missing, r"is missing \(there is .*FLAC2"),
    (zero_bytes, "is empty: zero bytes"),
    (cut_in_half, "is truncated"),
    (cut_in_the_header, "is no audio file.*cut in its header"),
    (silent, "is silent"),
    (no_samples, "holds no audio: its length is zero"),
    (cut_wav, "is truncated"),
    (not_finite, "holds samples that are not finite"),
    (infinite, "holds samples that are not finite"),
    (one_sample, "is too short: 0.0227 ms"),
    (claims_hours, "can't be decoded|is truncated"),
    (six_milliseconds, r"is too short: 6\.\d+ ms, and the least is 100 ms"),
    (just_too_short, r"is too short: 99\.5 ms"),
    (text, "is no audio file"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_bad_clip_is_named_or_skipped(generator: Path, damage, reason: str) -> None:
    path, sample_id = clip_of(generator)
    damage(path)
    with pytest.raises(DataError, match=f"{path.name} (?:{reason}).*data.on_bad_clip=skip"):
        data(generator).prepare([16_000])
    made = data(generator, on_bad_clip="skip")
    made.prepare([16_000])
    facts = made.describe()
    assert facts["counts"] == {"train": 159, "val": 40, "test": 40}
    assert facts["found"]["train"] == 160
    assert facts["skipped"]["count"] == 1
    assert path.name in next(iter(facts["skipped"]["clips"]))
    assert any("1 of 240 clips skipped" in warning and path.name in warning for warning in made.warnings)
    assert sample_id not in set(made.rows("train")["sample_id"])
    store = made.waveforms("train", 16_000)
    assert len(store) == 159
    assert all(np.abs(store.read(i).astype(int)).max() > 8000 for i in range(159))


def test_a_repaired_clip_is_used(generator: Path) -> None:
    path, _ = clip_of(generator)
    sound = path.read_bytes()
    cut_in_half(path)
    with pytest.raises(DataError):
        data(generator).prepare([16_000])
    path.write_bytes(sound)
    made = data(generator)
    made.prepare([16_000])
    assert made.describe()["counts"]["train"] == 160


def test_all_bad_clips_are_counted(generator: Path) -> None:
    for number in range(8):
        silent(clip_of(generator, number=number)[0])
    with pytest.raises(DataError, match=r"8 clips of .* and 3 more"):
        data(generator).prepare([16_000])


def test_a_split_of_bad_clips_only(generator: Path) -> None:
    for number in range(40):
        silent(clip_of(generator, "player-005", number)[0])
    with pytest.raises(DataError, match=r"test split is empty.*is silent"):
        data(generator, on_bad_clip="skip").prepare([16_000])


def test_bad_bytes_in_a_shard(tmp_path: Path) -> None:
    """The shard, the row and the sample_id lead to it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from noise_data import rows

    write_hub(tmp_path, rows(players=3, rudiments=3), shards=1)
    shard = tmp_path / "audio" / "test-00000-of-00001.parquet"
    content = pq.read_table(shard)
    audio = content.column("audio").to_pylist()
    audio[1]["bytes"] = audio[1]["bytes"][:200]
    pq.write_table(content.set_column(content.column_names.index("audio"), "audio", pa.array(audio)), shard)
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet row 1 \(adv002_double_paradiddle.*\)"):
        data(tmp_path).prepare([16_000])


UNUSUAL = {
    "mono": (48_000, 1, "PCM_16", "FLAC"),
    "eight bit": (22_050, 2, "PCM_U8", "WAV"),
    "eight bit flac": (44_100, 1, "PCM_S8", "FLAC"),
    "low rate": (8_000, 2, "PCM_16", "WAV"),
    "high rate": (96_000, 2, "PCM_24", "FLAC"),
    "highest rate": (192_000, 2, "PCM_24", "FLAC"),
    "four channels": (44_100, 4, "PCM_16", "WAV"),
    "twelve channels": (44_100, 12, "PCM_16", "WAV"),
    "float": (44_100, 2, "FLOAT", "WAV"),
    "already right": (16_000, 1, "PCM_16", "FLAC"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_clips_simply_work(generator: Path, kind: str) -> None:
    """A 440 Hz tone in any format comes out as that tone, at the level of its channels' mean."""
    rate, channels, subtype, form = UNUSUAL[kind]
    path, sample_id = clip_of(generator)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    sf.write(path, np.repeat(tone[:, None], channels, axis=1), rate, subtype=subtype, format=form)
    made = data(generator)
    made.prepare([16_000])
    at = list(made.rows("train")["sample_id"]).index(sample_id)
    wave = made.waveforms("train", 16_000).read(at) / 32768
    assert len(wave) == 16_000
    spectrum = np.abs(np.fft.rfft(wave)) / 8000
    assert int(spectrum.argmax()) == 440
    assert spectrum[440] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_the_shortest_clip_is_used(generator: Path, rate: int) -> None:
    sf.write(clip_of(generator)[0], noise(0.1, rate), rate, format="WAV")
    made = data(generator)
    made.prepare([16_000])
    assert made.waveforms("train", 16_000).lengths.min() == 1600


def test_a_very_loud_clip_is_clipped_not_wrapped(generator: Path) -> None:
    path, sample_id = clip_of(generator)
    sf.write(path, np.full((44_100, 1), 1.7), 44_100, subtype="FLOAT", format="WAV")
    made = data(generator)
    made.prepare([44_100])
    at = list(made.rows("train")["sample_id"]).index(sample_id)
    assert (made.waveforms("train", 44_100).read(at) == 32767).all()
