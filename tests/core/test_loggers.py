"""Weights & Biases runs are closed, each with the outcome of its run."""

from __future__ import annotations

import os
import struct
import time

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from sousa_bench.training.classifier import NonFiniteLossError
from sousa_bench.training.loggers import weights_and_biases
from sousa_bench.training.run import run

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
    """Everything in the run's one offline log."""
    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    found = []
    for payload in payloads(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        found.append(record)
    return found


def exit_codes(folder):
    """What the log says of the run's end; W&B's service writes it a moment after ``finish``."""
    deadline = time.monotonic() + 20
    while not (codes := _exit_codes(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return codes


def _exit_codes(folder):
    return [record.exit.exit_code for record in records(folder) if record.WhichOneof("record_type") == "exit"]


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


def test_a_failed_run_is_closed_as_failed(config, folder):
    broken = ["peft=full", "trainer.learning_rate=1e30", "trainer.gradient_clip=null", "logger=wandb"]
    with pytest.raises(NonFiniteLossError):
        run(config("model=efficientat", *broken), folder)
    assert exit_codes(folder) == [1]


def test_csv(config, folder):
    blocks = run(config("model=efficientat", "logger=csv", "trainer.max_epochs=1", "trainer.train_batches=1"), folder)
    header, *rows = (folder / blocks["csv"]).read_text().splitlines()
    assert "val_acc" in header.split(",")
    assert rows


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
        weights_and_biases(tmp_path, mode=mode, project="p", entity=None, group=None, name="n", tags=[], resolved={})
