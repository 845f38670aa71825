"""Submits runs as one Slurm job array, through submitit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousa_bench.config.run_config import value_at
from sousa_bench.errors import ConfigError, UserError
from sousa_bench.sweep.forkserver import code_digest
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.slurm import array_task
from sousa_bench.sweep.slurm.ended_jobs import SUBMITIT_FOLDER
from sousa_bench.system.number_checks import is_positive, is_whole
from sousa_bench.system.python import python_path

AS_THEY_ARE = (
    "comment",
    "constraint",
    "exclude",
    "gres",
    "cpus_per_gpu",
    "gpus_per_task",
    "mem_per_gpu",
    "mem_per_cpu",
)
"""Options that sbatch gets as they are given."""


class SubmissionError(UserError):
    """Slurm does not take the sweep."""


@dataclass(frozen=True)
class Preset:
    """What is asked of Slurm; ``conf/hydra/launcher/slurm.yaml`` says what each means.

    Raises:
        ConfigError: A value is impossible; the message names the key.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus_per_node: int | str | None = "auto"
    cpus_per_task: int | None = 4
    mem_gb: float | None = 16
    runs_per_task: int = 1
    runs_at_once: int = 1
    exclusive: bool = False
    timeout_min: int | None = None
    margin_min: int = 15
    signal_delay_s: int = 120
    array_parallelism: int = 16
    setup: Sequence[str] | None = ()
    name: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    grace: float = 30.0
    poll: float = 10.0

    def __post_init__(self) -> None:
        gpus, whole = self.gpus_per_node, "a whole number of at least 1"
        for key, good, what in (
            ("gpus_per_node", gpus in ("auto", None) or is_whole(gpus, 0), "auto, a number or null"),
            ("cpus_per_task", self.cpus_per_task is None or is_whole(self.cpus_per_task, 1), f"{whole}, or null"),
            ("runs_per_task", is_whole(self.runs_per_task, 1), whole),
            ("runs_at_once", is_whole(self.runs_at_once, 1), whole),
            ("exclusive", isinstance(self.exclusive, bool), "true or false"),
            ("array_parallelism", is_whole(self.array_parallelism, 1), whole),
            ("margin_min", is_whole(self.margin_min, 1), whole),
            ("timeout_min", self.timeout_min is None or is_whole(self.timeout_min, 1), f"{whole}, or null"),
            ("mem_gb", self.mem_gb is None or _above_0(self.mem_gb), "above 0, or null"),
            ("poll", _above_0(self.poll), "above 0"),
            ("grace", _above_0(self.grace), "above 0"),
        ):
            if not good:
                raise ConfigError(f"hydra.launcher.{key}={getattr(self, key)!r} can't be: it must be {what}")
        if self.runs_at_once > self.runs_per_task:
            raise ConfigError(
                f"hydra.launcher.runs_at_once={self.runs_at_once} can't be: a task has "
                f"hydra.launcher.runs_per_task={self.runs_per_task}"
            )

    def minutes(self, jobs: Sequence[Job]) -> int | None:
        """Slurm's time limit: the longest timeout, as often as a task's runs take turns, plus the margin.

        None, which is the partition's own, for runs without a timeout.
        """
        if self.timeout_min is not None:
            return self.timeout_min
        timeouts = [job.timeout for job in jobs]
        if any(timeout is None for timeout in timeouts):
            return None
        turns = math.ceil(min(self.runs_per_task, len(jobs)) / self.runs_at_once)
        return math.ceil(turns * max(filter(None, timeouts)) / 60) + self.margin_min

    def gpus(self, jobs: Sequence[Job]) -> int | None:
        """GPUs of each job: as many as the runs that it does at the same time use."""
        if self.gpus_per_task is not None:
            return None
        if self.gpus_per_node != "auto":
            return int(self.gpus_per_node) if self.gpus_per_node else None
        if all(value_at(job.source.values, "trainer.accelerator") == "cpu" for job in jobs):
            return None
        return max(job.devices for job in jobs) * self.runs_at_once


def submit(jobs: Sequence[Job], preset: Preset, sweep_folder: Path, name: str, target: str, on_error: str) -> list[str]:
    """Submit runs as the tasks of one array, ``runs_per_task`` in each; a single task becomes a job of its own.

    Returns:
        Slurm's id of each run's task.

    Raises:
        SubmissionError: sbatch refuses, or there is no Slurm here.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    minutes = preset.minutes(jobs)
    at_once, delay = preset.runs_at_once, preset.signal_delay_s
    terms = array_task.Terms(target, preset.grace, minutes, delay, code_digest(), at_once, on_error)
    tasks = [jobs[begin : begin + preset.runs_per_task] for begin in range(0, len(jobs), preset.runs_per_task)]
    try:
        executor = SlurmExecutor(folder=sweep_folder / SUBMITIT_FOLDER, max_num_timeout=0)
        executor.update_parameters(**_parameters(jobs, preset, name, minutes))
        with executor.batch():
            submitted = [executor.submit(array_task.do, task, terms) for task in tasks]
    except RuntimeError as error:
        if isinstance(error, (FailedJobError, FailedSubmissionError)) or "srun" not in str(error):
            raise SubmissionError(_refusal(error)) from error
        raise SubmissionError(
            "hydra/launcher=slurm: this machine has no Slurm (srun is not on the PATH); leave it out to run here"
        ) from error
    return [str(of.job_id) for of, task in zip(submitted, tasks, strict=True) for _ in task]


def _parameters(jobs: Sequence[Job], preset: Preset, name: str, minutes: int | None) -> dict[str, Any]:
    """The job in submitit's terms, which are sbatch's."""
    extra = {"requeue": True, **preset.additional_parameters}
    if minutes is None:
        extra.setdefault("time", 0)  # submitit would ask for five minutes; 0 asks for no limit beside the partition's
    cpus, mem = preset.cpus_per_task, preset.mem_gb
    cpus = None if cpus is None or preset.cpus_per_gpu is not None else cpus * preset.runs_at_once
    if mem is not None:
        by_unit = preset.mem_per_cpu is not None or preset.mem_per_gpu is not None
        mem = None if by_unit else mem * preset.runs_at_once
    values = {
        "job_name": (preset.name or name).replace("/", "_"),
        "time": minutes,
        "partition": preset.partition,
        "account": preset.account,
        "qos": preset.qos,
        "gpus_per_node": preset.gpus(jobs),
        "cpus_per_task": cpus,
        "mem": None if mem is None else f"{round(mem * 1024)}M",
        "exclusive": preset.exclusive or None,
        "nodes": 1,
        "ntasks_per_node": 1,
        "signal_delay_s": preset.signal_delay_s,
        "array_parallelism": preset.array_parallelism,
        # Since Slurm 22.05 srun doesn't take --cpus-per-task over from the job.
        "srun_args": None if cpus is None else [f"--cpus-per-task={cpus}"],
        "setup": [f"export PYTHONPATH={shlex.quote(python_path())}", *(preset.setup or ())],
        **{key: getattr(preset, key) for key in AS_THEY_ARE},
        "additional_parameters": extra,
    }
    return {key: value for key, value in values.items() if value is not None}


def _above_0(value: object) -> bool:
    return is_positive(value) and value < math.inf


def _refusal(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "sbatch:" in line] or str(error).splitlines()[-1:]
    reason = "; ".join(line.strip() for line in lines)
    return f"Slurm does not take the sweep: {reason} (hydra.launcher.* says what is asked for)"
