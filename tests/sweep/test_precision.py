"""What ``trainer.precision=auto`` is on a CPU: settled once for a sweep, by what exists and by a measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sousa_bench.config import conf_folder
from sousa_bench.results.result import read_result
from sousa_bench.sweep import record, settled_precision
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.sweep import plan_sweep
from sousa_bench.system.processor import takes_bfloat16

ROOT = Path(__file__).resolve().parents[2]
FEW = ["weights=random", "augmentation=off", "data.synthetic.clips=40", "data.synthetic.split_players=[20,10,10]"]
LARGE = ["model=ced", "model.variant=ced-mini"]
RUN = subprocess.run
MIXED = "trainer.precision=bf16-mixed"


class Machine:
    """A machine whose processor takes bfloat16, with its results.

    Attributes:
        answers: What the process that measures prints; the last counts.
        measured: How often it was started.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.answers: list[str] = []
        self.measured = 0

    def answer(self, words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "sousa_bench.training.bfloat16_gain" not in words:
            return RUN(words, **options)
        self.measured += 1
        return subprocess.CompletedProcess(words, 0, stdout=self.answers[-1], stderr="")

    def plan(self, *jobs: list[str], launcher: str = "local") -> list[Job]:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            words = [f"hydra.sweep.dir={self.home / 'multirun'}", f"hydra/launcher={launcher}"]
            master = loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN)
            return plan_sweep(loader, master, [[*FEW, *job] for job in jobs]).jobs

    def precisions(self, *jobs: list[str], **options: str) -> list[str]:
        return [job.config.trainer.precision for job in self.plan(*jobs, **options)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    made.answers.append("2.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: True)
    monkeypatch.setattr(settled_precision, "visible_gpus", list)
    monkeypatch.setattr(settled_precision.subprocess, "run", made.answer)
    return made


def test_large_networks_take_it_where_it_pays_and_no_others(machine: Machine) -> None:
    efficientat = ["model=efficientat", "model.variant=official"]
    jobs = (
        [*LARGE],
        ["model=ast"],
        efficientat,
        [*LARGE, "trainer.precision=32-true"],
        [*LARGE, "trainer.accelerator=gpu"],
    )
    planned = machine.plan(*jobs)
    assert [job.config.trainer.precision for job in planned] == ["bf16-mixed", "auto", "auto", "32-true", "auto"]
    assert [MIXED in job.overrides for job in planned] == [True, False, False, False, False]
    assert MIXED in planned[0].command
    assert machine.measured == 1
    [asked] = machine.plan([*LARGE, MIXED])
    assert asked.fingerprint == planned[0].fingerprint
    machine.answers.append("1.1\n")
    (machine.home / "cache" / settled_precision.FILE).unlink()
    slow = machine.plan(*jobs)
    assert [job.config.trainer.precision for job in slow] == ["auto", "auto", "auto", "32-true", "auto"]
    same = [a.fingerprint == b.fingerprint for a, b in zip(slow, planned, strict=True)]
    assert same == [False, True, True, True, True]


def test_it_is_measured_once_a_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    file = machine.home / "cache" / settled_precision.FILE
    assert machine.precisions(LARGE) == ["bf16-mixed"]
    assert "2.50 times as fast in bfloat16" in capsys.readouterr().out
    machine.answers.append("no number")
    assert machine.precisions([*LARGE, "seed=2"]) == ["bf16-mixed"]
    assert machine.measured == 1
    file.write_text("{")
    assert machine.precisions([*LARGE, "seed=3"]) == ["auto"]
    assert machine.measured == 2
    assert "Warning: bfloat16 can't be measured here (could not convert" in capsys.readouterr().out


def test_no_other_machine_is_measured(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.precisions(LARGE, launcher="slurm") == ["auto"]
    monkeypatch.setattr(settled_precision, "visible_gpus", lambda: ["0"])
    assert machine.precisions(LARGE) == ["auto"]
    monkeypatch.setattr(settled_precision, "visible_gpus", list)
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: False)
    assert machine.precisions(LARGE) == ["auto"]
    assert machine.measured == 0


def test_runs_that_exist_keep_their_sweep_in_their_precision(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*jobs: list[str]) -> None:
        for job in machine.plan(*jobs):
            record.begin(job)

    seeds = [[*LARGE, f"seed={seed}"] for seed in (1, 2, 3)]
    begun(seeds[0])
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: False)
    resumed = machine.plan(*seeds)
    assert {job.config.trainer.precision for job in resumed} == {"bf16-mixed"}  # wherever it goes on
    others = [[*LARGE, f"seed={seed}"] for seed in (4, 5)]
    begun(others[0])
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: True)
    assert machine.precisions(*others) == ["auto"] * 2
    assert machine.precisions(*[[*job, "force=true"] for job in others]) == ["bf16-mixed"] * 2


@pytest.mark.slow
@pytest.mark.skipif(not takes_bfloat16(), reason="this processor's matrix products take no bfloat16")
def test_a_run_is_measured_recorded_and_found_again(tmp_path: Path) -> None:
    def train() -> str:
        words = [*FEW, *LARGE, "peft=bitfit", "trainer.train_batches=1", "trainer.max_epochs=1", "logger=none"]
        done = subprocess.run(
            [sys.executable, "-m", "sousa_bench.train", *words, "trainer.batch_size=2", "trainer.eval_batches=1"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SOUSA_BENCH_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = train()
    [gain] = json.loads((tmp_path / "cache" / settled_precision.FILE).read_text()).values()
    assert f"trains {gain:.2f} times as fast in bfloat16" in said
    [folder] = [file.parent for file in tmp_path.glob("outputs/*/result.json")]
    result = read_result(folder)
    wanted = "bf16-mixed" if gain >= settled_precision.PAYS else "32-true"
    assert result["environment"]["precision"] == wanted
    assert "Completed already" in train()
