"""One run of a sweep, as the sweeper planned it: everything that a child process needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.config.run_config import RunConfig, value_at
from sousa_bench.peft.options import takes_no_steps
from sousa_bench.results import stop_request
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import own_scores


@dataclass
class Job:
    """One planned run; it is pickled to the process that does it.

    Attributes:
        source: The composed config with its ``hydra`` node; what the run does, whatever is edited later.
        index: Place in the sweep, from 1.
        total: Number of jobs in the sweep.
        fingerprint: Identity of the run (hex, 64 digits).
        name: Name of its folder and of the line on the screen.
        folder: Absolute path of the run's folder.
        overrides: Hydra overrides of this job.
        command: The shell command that runs it again.
        varied: Flat config keys that the sweep varied, with this job's values.
        sweep: ``name``, ``folder``, ``index`` and ``total`` for the result, or None for a single run.
        git_commit: Commit of the code, or its version where there is no repository.
        decision: What the plan says: ``pending``, ``reused``, ``duplicate``, ``refused`` or ``skipped``.
        result: Folder of the completed result that a reused or duplicate job stands for.
        reason: Why a job was refused or skipped.
        fresh: Whether an earlier attempt's checkpoints are dropped first, whatever became of it.
        hydra_job: Whether the child goes through Hydra's ``run_job`` (a single run already is inside one).
        warnings: Facts about the sweep that belong into this run's record.
        slurm_job_id: Slurm's id of the job that does it, or None.
        rank: Which of a run's processes this is for; the record is the first one's.
    """

    source: RunConfig
    index: int
    total: int
    fingerprint: str
    name: str
    folder: Path
    overrides: list[str]
    command: str
    varied: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, Any] | None = None
    git_commit: str = ""
    decision: str = "pending"
    result: Path | None = None
    reason: str | None = None
    fresh: bool = False
    hydra_job: bool = True
    warnings: list[str] = field(default_factory=list)
    slurm_job_id: str | None = None
    rank: int = 0

    @property
    def config(self) -> DictConfig:
        """The whole config."""
        return self.source.whole()

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "config": self.config}
        del state["source"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = state.pop("config")
        vars(self).update(state, source=RunConfig(config))

    @property
    def timeout(self) -> float | None:
        """Seconds that one attempt may take, or None for no limit."""
        value = self.source.values.get("timeout")
        return float(value) if value else None

    @property
    def stepless(self) -> bool:
        """Whether its method is fitted within seconds, without steps."""
        node = value_at(self.source.values, "peft")
        return isinstance(node, Mapping) and takes_no_steps(node)

    @property
    def devices(self) -> int:
        """Processes that train it together, one a device."""
        return devices_of(self.source.values)


def devices_of(config: Mapping[str, Any]) -> int:
    """``trainer.devices``, or 1 where it is no number: the run itself refuses what makes no sense."""
    value = value_at(config, "trainer.devices")
    return value if isinstance(value, int) and value > 1 else 1


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        job: The job.
        status: A result status, ``pending`` for a job that never started, or ``pruned`` for one that a search gave up.
        error: Why it is not completed.
        seconds: Time that this attempt took; 0 when nothing ran.
        score: What ranks, ``val_acc`` or ``val_map``; NaN when the run is not completed, which Optuna takes for a
            failed trial.
        reused: Whether the result is an earlier one.
        test: Key and value of what the test split gave, ``("test_acc", 0.57)``; None where it isn't known.
    """

    job: Job
    status: str
    error: str | None = None
    seconds: float = 0.0
    score: float = math.nan
    reused: bool = False
    test: tuple[str, float] | None = None

    @classmethod
    def of(cls, job: Job, result: Mapping[str, Any], *, reused: bool = False) -> Outcome:
        """How a job ended by what its record says, where there is one."""
        if reused:  # it was completed when it was found, even if it can't be read now
            return cls(job, "completed", score=score(result), reused=True, test=test_score(result))
        status = "pruned" if stop_request.is_pruned(result) else str(result.get("status", "pending"))
        seconds = float((result.get("efficiency") or {}).get("training_time_seconds") or 0.0)
        return cls(job, status, result.get("error"), seconds, score(result), test=test_score(result))

    @property
    def well(self) -> bool:
        """Whether nothing went wrong: it is completed, or was given up on purpose."""
        return self.status in ("completed", "pruned")


def score(result: Mapping[str, Any]) -> float:
    """What ranks of a result, ``val_acc`` or ``val_map``; NaN where it has none of its own."""
    metrics = own_scores(result)
    value = metrics.get(ranking(metrics))
    return math.nan if value is None else float(value)


def test_score(result: Mapping[str, Any]) -> tuple[str, float] | None:
    """Key and value of ``test_acc`` or ``test_map``, where a result has its own."""
    metrics = own_scores(result)
    key = ranking(metrics, "test")
    return None if metrics.get(key) is None else (key, float(metrics[key]))
