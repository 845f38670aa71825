"""What frozen networks make of clips is kept between runs: the same bits, and never those of something else."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.data import cache_folder
from sousa_bench.data.cache_folder import filled_by_one
from sousa_bench.errors import Interrupted
from sousa_bench.models.base import AudioModel
from sousa_bench.models.beats_network import BeatsBackbone
from sousa_bench.results.result import Recorder
from sousa_bench.training import checkpoint, kept_states
from sousa_bench.training.checkpoint import Checkpoints, KeepState, Stop
from sousa_bench.training.frozen_part import groups
from sousa_bench.training.inputs import ClipInputs
from sousa_bench.training.kept_states import KeptStates
from sousa_bench.training.run import run
from tests.cases import check_each

EXACT = ("ast", "htsat", "beats", "efficientat", "ced", "dasheng", "eat", "passt", "openbeats", "whisper", "cnn")
"""All models but those that hear the waveform."""
CLIPS = 40
"""Of all splits."""


@pytest.fixture
def passes(monkeypatch):
    """Clips that went through a network, counted."""
    counted = [0]

    def counting(original):
        def tokens(self, features, *others):
            counted[0] += len(features)
            return original(self, features, *others)

        return tokens

    monkeypatch.setattr(BeatsBackbone, "tokens", counting(BeatsBackbone.tokens))
    return counted


@pytest.fixture
def heard(monkeypatch):
    """Clips that went through a front end, counted."""
    counted = [0]
    features = AudioModel.features

    def counting(self, waveform, lengths=None):
        counted[0] += len(waveform)
        return features(self, waveform, lengths)

    monkeypatch.setattr(AudioModel, "features", counting)
    return counted


@pytest.fixture
def small(config, tmp_path):
    """A config whose clips have a cache of their own."""

    def build(*words):
        return config("model=beats", "augmentation=off", f"data.cache_dir={tmp_path / 'cache'}", *words)

    return build


class Numbered:
    """States that cost nothing: each piece's number.

    Attributes:
        computed: Pieces whose state was computed, in order.
    """

    def __init__(self, setup: Setup, split: str = "train") -> None:
        self.model = setup.module.model
        self.clips = setup.module.clips[split]
        self.groups = groups(self.clips.pieces.padded)
        self.computed: list[int] = []

    def compute(self, members):
        self.computed += [int(i) for i in members]
        return (torch.as_tensor(members, dtype=torch.float32)[:, None], None)

    def of(self):
        """Position → number, as a new run has them."""
        kept = KeptStates(self.model, "numbers", lambda features, mask: (features, mask), lambda: ["backbone"])
        return {i: int(part) for i, (part, _) in kept.of(self.clips, self.groups, self.compute, 100).items()}

    @property
    def all(self):
        return {i: i for i in range(len(self.clips.pieces))}


@pytest.fixture
def numbered(small, monkeypatch):
    """Numbers kept in several files, by an earlier run."""
    monkeypatch.setattr(kept_states, "GROUPS", 1)
    found = Numbered(Setup.of(small("peft=lora")))
    assert found.groups.max() > 1
    assert found.of() == found.all
    found.computed.clear()
    return found


def kept(tmp_path: Path) -> set[Path]:
    return set((tmp_path / "cache" / "clips").glob("*/features/*.safetensors"))


def outcome(folder: Path, blocks):
    logits = pd.read_parquet(folder / "predictions.parquet")["logits"].tolist()
    return blocks["metrics"], [list(row) for row in logits]


@pytest.mark.slow
def test_a_later_run_reads_what_an_earlier_one_computed_and_has_its_bits(small, tmp_path, passes, caplog):
    first = outcome(tmp_path / "1", run(small("peft=probe"), tmp_path / "1"))
    computed, passes[0] = passes[0], 0
    files = kept(tmp_path)
    assert len(files) == 3
    assert computed >= CLIPS
    assert outcome(tmp_path / "2", run(small("peft=probe"), tmp_path / "2")) == first
    run(small("peft=knn"), tmp_path / "3")
    assert passes[0] <= 2 * 4  # of each run one clip for the columns, one for the size, two for the identity
    assert kept(tmp_path) == files
    damaged = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert outcome(tmp_path / "5", run(small("peft=probe"), tmp_path / "5")) == first
    assert f"{damaged} is damaged (its checksum is wrong)" in caplog.text
    assert damaged.read_bytes() != bytes(content)


def test_the_head_shares_with_those_that_read_its_last_layer_alone(small, tmp_path, passes):
    run(small("peft=head", "trainer.max_epochs=1"), tmp_path / "head")
    files, passes[0] = kept(tmp_path), 0
    run(small("peft=probe", "peft.reads=last"), tmp_path / "probe")
    assert passes[0] <= 3
    assert kept(tmp_path) == files


@pytest.mark.slow
def test_what_may_change_a_bit_has_files_of_its_own(small, tmp_path, passes):
    run(small("peft=knn"), tmp_path / "first")
    before = kept(tmp_path)

    def check(name, *words):
        passes[0] = 0
        run(small("peft=knn", *words), tmp_path / name)
        assert passes[0] >= CLIPS

    check_each(
        [
            ("weights", "seed=1"),
            ("length", "data.max_duration=1.5"),
            ("precision", "trainer.precision=bf16-mixed"),
        ],
        check,
    )
    files = kept(tmp_path)
    assert len(files) == 4 * len(before)
    torch.set_num_threads(2)
    check("threads")
    assert len(kept(tmp_path)) == len(files) + len(before)


@pytest.mark.slow
def test_nothing_is_kept_beyond_the_cap(small, tmp_path, caplog):
    run(small("peft=knn", "trainer.feature_memory_mb=0"), tmp_path / "1")
    assert not kept(tmp_path)
    with caplog.at_level(logging.INFO):
        run(small("peft=knn", "data.cache_limit_gb=0.0001"), tmp_path / "2")
    assert "No room in" in caplog.text
    assert not kept(tmp_path)


@pytest.mark.slow
def test_the_lower_part_of_a_network_is_shared_by_methods_above_it(small, tmp_path, passes, caplog):
    words = ("peft.layers=last_1", "trainer.max_epochs=1")
    run(small("peft=lora", *words), tmp_path / "1")
    files = kept(tmp_path)
    assert len(files) == 3
    passes[0] = 0
    shared = outcome(tmp_path / "2", run(small("peft=ia3", *words), tmp_path / "2"))
    run(small("peft=bottleneck", *words), tmp_path / "3")
    assert passes[0] <= 3 * 3
    assert kept(tmp_path) == files
    apart = f"data.cache_dir={tmp_path / 'apart'}"
    assert outcome(tmp_path / "4", run(small("peft=ia3", *words, apart), tmp_path / "4")) == shared


def test_no_lower_part_is_computed_for_training_clips_that_are_augmented(small, passes):
    quiet = [f"augmentation.{name}.enabled=false" for name in ("gain", "noise", "mixup")]
    inputs = Setup.of(small("peft=lora", "peft.layers=last_1", "augmentation=on", *quiet)).module.inputs
    assert inputs.prefix is not None
    assert not inputs.augmentation.changes_waveform
    passes[0] = 0
    inputs.fill("train")
    assert passes[0] == 0
    inputs.fill("val")
    assert passes[0] > 0


@pytest.mark.slow
def test_features_are_shared_by_all_runs_that_hear_the_clips_as_they_are(small, tmp_path, heard):
    words = ("peft=lora", "trainer.max_epochs=1")
    first = outcome(tmp_path / "1", run(small(*words), tmp_path / "1"))
    assert heard[0] >= CLIPS
    files = kept(tmp_path)
    assert len(files) == 3
    heard[0] = 0
    assert outcome(tmp_path / "2", run(small(*words), tmp_path / "2")) == first
    assert heard[0] < CLIPS / 2  # of each run some seconds of silence and noise, for sizes and the identity
    unshared = run(small(*words, "trainer.feature_memory_mb=0"), tmp_path / "3")
    assert outcome(tmp_path / "3", unshared) == first
    counts = unshared["data"]["counts"]
    heard[0] = 0
    run(
        small(*words, "augmentation=on", "seed=7"), tmp_path / "4"
    )  # other weights, the same clips to validate and test
    assert counts["train"] <= heard[0] < counts["train"] + CLIPS / 2
    assert kept(tmp_path) == files
    heard[0] = 0
    torch.set_num_threads(2)
    run(small(*words, "trainer.precision=bf16-mixed"), tmp_path / "6")
    assert heard[0] < CLIPS / 2
    assert kept(tmp_path) == files
    run(small(*words, "trainer.train_batches=1", "trainer.eval_batches=1", "data.max_duration=1"), tmp_path / "5")
    assert kept(tmp_path) == files  # a run that takes a few clips computes no others


def test_what_no_second_of_noise_tells_of_a_front_end_or_a_machine_has_files_of_its_own(small, monkeypatch):
    found = Numbered(Setup.of(small("model=whisper", "peft=lora")))
    every = list(found.all)

    def computed():
        found.computed.clear()
        assert found.of() == found.all
        return sorted(found.computed)

    assert computed() == every
    assert computed() == []
    found.model.frontend.longest *= 2
    assert computed() == every
    monkeypatch.setattr(kept_states, "kind", lambda: "another processor")
    assert computed() == every


@pytest.mark.slow
def test_what_another_version_of_our_code_computed_has_files_of_its_own(small, tmp_path, monkeypatch):
    def filled():
        inputs = Setup.of(small("peft=probe")).module.inputs
        inputs.fill("val")
        return kept(tmp_path)

    before = filled()
    assert filled() == before
    read_bytes = Path.read_bytes

    def check(name):
        monkeypatch.setattr(Path, "read_bytes", lambda path: read_bytes(path) + b"#" * (path.name == name))
        known = kept(tmp_path)
        assert filled() > known

    check_each(["kept_states.py", "augmented_clips.py", "block_reader.py"], check)


@pytest.mark.slow
@pytest.mark.parametrize("model", EXACT)
def test_a_front_end_gives_a_clip_the_same_bits_in_any_batch(config, model):
    inputs = Setup.of(config(f"model={model}", "peft=full")).module.inputs
    assert inputs.model.frontend.exact
    padded = inputs.clips["train"].pieces.padded
    numbers = groups(padded)
    members = np.flatnonzero(numbers == numbers.max())
    assert len(members) > 2
    [(_, (together, mask))] = inputs.features("train", members, remember=False)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for row, i in enumerate(members):
            [(_, (alone, own))] = inputs.features("train", np.array([i]), remember=False)
            assert torch.equal(alone[0], together[row])
            assert mask is None or torch.equal(own[0], mask[row])


def test_runs_at_once_share_the_work(numbered, tmp_path):
    for path in kept(tmp_path):
        path.unlink()
    compute = numbered.compute
    start = threading.Barrier(2)

    def slow(members):
        time.sleep(0.1)
        return compute(members)

    def one_run(_):
        start.wait()
        return numbered.of()

    numbered.compute = slow
    with ThreadPoolExecutor(2) as runs:
        found = list(runs.map(one_run, range(2)))
    assert sorted(numbered.computed) == list(numbered.all)
    assert found == [numbered.all] * 2


@pytest.mark.slow
def test_a_run_that_waits_for_another_stops_when_asked(small, tmp_path, monkeypatch):
    words = ("peft=head", "trainer.max_epochs=1")
    run(small(*words), tmp_path / "1")
    largest = max(kept(tmp_path), key=lambda file: file.stat().st_size)
    largest.unlink()

    def info(message, *values):
        if message.startswith("Another process"):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(cache_folder.log, "info", info)
    held, done = threading.Event(), threading.Event()

    def other_run():
        with filled_by_one(largest.with_suffix(".lock"), "a test"):
            held.set()
            done.wait()

    with ThreadPoolExecutor(1) as other:
        other.submit(other_run)
        held.wait()
        try:
            with pytest.raises(Interrupted):
                run(small(*words), tmp_path / "2")
        finally:
            done.set()


@pytest.mark.slow
def test_the_time_of_a_training_is_without_what_runs_share(small, tmp_path, monkeypatch):
    passed, fill = [0.0], ClipInputs.fill

    def slow(self, split):
        passed[0] += 1000
        fill(self, split)

    monkeypatch.setattr(ClipInputs, "fill", slow)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(checkpoint, "time", clock)
    blocks = run(small("peft=lora", "trainer.max_epochs=1"), tmp_path / "1")
    assert 2000 <= blocks["phases"]["shared"] < 3000
    assert blocks["efficiency"]["training_time_seconds"] < 1000


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_that_fill_wait_with_a_stop_for_each_other(tmp_path, monkeypatch, ranks):
    monkeypatch.setattr(checkpoint, "world_size", lambda: ranks)
    with Stop().listening() as stop:
        keep = KeepState(Checkpoints(tmp_path), Recorder(tmp_path), stop, Mock(), dict)
        keep.on_train_start(Mock(), Mock())
        with pytest.raises(Interrupted) if ranks == 1 else contextlib.nullcontext():
            signal.raise_signal(signal.SIGTERM)
    assert stop.asked


@pytest.mark.slow
def test_features_of_training_leave_their_place_to_those_of_test(small, tmp_path):
    run(small("peft=lora", "trainer.max_epochs=1"), tmp_path / "1")
    before = kept(tmp_path)
    limit = 0.9 * sum(file.stat().st_size for file in before) / 2**20
    for file in before:
        file.unlink()
    run(small("peft=lora", "trainer.max_epochs=1", f"trainer.feature_memory_mb={limit}"), tmp_path / "2")
    assert kept(tmp_path) == before


def test_another_users_cache_is_read_and_grows(numbered, tmp_path, monkeypatch, caplog):
    refused = Mock(side_effect=PermissionError("not permitted"))
    monkeypatch.setattr(os, "utime", refused)
    assert numbered.of() == numbered.all
    assert not numbered.computed
    gone, old, *_ = sorted(kept(tmp_path))
    gone.unlink()
    os.truncate(old, 0)  # so that it is written again, and is young
    stale = old.with_name("stale.safetensors")
    stale.touch()
    monkeypatch.setattr(kept_states, "UNUSED_DAYS", -1)
    monkeypatch.setattr(Path, "unlink", refused)
    assert numbered.of() == numbered.all
    assert gone.exists()
    assert stale.exists()
    assert "can't be kept" not in caplog.text


def test_a_lock_that_nobody_can_take_or_that_a_stopped_run_holds_fails_no_run(numbered, tmp_path, monkeypatch, caplog):
    for path in kept(tmp_path):
        path.unlink()
    with monkeypatch.context() as odd:
        odd.setattr(FileLock, "acquire", Mock(side_effect=OSError("no locks here")))
        assert numbered.of() == numbered.all
    assert "can't be locked: no locks here" in caplog.text
    one = min(kept(tmp_path))
    one.unlink()
    monkeypatch.setattr(kept_states, "PATIENCE", 0.2)
    with filled_by_one(one.with_suffix(".lock"), "a test"):
        assert numbered.of() == numbered.all
    assert f"{one.stem}.lock for too long" in caplog.text
    assert one.exists()


def test_where_there_is_no_room_for_the_rest_what_is_there_is_read(numbered, tmp_path, monkeypatch):
    one = min(kept(tmp_path))
    one.unlink()
    asked = Mock(return_value=False)
    monkeypatch.setattr(numbered.clips, "kept", replace(numbered.clips.kept, room=asked))
    found = numbered.of()
    assert {} != found != numbered.all
    assert not numbered.computed
    absent = len(numbered.all) - len(found)
    asked.assert_called_once_with(100 * absent // len(numbered.all))
    asked.side_effect = [True, False]  # another run has filled it meanwhile
    assert numbered.of() == numbered.all
    assert not one.exists()


@pytest.mark.slow
def test_what_nobody_reads_any_more_goes(small, tmp_path):
    run(small("peft=knn"), tmp_path / "1")
    old, *others = sorted(kept(tmp_path))
    for file, days in ((old, 31), *((file, 29) for file in others)):
        os.utime(file, (0, time.time() - days * 86_400))
    run(small("peft=knn", "seed=1"), tmp_path / "2")
    assert not old.exists()
    assert all(file.exists() for file in others)
    assert len(kept(tmp_path)) == 2 + 3
    run(small("peft=knn"), tmp_path / "3")
    assert min(file.stat().st_mtime for file in others) > time.time() - 86_400  # read, so wanted
