"""Curves stand where they were asked for: closed with the run's outcome, on one step axis over its attempts."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import struct
import time
from pathlib import Path

import pandas as pd
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from sousa_bench.config import settings
from sousa_bench.config.settings import check_values
from sousa_bench.errors import ConfigError
from sousa_bench.results.result import RESULT_FILE
from sousa_bench.sweep.progress import wandb_hint
from sousa_bench.training.classifier import NonFiniteLossError
from sousa_bench.training.loggers import tensorboard, weights_and_biases
from sousa_bench.training.run import run
from tests.core.test_run import interrupt

BLOCK = 32 * 1024


def payloads(content):
    """The records of W&B's log: LevelDB's log format after a header of seven bytes."""
    position, part = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        part += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield part
            part = b""


def records(folder):
    """Everything in the run's offline logs, of all attempts in their order."""
    found = []
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    for payload in (payload for file in files for payload in payloads(file.read_bytes())):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        found.append(record)
    return found


def exit_codes(folder, attempts=1):
    """What the logs say of each attempt's end; W&B's service writes it a moment after ``finish``."""
    deadline = time.monotonic() + 20
    while len(codes := _exit_codes(folder)) < attempts and time.monotonic() < deadline:
        time.sleep(0.1)
    return codes


def _exit_codes(folder):
    return [record.exit.exit_code for record in records(folder) if record.WhichOneof("record_type") == "exit"]


@pytest.mark.slow
def test_a_completed_run_is_closed_with_its_curves(config, folder):
    blocks = run(config("model=efficientat", "logger=wandb", "trainer.max_epochs=2", "trainer.train_batches=1"), folder)
    assert exit_codes(folder) == [0]
    [opened] = [record.run for record in records(folder) if record.WhichOneof("record_type") == "run"]
    assert {"efficientat", "lora", "augmentation_on", "synthetic"} <= set(opened.tags)
    assert opened.run_group == folder.parent.name
    logged = [
        item.key or "/".join(item.nested_key)
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
        for item in record.history.item
    ]
    assert logged.count("val_acc") == 2
    assert logged.count("test_acc") == 1
    assert (folder / blocks["wandb"]["folder"]).is_dir()


@pytest.mark.slow
def test_a_failed_run_is_closed_as_failed(config, folder):
    broken = ["peft=full", "trainer.learning_rate=1e30", "trainer.gradient_clip=null", "logger=wandb"]
    with pytest.raises(NonFiniteLossError):
        run(config("model=efficientat", *broken), folder)
    assert exit_codes(folder) == [1]


def test_csv(config, folder):
    blocks = run(config("model=efficientat", "logger=csv", "trainer.max_epochs=2", "trainer.train_batches=1"), folder)
    table = pd.read_csv(folder / blocks["csv"])
    assert table.loc[table["val_acc"].notna(), ["epoch", "step"]].values.tolist() == [[1, 1], [2, 2]]
    assert table["test_acc"].count() == 1


@pytest.fixture
def attempts(config, folder, monkeypatch):
    """Do a run of three epochs of two steps in two attempts, the first one stopped in the second epoch."""

    def do(logger):
        cfg = config("model=efficientat", f"logger={logger}", "trainer.train_batches=2")
        interrupt(monkeypatch, cfg, folder, 3)
        time.sleep(1.1)  # W&B names the folder of an attempt by the second
        return run(cfg, folder)

    return do


@pytest.mark.slow
def test_tensorboard_reads_one_growing_step_axis_of_a_resumed_run(attempts, folder):
    blocks = attempts("tensorboard")
    reader = EventAccumulator(str(folder / blocks["tensorboard"])).Reload()
    curves = {tag: reader.Scalars(tag) for tag in reader.Tags()["scalars"]}
    assert [point.step for point in curves["val_acc"]] == [2, 4, 6]
    assert [point.value for point in curves["epoch"]] == [1, 2, 3]
    assert [point.step for point in curves["test_acc"]] == [6]
    losses = [entry["val_loss"] for entry in blocks["history"]]
    assert [point.value for point in curves["val_loss"]] == pytest.approx(losses)
    assert b"efficientat" in reader.Tensors("config/text_summary")[-1].tensor_proto.string_val[0]


def test_tensorboard_passes_over_what_an_attempt_logged_behind_its_checkpoint(tmp_path):
    for steps, logged in ((0, (1, 2, 3)), (2, (3, 4))):
        logger = tensorboard(tmp_path, steps=steps, resolved={})
        for step in logged:
            logger.logger.log_metrics({"loss": 10 * steps + step}, step)
        logger.finish(0)
    points = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in points] == [(1, 1), (2, 2), (3, 23), (4, 24)]


@pytest.mark.slow
def test_wandb_has_one_growing_step_axis_of_a_resumed_run(attempts, folder):
    blocks = attempts("wandb")
    assert exit_codes(folder, attempts=2) == [1, 0]
    found = records(folder)
    assert len({record.run.run_id for record in found if record.WhichOneof("record_type") == "run"}) == 1
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["epoch"], row["_step"]) for row in rows if "val_acc" in row] == [(1, 2), (2, 4), (3, 6)]
    steps = [row["_step"] for row in rows]
    assert all(first < second for first, second in itertools.pairwise(steps))
    assert rows[-1]["test_acc"] == pytest.approx(blocks["metrics"]["test_acc"])
    (folder / RESULT_FILE).write_text(json.dumps({"status": "completed", "config": {}, "wandb": blocks["wandb"]}))
    [hint] = wandb_hint([folder], None)
    pattern = Path(shlex.split(hint)[-1])
    parts = sorted(pattern.parent.glob(pattern.name))
    assert len(parts) == 2
    assert parts == sorted(folder.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_wandb_begins_another_run_where_an_attempt_was_given_up(config, folder):
    broken = ["peft=full", "trainer.learning_rate=1e30", "trainer.gradient_clip=null", "logger=wandb"]
    for _ in range(2):
        with pytest.raises(NonFiniteLossError):
            run(config("model=efficientat", *broken), folder)
        time.sleep(1.1)
    assert exit_codes(folder, attempts=2) == [1, 1]
    assert len({record.run.run_id for record in records(folder) if record.WhichOneof("record_type") == "run"}) == 2


def test_what_no_logger_can_do_is_refused_before_a_start(config, monkeypatch):
    with pytest.raises(ConfigError, match=r"logger\.mode='later' can't be: it must be offline or online"):
        check_values(config("logger=wandb", "logger.mode=later"))
    check_values(config("logger=csv", "+logger.mode=append"))  # a logger of the user's own may have another `mode`
    check_values(config("logger=tensorboard"))
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sousa-bench\[tensorboard\]'"):
        check_values(config("logger=tensorboard"))


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_the_telemetry_of_wandb_is_as_offline_as_the_run(mode, tmp_path, monkeypatch):
    """It reads the environment alone, whatever ``wandb.init`` is told."""
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def init(**given):
        settings = wandb.Settings()
        settings.update_from_env_vars(os.environ)
        raise InterruptedError(f"{given['mode']} {settings.mode}")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(InterruptedError, match=f"^{mode} {mode}$"):
        weights_and_biases(
            tmp_path, mode=mode, project="p", entity=None, group=None, name="n", tags=[], resolved={}, steps=0
        )
