"""Runs the stand-in command as a real process and looks at what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.machine import patience

ROOT = Path(__file__).resolve().parents[2]
APP = [sys.executable, str(ROOT / "tests" / "standin" / "app.py")]


class Command:
    """One command in a folder of its own; its descendants are known by a mark in their environment."""

    def __init__(self, folder: Path, program: list[str] | None = None, **environment: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.program = program or APP
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "SWEEP_TEST": self.mark, **environment}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own, as a shell would."""
        return subprocess.Popen(
            [*self.program, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def __call__(self, *words: str, code: int = 0, timeout: float = 60) -> str:
        """Run it to its end; its output."""
        return finish(self.start(*words), code, timeout)

    def processes(self) -> list[int]:
        """Living processes that this command started, directly or not."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes() and state(int(path.name)) != "Z":
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def results(self) -> dict[int, dict[str, Any]]:
        """Results below the folder by seed; a resume that began another run of the same choices fails here."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("multirun/**/result.json")]
        choices = {json.dumps(result["config"], sort_keys=True) for result in found}
        assert len(choices) == len(found), f"one run has two results: {[r['experiment_id'] for r in found]}"
        return {result["config"]["seed"]: result for result in found}

    def statuses(self) -> dict[int, str]:
        return {seed: result["status"] for seed, result in sorted(self.results().items())}

    def of(self, seed: int) -> Path:
        """Folder of the run with a seed."""
        [path] = self.folder.glob(f"multirun/**/*_s{seed}_*/result.json")
        return path.parent

    def bytes_of(self, status: str = "completed") -> dict[Path, bytes]:
        """The result files of that status as they lie on the disk."""
        found = {}
        for path in self.folder.glob("multirun/**/result.json"):
            data = path.read_bytes()
            if json.loads(data)["status"] == status:
                found[path] = data
        return found


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def finish(process: subprocess.Popen[str], code: int = 0, timeout: float = 30) -> str:
    """Wait for a command's end; its output. ``timeout`` is that of a quiet machine."""
    output, _ = process.communicate(timeout=patience(timeout))
    assert process.returncode == code, output
    assert "Traceback" not in output or code == 1, output
    return output


def until(condition: Callable[[], Any], timeout: float = 30) -> Any:
    """Wait until a condition holds, ``timeout`` seconds on a quiet machine; its value."""
    end = time.monotonic() + patience(timeout)
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it never came to that")


def running(command: Command, seed: int, step: int = 1) -> int:
    """Wait until the run with a seed is in its fit; its process id."""

    def pid() -> int | None:
        for path in command.folder.glob(f"multirun/**/*_s{seed}_*/progress.json"):
            progress = json.loads(path.read_text())
            if progress.get("step", 0) >= step and alive(progress["pid"]):
                return progress["pid"]
        return None

    return until(pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return state(pid) != "Z"
    except OSError:
        return False


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    """Ctrl-C at a terminal goes to the whole foreground process group."""
    os.killpg(process.pid, number)
