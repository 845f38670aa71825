"""The decode-once cache: what it shares, what it survives, what it refuses."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from noise_data import data, noise

from sousa_bench.data import SPLITS, SousaData, chunks
from sousa_bench.data import cache as cache_module
from sousa_bench.data.cache_folder import folder_bytes
from sousa_bench.errors import DataError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The rates of each decoding."""
    calls: list[tuple[int, ...]] = []
    real = cache_module.decode

    def counting(audio, rates, seconds):
        calls.append(tuple(rates))
        return real(audio, rates, seconds)

    monkeypatch.setattr(cache_module, "decode", counting)
    return calls


def stores(made, rate: int = 16_000) -> list[np.ndarray]:
    store = made.waveforms("train", rate)
    return [np.array(store.read(i)) for i in range(len(store))]


def test_each_clip_is_decoded_once(generator: Path, decoded: list) -> None:
    small = {"train": 40, "val": 40, "test": 40}
    data(generator, clips=small).prepare([16_000, 32_000])
    assert decoded == [(16_000, 32_000)] * 120
    data(generator, clips=small).prepare([32_000, 16_000])
    assert len(decoded) == 120
    data(generator).prepare([16_000, 32_000])
    assert len(decoded) == 240
    data(generator, name="full", clips=None, max_duration=0.1, quantum=0.01, fold="1/3").prepare([16_000])
    assert len(decoded) == 240


def test_another_rate_touches_no_other(generator: Path, own_cache: Path, decoded: list) -> None:
    data(generator).prepare([16_000])
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.s16")}
    data(generator).prepare([16_000, 32_000])
    assert decoded[240:] == [(32_000,)] * 240
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def birds(root: Path, table: dict[str, list[str]]) -> SousaData:
    """A folder of one's own, of that table, in training order."""
    pd.DataFrame(table).to_csv(root / "metadata.csv", index=False)
    made = data(root, name="folder", clips={}, fold="1/3")
    made.prepare([16_000])
    return made


def clip_of(made: SousaData, sample_id: str) -> np.ndarray:
    """(samples,) the clip of that name, in whichever split it lies."""
    split = next(split for split in SPLITS if sample_id in set(made.rows(split)["sample_id"]))
    number = list(made.rows(split)["sample_id"]).index(sample_id)
    return np.array(made.waveforms(split, 16_000).read(number))


def test_a_corrected_table_decodes_no_sound_anew(tmp_path: Path, decoded: list) -> None:
    """Neither another label nor another split or name; and a name that another file gets has that file's sound."""
    root = tmp_path / "birds"
    root.mkdir()
    names = [f"{i}.wav" for i in range(12)]
    for seed, name in enumerate(names):
        sf.write(root / name, noise(seed=seed, rate=8_000, channels=1), 8_000)
        os.utime(root / name, (0, 0))  # as unpacked: nothing but their names tells the files apart
    table = {"file_name": names, "label": ["owl", "finch"] * 6, "sample_id": names}
    before = birds(root, table)
    assert len(decoded) == 12
    assert clip_of(before, "0.wav").tolist() != clip_of(before, "1.wav").tolist()
    table |= {"label": ["finch", "owl", "wren"] * 4, "sample_id": ["1.wav", "0.wav", *names[2:]]}
    after = birds(root, table)
    assert len(decoded) == 12
    for one, other in (("0.wav", "1.wav"), ("1.wav", "0.wav"), ("2.wav", "2.wav")):
        np.testing.assert_array_equal(clip_of(after, one), clip_of(before, other))
    old = clip_of(after, "3.wav")
    sf.write(root / names[3], noise(seed=99, rate=8_000, channels=1), 8_000)
    assert clip_of(birds(root, table), "3.wav").tolist() != old.tolist()
    assert len(decoded) == 13


def test_a_sound_in_another_class_folder_is_decoded_alone(tmp_path: Path, decoded: list) -> None:
    root = tmp_path / "birds"
    for seed in range(12):
        file = root / ("owl", "finch")[seed % 2] / f"{seed}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        sf.write(file, noise(seed=seed, rate=8_000, channels=1), 8_000)
    data(root, name="folder", clips={}).prepare([16_000])
    (root / "owl" / "0.wav").rename(root / "finch" / "0.wav")
    data(root, name="folder", clips={}).prepare([16_000])
    assert len(decoded) == 13


def test_the_cache_does_not_depend_on_history(generator: Path, tmp_path: Path) -> None:
    """Rates added later, other order, other threads: the same samples."""
    at_once = data(generator, cache_dir=str(tmp_path / "a"))
    at_once.prepare([16_000, 32_000])
    later = data(generator, cache_dir=str(tmp_path / "b"))
    later.prepare([32_000])
    later.prepare([16_000])
    for ours, theirs in zip(stores(at_once), stores(later), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_moved_dataset_keeps_its_cache(generator: Path, tmp_path: Path, decoded: list) -> None:
    data(generator).prepare([16_000])
    moved = generator.rename(tmp_path / "elsewhere")
    made = data(moved)
    made.prepare([16_000])
    assert len(decoded) == 240
    assert made.fingerprint


def test_a_changed_clip_is_decoded_again(generator: Path, decoded: list) -> None:
    made = data(generator)
    made.prepare([16_000])
    path = next((generator / "audio").rglob("*.flac"))
    audio, rate = sf.read(path)
    sf.write(path, audio[::-1], rate, subtype="PCM_24")
    data(generator).prepare([16_000])
    assert len(decoded) == 241


def test_max_duration_cuts_and_reuses(generator: Path, decoded: list) -> None:
    short, long = data(generator, max_duration=0.1, quantum=0.01), data(generator)
    long.prepare([16_000])
    short.prepare([16_000])
    assert len(decoded) == 240
    assert set(short.waveforms("train", 16_000).lengths) == {1600}
    for ours, whole in zip(stores(short), stores(long), strict=True):
        np.testing.assert_array_equal(ours, whole[:1600])


def test_clips_longer_than_is_stored_are_decoded_again_when_more_is_wanted(generator: Path, decoded: list) -> None:
    path = next((generator / "audio").rglob("*.flac"))
    sf.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000 * 14), 8_000)
    data(generator).prepare([8_000])
    data(generator, max_duration=9.0).prepare([8_000])
    assert len(decoded) == 240
    long = data(generator, max_duration=12.0)
    long.prepare([8_000])
    assert len(decoded) == 241
    assert max(max(long.waveforms(split, 8_000).lengths) for split in ("train", "val", "test")) == 96_000


@pytest.mark.parametrize("damage", ["truncated", "footer", "empty", "list", "zeroed", "flipped"])
def test_a_torn_file_is_not_believed(
    generator: Path, own_cache: Path, decoded: list, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = data(generator)
    made.prepare([16_000])
    whole = stores(made)
    path = max(own_cache.rglob("*.s16"), key=lambda p: p.stat().st_size)
    clips = len(chunks.read_entries(path))
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "footer":
        content[-32:] = bytes(32)
    elif damage == "empty":
        content.clear()
    elif damage == "zeroed":
        content[4000:8000] = bytes(4000)
    elif damage == "flipped":
        content[5001] ^= 0x01
    else:
        content[-60] ^= 0xFF
    path.write_bytes(content)
    again = data(generator)
    with caplog.at_level(logging.WARNING):
        again.prepare([16_000])
        after = {split: again.waveforms(split, 16_000) for split in SPLITS}
    assert path.name in caplog.text
    assert len(decoded) == 240 + clips
    for ours, theirs in zip(whole, stores(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sum(map(len, after.values())) == 240
    assert all(chunks.samples_intact(str(path)) for path in own_cache.rglob("*.s16"))


def test_a_chunk_that_is_cut_while_in_use_is_told(generator: Path) -> None:
    """A mapped file would kill the process (SIGBUS)."""
    made = data(generator)
    made.prepare([16_000])
    store = made.waveforms("train", 16_000)
    assert len(store.read(0))
    for path in set(store._paths):
        os.truncate(path, 100)
    with pytest.raises(DataError, match="is cut while it was in use"):
        store.read(len(store) - 1)


def test_a_deleted_cache_is_made_again_and_told_while_in_use(generator: Path, own_cache: Path) -> None:
    import shutil

    made = data(generator)
    made.prepare([16_000])
    store = made.waveforms("test", 16_000)
    shutil.rmtree(own_cache / "clips")
    with pytest.raises(DataError, match="deleted while it was in use"):
        store.read(0)
    made.prepare([16_000])
    assert len(made.waveforms("test", 16_000).read(0))


def test_a_store_can_be_pickled_and_forked(generator: Path) -> None:
    made = data(generator)
    made.prepare([16_000])
    store = made.waveforms("test", 16_000)
    first = np.array(store.read(0))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(0), first)
    assert len(pickle.dumps(store)) < 20_000
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(store.read(0), first) and store.read(1) is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(ValueError, match="read-only"):
        store.read(0)[0] = 1


FILL = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from sousa_bench.data import SousaData, cache
real = cache.decode
def slow(*arguments):
    time.sleep(float(sys.argv[2]))
    return real(*arguments)
cache.decode = slow
cache.CHUNK_CLIPS = 4
made = SousaData("tiny", root=sys.argv[1])
made.prepare([16_000, 32_000])
print("ready", sum(int(made.waveforms("train", 16_000).lengths.sum()) for _ in range(1)))
"""


def fill(generator: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FILL, str(generator), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_at_any_point_it_goes_on(generator: Path, own_cache: Path, decoded: list) -> None:
    """SIGKILL while chunks are being written: what is whole is kept, what is not is swept up."""
    process = fill(generator, 0.02)
    wait_for(lambda: len(list(own_cache.rglob("16000/*.s16"))) >= 6)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(own_cache.rglob("16000/*.s16")))
    assert list(own_cache.rglob("*.part"))
    made = data(generator)
    made.prepare([16_000, 32_000])
    assert 0 < len(decoded) <= 240 - 3 * kept
    assert not list(own_cache.rglob("*.part"))
    assert len(stores(made)) == 160


@pytest.mark.slow
def test_two_processes_fill_it_once(generator: Path, own_cache: Path) -> None:
    first = fill(generator, 0.05)
    wait_for(lambda: bool(list(own_cache.rglob("*.part"))))
    first.send_signal(signal.SIGSTOP)
    second = fill(generator, 0.01)
    waits = second.stdout.readline()
    first.send_signal(signal.SIGCONT)
    said = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, said
    assert "Decoded 240 clips" in said[0]
    assert "Another process is decoding" in waits
    assert "Decoded" not in said[1]
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1]


def test_the_size_is_told_before(generator: Path, own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sousa_bench.data"):
        data(generator).prepare([16_000, 32_000])
    told = next(record.getMessage() for record in caplog.records if "clips once:" in record.getMessage())
    size = sum(path.stat().st_size for path in own_cache.rglob("*.s16"))
    assert float(told.split("once: ")[1].split(" MB")[0]) * 1e6 == pytest.approx(size, rel=0.05)


def test_the_cap(generator: Path, own_cache: Path) -> None:
    with pytest.raises(DataError, match=r"over the cap of data\.cache_limit_gb=0\.0005"):
        data(generator, cache_limit_gb=0.0005).prepare([16_000])
    assert not list(own_cache.rglob("*.s16"))
    data(generator, cache_limit_gb=0.001).prepare([16_000])
    with pytest.raises(DataError, match=r"generator-[0-9a-f]+-v2: .* kB|generator-[0-9a-f]+-v2: .* MB"):
        data(generator, cache_limit_gb=0.001).prepare([48_000])


def test_what_can_be_computed_again_leaves_its_place_to_clips(generator: Path, own_cache: Path) -> None:
    data(generator).prepare([16_000])
    [folder] = own_cache.glob("clips/*/")
    held = folder_bytes(folder)
    old, young = folder / "features" / "old.safetensors", folder / "features" / "young.safetensors"
    old.parent.mkdir()
    for path, size, age in ((old, held, 100), (young, 1000, 0)):
        path.write_bytes(bytes(size))
        os.utime(path, (0, time.time() - age))
    data(generator, cache_limit_gb=3.3 * held / 1e9).prepare([16_000, 32_000])
    assert not old.exists()
    assert young.exists()


def test_too_small_a_disk_is_told_before(generator: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(generator)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(DataError, match=r"100 kB free.*data\.cache_dir=FOLDER or the variable SOUSA_BENCH_CACHE"):
        data(generator).prepare([16_000])
    assert not list(own_cache.rglob("*.s16"))


def test_a_disk_that_fills_up(generator: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one message; nothing torn is left, and what was whole is used once there is room."""
    real, calls = chunks.ChunkWriter.add, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(chunks.ChunkWriter, "add", full)
        with pytest.raises(DataError, match="The disk is full"):
            data(generator).prepare([16_000])
    assert not list(own_cache.rglob("*.part"))
    assert all(chunks.read_entries(path) is not None for path in own_cache.rglob("*.s16"))
    data(generator).prepare([16_000])


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small tmpfs, as root")
def test_a_really_full_disk(generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        monkeypatch.setattr(cache_module.ClipCache, "_check_room", lambda *_: None)
        with pytest.raises(DataError, match="The disk is full"):
            data(generator, cache_dir=str(disk)).prepare([16_000])
        assert not list(disk.rglob("*.part"))
        assert all(chunks.read_entries(path) is not None for path in disk.rglob("*.s16"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_cache_folder_that_cannot_be_made(generator: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cache folder .*file/x can't be made"):
        data(generator, cache_dir=str(tmp_path / "file" / "x")).prepare([16_000])


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_the_threads_that_decode(generator: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    real = cache_module.decode
    together = threading.Barrier(workers)

    def noting(*arguments):
        if threading.current_thread().name not in threads:
            threads.add(threading.current_thread().name)
            together.wait(timeout=30)  # a thread's first clip waits for the others' first
        return real(*arguments)

    monkeypatch.setattr(cache_module, "decode", noting)
    data(generator, workers=workers).prepare([16_000])
    assert len(threads) == workers


def test_the_rates_of_all_preparations_are_described(generator: Path) -> None:
    """A model may need a rate of its own, after those that all models share."""
    made = data(generator)
    made.prepare([16_000, 32_000])
    made.prepare([48_000])
    facts = made.describe()["cache"]
    assert facts["sample_rates"] == [16_000, 32_000, 48_000]
    assert facts["bytes"] > 240 * 0.12 * 96_000 * 2
    assert [made.waveforms("test", rate).lengths[0] for rate in facts["sample_rates"]] == [1920, 3840, 5760]


def test_progress_is_reported(generator: Path) -> None:
    seen: list[tuple[int, int]] = []
    data(generator).prepare([16_000], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (240, 240)


def test_stopped_by_an_exception_it_keeps_what_is_done(generator: Path, own_cache: Path, decoded: list) -> None:
    """As Ctrl-C or a SIGTERM handler does it: raised in the main thread while the others decode."""

    def stop(signum, frame):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, stop)
    real = cache_module.decode

    def slow(*arguments):
        time.sleep(0.01)
        return real(*arguments)

    cache_module.decode, original = slow, cache_module.decode
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(KeyboardInterrupt):
            data(generator).prepare([16_000])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        cache_module.decode = original
    done = len(decoded)
    assert 0 < done < 240
    assert not list(own_cache.rglob("*.part"))
    data(generator).prepare([16_000])
    assert len(decoded) == 240
