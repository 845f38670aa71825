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

from sousa_bench.analysis import collect
from sousa_bench.config import conf_folder
from sousa_bench.results.result import PRECISION_KEY, RESULT_FILE, read_result, write_json
from sousa_bench.sweep import record, settled_precision
from sousa_bench.sweep import sweep as planning
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.sweep import plan_sweep
from sousa_bench.system.processor import takes_bfloat16
from tests.analysis.composed_runs import SHORT, run_sweep

ROOT = Path(__file__).resolve().parents[2]
FEW = ["weights=random", "augmentation=off", "data.synthetic.clips=40", "data.synthetic.split_players=[20,10,10]"]
LARGE = ["model=ced", "model.variant=ced-mini"]
RUN = subprocess.run
MIXED = "trainer.precision=bf16-mixed"
BOTH = ("bf16-mixed", "32-true")


class Machine:
    """A machine whose processor takes bfloat16, with its results.

    Attributes:
        answers: Programs that measure; the last counts.
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
        return RUN([sys.executable, "-c", self.answers[-1]], **options)

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
    made.answers.append("print(2.5)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: True)
    monkeypatch.setattr(settled_precision, "visible_gpus", list)
    monkeypatch.setattr(settled_precision, "_told", set())
    monkeypatch.setattr(settled_precision.subprocess, "run", made.answer)
    return made


@pytest.mark.slow
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
    machine.answers.append("print(1.1)")
    (machine.home / "cache" / settled_precision.FILE).unlink()
    slow = machine.plan(*jobs)
    assert [job.config.trainer.precision for job in slow] == ["auto", "auto", "auto", "32-true", "auto"]
    same = [a.fingerprint == b.fingerprint for a, b in zip(slow, planned, strict=True)]
    assert same == [False, True, True, True, True]


def test_it_is_measured_once_a_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    file = machine.home / "cache" / settled_precision.FILE
    assert machine.precisions(LARGE) == ["bf16-mixed"]
    assert "2.50 times as fast in bfloat16" in capsys.readouterr().out
    machine.answers.append("raise SystemExit('no kernel')")
    assert machine.precisions([*LARGE, "seed=2"]) == ["bf16-mixed"]
    assert machine.measured == 1
    file.write_text("{")
    assert machine.precisions([*LARGE, "seed=3"]) == machine.precisions([*LARGE, "seed=4"]) == ["auto"]
    assert machine.measured == 2  # a failure is remembered too
    said = capsys.readouterr().out
    assert said.count("Warning: bfloat16 can't be measured here (no kernel)") == 1
    assert f"{file} remembers it" in said
    file.unlink()
    file.mkdir()
    assert machine.precisions([*LARGE, "seed=5"]) == ["auto"]
    said = capsys.readouterr().out
    assert "can't be written" in said
    assert "remembers" not in said


def test_no_other_machine_is_measured(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.precisions(LARGE, launcher="slurm") == ["auto"]
    monkeypatch.setattr(settled_precision, "visible_gpus", lambda: ["0"])
    assert machine.precisions(LARGE) == ["auto"]
    monkeypatch.setattr(settled_precision, "visible_gpus", list)
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: False)
    assert machine.precisions(LARGE) == ["auto"]
    assert machine.measured == 0


def write(job: Job, status: str, accelerator: str = "cpu", timestamp: str = "2026-01-01T00:00:00") -> None:
    begun = record.begin(job)
    environment = {**begun["environment"], "accelerator": accelerator}
    content = {**begun, "status": status, "environment": environment, "timestamp": timestamp}
    write_json(job.folder / RESULT_FILE, content)


@pytest.mark.slow
def test_a_network_goes_on_in_the_precision_that_it_has(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["model=ced", "model.variant=ced-small"]
    machine.answers.append("print(1.0)")
    [first] = machine.plan([*LARGE, "seed=1"])
    write(first, "completed")
    (machine.home / "cache" / settled_precision.FILE).unlink()
    machine.answers.append("print(2.5)")
    settled_precision._told.clear()  # as a new command
    capsys.readouterr()
    jobs = ([*LARGE, "seed=2"], [*LARGE, "peft=lora", "trainer.batch_size=4"], other)
    assert machine.precisions(*jobs) == ["auto", "auto", "bf16-mixed"]
    said = capsys.readouterr().out
    assert "trainer.precision=auto is 32-true for ced ced-mini, as in 1 of 1 earlier run of it" in said
    assert "trainer.precision=auto is bf16-mixed for ced ced-small, as measured here" in said
    machine.precisions(*jobs)
    assert "trainer.precision=auto is" not in capsys.readouterr().out
    assert machine.precisions([*LARGE, "seed=2", "force=true"]) == ["bf16-mixed"]
    [asked] = machine.plan([*LARGE, "seed=3", MIXED])
    write(asked, "failed", timestamp="2026-02-01T00:00:00")
    assert machine.precisions([*LARGE, "seed=2"]) == ["auto"]  # the completed one counts
    write(asked, "completed", timestamp="2026-02-01T00:00:00")
    assert machine.precisions([*LARGE, "seed=2"]) == ["auto"]  # one of two is not most
    [another] = machine.plan([*LARGE, "seed=4", MIXED])
    write(another, "completed")
    assert machine.precisions([*LARGE, "seed=2"]) == ["bf16-mixed"]
    assert machine.precisions([*LARGE, "seed=2"], launcher="slurm") == ["auto"]  # on whatever node it is
    assert machine.precisions([*LARGE, "seed=1"]) == ["auto"]  # it exists


def test_runs_on_a_card_or_in_float32_by_order_decide_nothing(machine: Machine) -> None:
    [on_card] = machine.plan([*LARGE, "seed=1", "trainer.accelerator=gpu"])
    write(on_card, "completed", "gpu")
    [exact] = machine.plan([*LARGE, "seed=1", "trainer.precision=32-true"])
    write(exact, "completed")
    assert machine.precisions([*LARGE, "seed=2"]) == ["bf16-mixed"]


def test_each_run_that_exists_keeps_its_precision(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [[*LARGE, f"seed={seed}"] for seed in (1, 2, 3)]
    for job in machine.plan(*seeds[:2]):
        write(job, "completed")
    monkeypatch.setattr(settled_precision, "takes_bfloat16", lambda: False)
    assert machine.precisions(*seeds) == ["bf16-mixed"] * 3  # wherever it goes on
    [begun] = machine.plan([*seeds[0], "trainer.precision=auto", "force=true"])
    assert begun.config.trainer.precision == "auto"
    write(begun, "interrupted", timestamp="2026-03-01T00:00:00")
    assert [job.decision for job in machine.plan(*seeds)] == ["reused", "reused", "pending"]


def test_what_slurm_has_is_not_done_again_in_another_precision(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    [waiting] = machine.plan([*LARGE, "seed=1"], launcher="slurm")
    monkeypatch.setattr(planning, "runs_in_queue", lambda root: {waiting.fingerprint: ("12", waiting.folder)})
    planned = machine.plan(*[[*LARGE, f"seed={seed}"] for seed in (1, 2)])
    assert [job.slurm_job_id for job in planned] == ["12", None]
    assert [job.config.trainer.precision for job in planned] == ["auto", "auto"]


def test_a_precision_that_follows_from_the_network_is_not_varied(machine: Machine) -> None:
    jobs = (LARGE, ["model=efficientat", "model.variant=mn40"], ["model=ced", "model.variant=tiny"])
    planned = machine.plan(*jobs)
    assert [job.config.trainer.precision for job in planned] == ["bf16-mixed", "auto", "auto"]
    assert [list(job.varied) for job in planned] == [["model.variant"]] * 3
    asked = machine.plan(LARGE, [*LARGE, "trainer.precision=32-true"])
    assert [job.varied for job in asked] == [{PRECISION_KEY: "bf16-mixed"}, {PRECISION_KEY: "32-true"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "factors", "precisions"),
    [
        (["model=ast,efficientat", "model.variant=official"], [], {"bf16-mixed", "auto"}),
        (["model=ced", "model.variant=ced-tiny,ced-mini,ced-small"], ["model.variant"], {"bf16-mixed", "auto"}),
        (["model=ced", "model.variant=ced-mini", "trainer.precision=auto,32-true"], [PRECISION_KEY], {*BOTH}),
    ],
)
def test_a_report_has_it_for_a_factor_only_where_it_varied(
    machine: Machine, words: list[str], factors: list[str], precisions: set[str]
) -> None:
    more = ["weights=random", "augmentation=off", "peft=head,lora", "seed=1,2", *SHORT]
    run_sweep(machine.home / "multirun", "few", ["-m", *words, *more])
    runs = [read_result(file) for file in (machine.home / "multirun").glob("few/*/result.json")]
    assert {run["resolved_config"]["trainer"]["precision"] for run in runs} == precisions
    results = collect([machine.home / "multirun"])
    assert results.factors == factors
    assert results.table["combination"].str.contains("precision").any() == (factors == [PRECISION_KEY])


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
