"""What a terminal shows of runs: lines that are redrawn at its foot, and a table at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from sousa_bench.results.manifest import read_manifest
from sousa_bench.results.result import write_json
from sousa_bench.results.run_process import identity
from sousa_bench.status import main as status
from sousa_bench.sweep.output import RunLog, Screen
from sousa_bench.sweep.run_lines import line
from sousa_bench.system.text_table import in_columns
from sousa_bench.training import progress_bar
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.progress_bar import EpochBar
from tests.machine import patience
from tests.sweep.running import Command, finish, interrupt, running

CURSOR = re.compile(r"\x1b\[(\d*)([A-Za-z])")


class Terminal:
    """What stands on a terminal's lines, and all that ever stood there."""

    def __init__(self) -> None:
        self.lines, self.row, self.ever = [""], 0, set()

    def feed(self, text: str) -> None:
        for piece in re.split(r"(\x1b\[\d*[A-Za-z]|\r|\n)", text):
            if piece == "\n":
                self.ever.add(self.lines[self.row])
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif match := CURSOR.fullmatch(piece):
                number, what = match.groups()
                if what == "A":
                    self.row -= int(number)
                    assert self.row >= 0
                elif what == "H":
                    self.row = 0
                elif what == "J":
                    self.lines[self.row :] = [""]
            elif piece == "\r":
                self.lines[self.row] = ""
            else:
                self.lines[self.row] += piece


def watched(command: Command, *words: str, program: list[str] | None = None) -> Terminal:
    """Run a command on a terminal to its end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [*(program or command.program), *words],
        cwd=command.folder,
        env=command.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        process_group=0,
    )
    os.close(theirs)
    found, end = b"", time.monotonic() + patience(60)
    while time.monotonic() < end:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # nobody holds the other end any more
            break
        found += piece
    os.close(ours)
    assert process.wait() == 0, found.decode()
    terminal = Terminal()
    terminal.feed(found.decode().replace("\r\n", "\n"))
    return terminal


def test_what_is_printed_above_a_foot_stays_there_whole() -> None:
    reading, writing = os.pipe()
    screen = Screen(writing)
    screen.show(b"", always=True, foot=["run 1/2", "run 2/2"])
    print("completed:", 1, file=screen)  # writes its words one by one
    print("and this", end="", file=screen)
    screen.show(b"", always=True, foot=["run 2/2"])
    assert screen.finish(patience(10))
    os.close(writing)
    terminal = Terminal()
    with os.fdopen(reading) as stream:
        terminal.feed(stream.read())
    assert terminal.lines == ["completed: 1", "and this"]


@pytest.mark.slow
def test_several_runs_have_a_line_each_and_leave_a_table(command: Command) -> None:
    terminal = watched(command, "-m", "sweep=a", "n_jobs=2", "seed=1,2,3", "task.seconds=0.1")
    bars = [line for line in terminal.ever if "|" in line]
    for seed in (1, 2, 3):
        mine = [line for line in bars if line.startswith(f"run {seed}/3 alpha_lora_aug_none_s{seed} epoch ")]
        assert any(" 50% |" in line and "left" in line for line in mine)
    assert all(len(line) < 100 for line in bars)
    left = "\n".join(terminal.lines)
    assert " left" not in left
    for seed in (1, 2, 3):
        assert re.search(rf"^Completed: alpha_lora_aug_none_s{seed}_\w+: test_acc=\d\.\d{{4}}$", left, re.M)
        assert re.search(rf"^{seed} +alpha_lora_aug_none_s{seed}_\w+ +completed +\d\.\d{{4}} +0:\d\d$", left, re.M)
    assert re.search(r"^# +run +status +test_acc +time$", left, re.M)
    assert "[2] run of alpha, seed 2, from step 0" in left


def test_a_line_fits_its_terminal() -> None:
    job = Mock(index=3, total=24, fingerprint="1a2b3c4d5e")
    job.name = "efficientat_lora_aug_tiny_s42_1a2b3c4d"
    facts = {"epoch": 2, "max_epochs": 5, "step": 120, "total_steps": 300, "fit_seconds": 12.0, "train_loss": 1.25}
    wide = line(job, {"phase": "fit", **facts, "val_acc": 0.5}, 119)
    assert re.fullmatch(
        r"run 3/24 efficientat_lora_aug_tiny_s42 epoch 2/5  40% \|.*\| 00:18 left, loss=1\.250, val_acc=0\.500", wide
    )
    assert len(wide) == 119
    fits = line(job, {"phase": "fit", **facts, "val_acc": 0.5}, 88)
    assert re.fullmatch(r"run 3/24 efficientat_lora_aug_tiny_s42 epoch 2/5  40% \|.*\| 00:18 left, loss=1\.250", fits)
    assert len(fits) == 88
    narrow = line(job, {"phase": "fit", **facts, "val_acc": 0.5}, 69)
    assert re.fullmatch(r"run 3/24 eff.*….*_s42 epoch 2/5  40% \|.{4}\| 00:18 left, loss=1\.250", narrow)
    assert len(narrow) == 69
    assert line(job, {"phase": "data"}, 79) == "run 3/24 efficientat_lora_aug_tiny_s42 data"


def test_what_a_runs_line_says_is_not_said_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"epoch": 2, "train_loss": 1.5, "val_loss": 2.0, "val_acc": 0.25}]
    trainer = SimpleNamespace(is_global_zero=True, state=SimpleNamespace(fn="fit"), max_epochs=5)
    bar = EpochBar("run 3/24")
    module = Mock(spec=Classifier, history=history, steps_done=1300, sums=Mock(mean=lambda: 3.41))
    long = SimpleNamespace(**vars(trainer), current_epoch=1, num_training_batches=1220)
    bar.on_train_batch_end(long, module)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", -1)
    bar.on_train_batch_end(long, module)
    within = capsys.readouterr().out
    assert within == "epoch 2/5, step 1,300 of 6,100: train_loss=3.4100 so far\n"
    bar.on_validation_end(trainer, module)
    said = within + capsys.readouterr().out
    shown: list[bytes] = []
    log = RunLog(tmp_path / "run.log", shown.append, "[3] ", brief=True)
    log.feed(f"{said}a warning\n".encode())
    log.close()
    assert shown == [b"[3] a warning\n"]
    assert (tmp_path / "run.log").read_text() == f"{said}a warning\n"


@pytest.mark.slow
def test_ctrl_c_is_called_by_its_name(command: Command) -> None:
    process = command.start("-m", "sweep=a", "seed=1,2", "task.seconds=0.5")
    running(command, 1)
    interrupt(process)
    output = finish(process, 130)
    assert "Ctrl-C: the current run saves its state (Ctrl-C again ends at once)" in output
    said = (
        r"INTERRUPTED: alpha_lora_aug_none_s1_\w+: stopped at step \d+\n  go on with it: python -m sousa_bench\.train"
    )
    assert re.search(said, output)
    program = [sys.executable, "-m", "sousa_bench.status"]
    shown = subprocess.run(program, cwd=command.folder, env=command.environment, capture_output=True, text=True).stdout
    assert "(2 runs: 1 interrupted, 1 pending) was interrupted; go on with: python -m sousa_bench.train -m" in shown


def test_status_is_redrawn_until_nothing_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command("-m", "sweep=a", "seed=1")
    folder = command.folder / "multirun" / "a"
    manifest = read_manifest(folder)

    def processes(*living: dict) -> None:
        write_json(folder / "sweep.json", manifest | {"processes": list(living)})

    processes(identity())  # this process does the sweep
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(time, "sleep", lambda seconds: processes())  # and then it doesn't
    assert status(["--watch", str(folder)]) == 0
    first, second, third = capsys.readouterr().out.split("\x1b[H\x1b[J")
    assert first == ""
    assert second.startswith(f"{folder} (1 run: 1 completed) goes on\n")
    assert third.startswith(f"{folder} (1 run: 1 completed) has ended\n")
    assert status(["--watch", str(command.folder / "nothing")]) == 2


def test_a_table_fits_its_width() -> None:
    rows = [("#", "run", "status"), ("1", "efficientat_" * 10 + "1a2b3c4d", "completed")]
    lines = in_columns(rows).splitlines()
    assert max(map(len, lines)) == 100
    assert re.fullmatch(r"1  efficientat_.*….*1a2b3c4d  completed", lines[1])
    assert in_columns([("a", "b"), ("cc", "d")]) == "a   b\ncc  d"
