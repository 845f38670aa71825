"""Which runs a sweep needs: identities, duplicates, what is done already, and where each run's folder lies."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import init_from
from sousa_bench.config.fingerprint import fingerprint, run_name
from sousa_bench.config.overrides import split
from sousa_bench.config.settings import check_values
from sousa_bench.errors import ConfigError
from sousa_bench.results.known import Results
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.switches import SweepSettings
from sousa_bench.system.commit import git_commit

NOT_AGAIN = ("sweep", "force", "resume", "hydra.sweep.subdir")  # overrides that a run's own command leaves out


@dataclass(frozen=True)
class Candidate:
    """A composed config that may become a run.

    Attributes:
        config: The whole config.
        overrides: The overrides that made it.
        digest: Its fingerprint.
        refusal: Why its model can't be tuned by its method, or None.
    """

    config: DictConfig
    overrides: list[str]
    digest: str
    refusal: str | None

    @classmethod
    def of(cls, config: DictConfig, overrides: Sequence[str]) -> Candidate:
        """Identify a config.

        Raises:
            UserError: A value is impossible, it can't be resolved, or its data can't be identified.
        """
        check_values(config)
        init_from.check(config)
        return cls(config, list(overrides), fingerprint(config), refusal(config))


def plan(
    candidates: Sequence[Candidate],
    *,
    folder: Path,
    name: str | None,
    results: Results,
    settings: SweepSettings,
    flags: Sequence[str] = (),
    hydra_words: Sequence[str] = (),
) -> list[Job]:
    """Decide for each composed config what is to be done about it.

    Args:
        candidates: The composed config of each job.
        folder: Folder of the sweep, or the one that holds single runs.
        name: The sweep's name; None for a single run.
        results: What earlier sweeps left behind.
        settings: The sweep's switches.
        flags: Command-line flags before the overrides, such as ``--config-dir``.
        hydra_words: Overrides of Hydra's own config, which are not part of any candidate's.

    Returns:
        One job for each candidate, in order.
    """
    varied = varied_keys([candidate.overrides for candidate in candidates])
    commit = git_commit()
    jobs: list[Job] = []
    first: dict[str, Job] = {}
    for index, candidate in enumerate(candidates, 1):
        config, overrides, digest = candidate.config, candidate.overrides, candidate.digest
        own_name = run_name(config, digest)
        sweep = (
            None if name is None else {"name": name, "folder": str(folder), "index": index, "total": len(candidates)}
        )
        job = Job(
            config=config,
            index=index,
            total=len(candidates),
            fingerprint=digest,
            name=own_name,
            folder=folder / own_name,
            overrides=list(overrides),
            command=rerun_command([*hydra_words, *overrides], name, flags),
            varied={key: _value(config, key, overrides) for key in varied},
            sweep=sweep,
            git_commit=commit,
            hydra_job=name is not None,
        )
        if digest in first:
            job.decision, job.reason = "duplicate", f"the same run as number {first[digest].index}"
            job.folder = first[digest].folder
        else:
            first[digest] = job
            job.reason = candidate.refusal
            decide(job, results, settings)
        jobs.append(job)
    return jobs


def decide(job: Job, results: Results, settings: SweepSettings) -> None:
    """Fill in a job's decision, and the folder in which it goes on."""
    if job.reason is not None:
        job.decision = "refused"
        return
    own = job.folder.parent
    known = results.of(job.fingerprint, own)
    if settings.afresh:
        job.folder, job.fresh = unused(job.folder), True
        return
    if done := next((result for result in known if result.status == "completed"), None):
        job.decision, job.result = "reused", done.folder
        return
    if settings.resume == "failed" and not any(result.status == "failed" for result in known[:1]):
        job.decision, job.reason = "skipped", "resume=failed runs only what failed"
        return
    for result in known:
        if result.status != "failed":  # running elsewhere, or interrupted: its checkpoints are there
            job.folder = result.folder
            return


def unused(folder: Path) -> Path:
    """``folder``, or the first of ``folder_2``, ``folder_3``, … that holds no completed result."""
    candidate, count = folder, 1
    while record.read(candidate).get("status") in ("completed", "running"):
        count += 1
        candidate = folder.with_name(f"{folder.name}_{count}")
    return candidate


def refusal(config: DictConfig) -> str | None:
    """Why a model can't be tuned by a method, or None."""
    if OmegaConf.select(config, "peft.name", default=None) is None or OmegaConf.select(config, "model.name") is None:
        return None
    from sousa_bench import peft

    return peft.precheck(config.model, config.peft)


def varied_keys(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Config keys whose overrides differ between jobs, config groups that have a place of their own excepted."""
    values: dict[str, set[str | None]] = {}
    for job in overrides:
        given = dict(split(override) for override in job)
        for key, value in given.items():
            values.setdefault(key, set()).add(value)
    for job in overrides:
        present = {split(override)[0] for override in job}
        for key in values.keys() - present:
            values[key].add(None)
    fixed = ("model", "peft", "augmentation", "data", "seed", "trainer.max_epochs")
    return [
        key for key, seen in values.items() if len(seen) > 1 and key not in fixed and not key.startswith("lineage.")
    ]


def _value(config: DictConfig, key: str, overrides: Sequence[str]) -> Any:
    value = OmegaConf.select(config, key, default=None)
    if value is None or OmegaConf.is_config(value):
        return dict(split(override) for override in overrides).get(key)
    return value


def rerun_command(overrides: Sequence[str], sweep: str | None, flags: Sequence[str] = ()) -> str:
    """The shell command that does one run of a sweep again, in that sweep's folder."""
    words = ["python", "-m", "sousa_bench.train", *flags]
    kept = [override for override in overrides if split(override)[0] not in NOT_AGAIN]
    if sweep is not None:
        words += ["-m", f"sweep={sweep}"]
    return shlex.join([*words, *kept])


def check_possible(candidates: Sequence[Candidate]) -> None:
    """Raise ConfigError when there is nothing that could ever run."""
    if all(candidate.refusal for candidate in candidates):
        reasons = dict.fromkeys(str(candidate.refusal) for candidate in candidates)
        raise ConfigError("\n".join(reasons) or "the sweep holds no run")
