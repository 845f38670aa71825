"""`data.windows` keeps clips to their end, apart from the clips that are kept to a length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from noise_data import data, noise

from sousa_bench.errors import ConfigError, DataError


@pytest.fixture
def long_clips(generator: Path) -> Path:
    """Three of the clips are 12 s long."""
    for file in sorted(generator.rglob("*.flac"))[:3]:
        sf.write(file, noise(12.0, seed=7), 44_100)
    return generator


def longest(made, rate: int = 16_000) -> int:
    made.prepare([rate])
    return max(int(made.waveforms(split, rate).lengths.max()) for split in ("train", "val", "test"))


def test_clips_are_whole_with_windows_and_as_they_were_without(long_clips: Path, own_cache: Path) -> None:
    plain = data(long_clips)
    assert longest(plain) == 5 * 16_000
    before = {path: path.read_bytes() for path in own_cache.rglob("16000/*.s16")}
    whole = data(long_clips, windows="all")
    assert longest(whole) == 12 * 16_000
    assert {path: path.read_bytes() for path in own_cache.rglob("16000/*.s16")} == before
    assert list(own_cache.rglob("16000-whole/*.s16"))
    at = int(whole.waveforms("train", 16_000).lengths.argmax())
    part, all_of_it = plain.waveforms("train", 16_000).read(at), whole.waveforms("train", 16_000).read(at)
    np.testing.assert_array_equal(part, all_of_it[: len(part)])
    np.testing.assert_array_equal(whole.waveforms("train", 16_000).read(at, 100, 50), all_of_it[100:150])


def test_they_are_other_data_of_the_same_test_clips(long_clips: Path) -> None:
    plain, every, two = data(long_clips), data(long_clips, windows="all"), data(long_clips, windows=2)
    assert len({each.fingerprint for each in (plain, every, two)}) == 3
    assert len({each.test_fingerprint for each in (plain, every, two)}) == 1
    assert every.base_fingerprint == two.base_fingerprint == plain.fingerprint


def test_a_clip_that_is_too_long_is_named(long_clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sousa_bench.data.cache.LONGEST", 11.0)
    with pytest.raises(DataError, match=r"3 clips .*is longer than 11 s, .* data\.windows=null"):
        data(long_clips, windows="all").prepare([16_000])
    left = data(long_clips, windows="all", on_bad_clip="skip")
    assert longest(left) < 16_000
    assert any("3 of 240 clips skipped" in line for line in left.warnings)


def test_the_disk_is_asked_for_whole_clips(long_clips: Path) -> None:
    with pytest.raises(DataError, match=r"data\.cache_limit_gb=0\.001"):
        data(long_clips, windows="all", cache_limit_gb=0.001).prepare([16_000, 32_000])


@pytest.mark.parametrize("value", [0, "some", 1.5, True])
def test_an_impossible_number_is_refused(generator: Path, value) -> None:
    with pytest.raises(ConfigError, match=r"data\.windows=.* must be all, a number of windows"):
        data(generator, windows=value).check()
