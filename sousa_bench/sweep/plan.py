"""Which runs a sweep needs: its switches, identities, duplicates, what is done already, and each run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.config import distillation, init_from, refit
from sousa_bench.config.file_variant import with_variant
from sousa_bench.config.fingerprint import fingerprint, run_name
from sousa_bench.config.overrides import split
from sousa_bench.config.run_config import RunConfig, value_at
from sousa_bench.config.settings import check_values
from sousa_bench.errors import ConfigError
from sousa_bench.peft.method_sizes import Budget, against_given_size
from sousa_bench.results.index import ResultIndex
from sousa_bench.results.result import NETWORK_KEYS, PRECISION_KEY
from sousa_bench.sweep import record
from sousa_bench.sweep.current_command import hydra_overrides, run_command
from sousa_bench.sweep.job import Job, devices_of
from sousa_bench.sweep.resources import fitting_jobs
from sousa_bench.system.commit import git_commit
from sousa_bench.system.number_checks import is_number, is_positive, is_whole

MOST_JOBS = 10_000


@dataclass(frozen=True)
class SweepSettings:
    """What decides how a sweep goes on, none of which changes a run's outcome.

    Attributes:
        n_jobs: Runs at the same time on this machine; ``auto`` in the config is as many as it has room for.
        name: The sweep's folder below the results root, or None for one by date and time.
        resume: ``true`` skips what is completed and goes on with what was interrupted; ``failed`` does only what
            failed; ``false`` looks at no earlier result.
        force: Run everything; the same as ``resume=false``.
        on_error: ``continue`` or ``stop`` after a run that failed.
        grace: Seconds between asking a run to stop and killing it.
        runs_per_gpu: Most runs on a GPU, ``auto`` for as many as it has room for, or None for what ``n_jobs`` makes.
    """

    n_jobs: int = 1
    name: str | None = None
    resume: str = "true"
    force: bool = False
    on_error: str = "continue"
    grace: float = 30.0
    runs_per_gpu: int | str | None = None

    @property
    def afresh(self) -> bool:
        """Whether earlier results don't count."""
        return self.force or self.resume == "false"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SweepSettings:
        """Read the switches of a composed config, or of its values.

        Raises:
            ConfigError: A switch has a value that it can't have.
        """
        n_jobs, timeout, name = config.get("n_jobs", 1), config.get("timeout"), config.get("sweep")
        launcher = value_at(config, "hydra.launcher") or {}
        per_gpu, grace = launcher.get("runs_per_gpu"), launcher.get("grace", 30.0)
        if not (per_gpu in ("auto", None) or is_whole(per_gpu, 1)):
            raise ConfigError(
                f"hydra.launcher.runs_per_gpu={per_gpu}: it is the most runs on a GPU, 1 or more, auto or null"
            )
        if per_gpu == "auto" and (devices := devices_of(config)) > 1:
            raise ConfigError(
                f"hydra.launcher.runs_per_gpu=auto measures runs of one GPU, and trainer.devices={devices}: "
                "give a number, such as hydra.launcher.runs_per_gpu=2"
            )
        if n_jobs == "auto":
            n_jobs = fitting_jobs(devices_of(config), per_gpu)
        if not is_whole(n_jobs, 1) or n_jobs > MOST_JOBS:
            raise ConfigError(f"n_jobs={n_jobs}: it is the number of runs at the same time, 1 to {MOST_JOBS}, or auto")
        if timeout is not None and not is_positive(timeout):
            raise ConfigError(f"timeout={timeout}: it is a number of seconds above 0 (or null for no limit)")
        if not (is_number(grace) and grace >= 0):
            raise ConfigError(f"hydra.launcher.grace={grace}: it is a number of seconds, 0 or more")
        return cls(
            n_jobs=n_jobs,
            name=None if name is None else str(name),
            resume=_choice("resume", config.get("resume", True), "true", "false", "failed"),
            force=_choice("force", config.get("force", False), "true", "false") == "true",
            on_error=_choice("on_error", config.get("on_error", "continue"), "continue", "stop"),
            grace=float(grace),
            runs_per_gpu=per_gpu,
        )


def _choice(key: str, value: Any, *choices: str) -> str:
    text = str(value).lower()
    if text not in choices:
        raise ConfigError(f"{key}={text}: it can be {', '.join(choices[:-1])} or {choices[-1]}")
    return text


@dataclass(frozen=True)
class Candidate:
    """A composed config that may become a run.

    Attributes:
        source: Its config.
        overrides: The overrides that made it.
        digest: Its fingerprint.
        refusal: Why its model can't be tuned by its method, or None.
    """

    source: RunConfig
    overrides: list[str]
    digest: str
    refusal: str | None

    @property
    def config(self) -> DictConfig:
        """The whole config."""
        return self.source.whole()

    @classmethod
    def of(cls, source: RunConfig, overrides: Sequence[str]) -> Candidate:
        """Identify a config, in which a variant that its checkpoint file tells is then spelt out.

        Raises:
            UserError: A value is impossible, it can't be resolved, or its data can't be identified.
        """
        check_values(source.values)
        source = with_variant(with_size(source, overrides))
        values = source.values
        init_from.check(values)
        digest = fingerprint(values)
        distillation.check(values)
        refit.check(values, source)
        return cls(source, list(overrides), digest, refusal(values))


def plan(
    candidates: Sequence[Candidate],
    *,
    folder: Path,
    name: str | None,
    results: ResultIndex,
    settings: SweepSettings,
) -> list[Job]:
    """Decide for each composed config what is to be done about it.

    Args:
        candidates: The composed config of each job.
        folder: Folder of the sweep, or the one that holds single runs.
        name: The sweep's name; None for a single run.
        results: What earlier sweeps left behind.
        settings: The sweep's switches.

    Returns:
        One job for each candidate, in order.
    """
    varied = varied_keys([candidate.overrides for candidate in candidates])
    if PRECISION_KEY in varied and _precision_follows([candidate.source.values for candidate in candidates]):
        varied.remove(PRECISION_KEY)
    jobs: list[Job] = []
    first: dict[str, Job] = {}
    for index, candidate in enumerate(candidates, 1):
        values, overrides, digest = candidate.source.values, candidate.overrides, candidate.digest
        own_name = run_name(values, digest)
        sweep = {"name": name, "folder": str(folder), "index": index, "total": len(candidates)}
        job = Job(
            source=candidate.source,
            index=index,
            total=len(candidates),
            fingerprint=digest,
            name=own_name,
            folder=folder / own_name,
            overrides=list(overrides),
            command=run_command([*hydra_overrides(), *overrides], name),
            varied={key: _value(values, key, overrides) for key in varied},
            sweep=None if name is None else sweep,
            git_commit=git_commit(),
            hydra_job=name is not None,
            warnings=warnings_about(values),
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


def decide(job: Job, results: ResultIndex, settings: SweepSettings) -> None:
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


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a model can't be tuned by a method, with this augmentation, or None."""
    if value_at(config, "peft.name") is None or value_at(config, "model.name") is None:
        return None
    from sousa_bench import peft

    return peft.precheck(config["model"], config["peft"], config.get("augmentation"), config.get("trainer"))


def with_size(source: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A budget in its one spelling; raise ConfigError where the size that it is to choose was given, too."""
    values = source.values
    if (budget := value_at(values, "peft.budget")) is not None:
        against_given_size(values["peft"], [split(word)[0] for word in overrides if not word.startswith("++")])
        if isinstance(budget, str):
            with suppress(ConfigError):  # what is none is refused with its run
                return source.having("peft.budget", Budget.of(budget).text)
    return source


def warnings_about(config: Mapping[str, Any]) -> list[str]:
    """What a config makes known before its run starts, and its result repeats."""
    if value_at(config, "peft.name") is None or value_at(config, "model.name") is None:
        return []
    from sousa_bench import peft

    return list(filter(None, [peft.oversized_rank(config["model"], config["peft"])]))


def varied_keys(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Config keys whose overrides differ between jobs, config groups that have a place of their own excepted."""
    fixed = ("model", "peft", "augmentation", "data", "seed", "trainer.max_epochs")
    jobs = [dict(split(override) for override in job) for job in overrides]
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job) if key not in fixed]
    return [key for key in keys if len({job.get(key) for job in jobs}) > 1 and not key.startswith("lineage.")]


def _precision_follows(configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each network has one precision only, as ``trainer.precision=auto`` makes it: then nobody varied it."""
    names = [tuple(str(value_at(config, key)) for key in NETWORK_KEYS) for config in configs]
    pairs = {(*name, value_at(config, PRECISION_KEY)) for name, config in zip(names, configs, strict=True)}
    return len(pairs) == len(set(names))


def _value(config: Mapping[str, Any], key: str, overrides: Sequence[str]) -> Any:
    value = value_at(config, key)
    if value is None or isinstance(value, (dict, list)):
        return dict(split(override) for override in overrides).get(key)
    return value


def check_possible(candidates: Sequence[Candidate]) -> None:
    """Raise ConfigError when there is nothing that could ever run."""
    if all(candidate.refusal for candidate in candidates):
        reasons = dict.fromkeys(str(candidate.refusal) for candidate in candidates)
        raise ConfigError("\n".join(reasons) or "the sweep holds no run")
