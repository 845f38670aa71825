"""A whole sweep: planned, done on this machine, on Slurm or by another launcher, and summed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.overrides import quoted
from sousa_bench.errors import ConfigError
from sousa_bench.results.known import ROOTS
from sousa_bench.results.manifest import relative
from sousa_bench.sweep import record
from sousa_bench.sweep.command_line import flags, hydra_words, resume_command
from sousa_bench.sweep.conclude import score
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import say
from sousa_bench.sweep.plan import Candidate, check_possible, plan
from sousa_bench.sweep.progress import Progress, shown, summary
from sousa_bench.sweep.session import current, known_results, supervise
from sousa_bench.sweep.slurm.adopt import waiting
from sousa_bench.sweep.sweep_folder import claim_folder, withdraw, write_manifest
from sousa_bench.sweep.switches import SweepSettings

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher

    from sousa_bench.sweep.slurm.submit import Preset


@dataclass
class Sweep:
    """A sweep that is planned.

    Attributes:
        folder: Its folder, which holds ``sweep.json``.
        name: The folder below the results root.
        jobs: Its jobs, in order.
        settings: Its switches.
        command: The command that goes on with it.
        numbered: Whether its jobs are one batch of several, numbered through.
    """

    folder: Path
    name: str
    jobs: list[Job]
    settings: SweepSettings
    command: str
    numbered: bool = False

    def record(self, *, ended: bool = False) -> None:
        """Write the manifest.

        Args:
            ended: Whether this command is done with the sweep.
        """
        first = {job.fingerprint: job for job in reversed(self.jobs) if job.decision != "duplicate"}
        for job in self.jobs:
            if job.decision == "duplicate":
                job.result = first[job.fingerprint].result or first[job.fingerprint].folder
        facts = {
            "resume": self.settings.resume,
            "force": self.settings.force,
            "on_error": self.settings.on_error,
            "n_jobs": self.settings.n_jobs,
            "total": len(self.jobs),
        }
        write_manifest(
            self.folder,
            self.jobs,
            name=self.name,
            command=self.command,
            facts=facts,
            ended=ended,
            numbered=self.numbered,
        )


def plan_sweep(
    loader: ConfigLoader,
    master: DictConfig,
    overrides: Sequence[Sequence[str]],
    folder: Path | None = None,
    prepare: Callable[[list[Job]], None] | None = None,
) -> Sweep:
    """Compose, check and plan every job of a sweep, before anything starts, and write its manifest.

    Args:
        loader: Hydra's.
        master: The config that the sweep was started with.
        overrides: Of each job.
        folder: The sweep's folder when it has one already (a sweeper that launches several batches).
        prepare: Called with the jobs before they are written down.

    Raises:
        UserError: A config can't be composed, or no run is possible. Nothing was written.
    """
    from sousa_bench.config.composing import compose, remember_files  # it imports Hydra, which status does without

    remember_files(loader)
    configs = [compose(loader, master, job) for job in overrides]
    given = [SweepSettings.of(config) for config in configs]
    if all(config.get("n_jobs") == "auto" for config in configs):  # it follows free memory and the runs' devices
        given = [replace(each, n_jobs=min(some.n_jobs for some in given)) for each in given]
    settings = given[0]
    if any(each != settings for each in given):
        raise ConfigError("n_jobs, sweep, resume, force and on_error belong to the sweep: they can't vary in it")
    candidates = [Candidate.of(config, job) for config, job in zip(configs, overrides, strict=True)]
    if folder is None:  # a later batch may hold but such runs
        check_possible(candidates)
    root = sweeps_root(master)
    claimed = folder or claim_folder(root, settings.name)
    name = relative(root, claimed)
    folder = claimed.resolve()  # so that paths relative to it lead where they say
    on_slurm = waiting(root)  # before the results are read: it closes the records of Slurm jobs that are gone
    jobs = plan(
        candidates,
        folder=folder,
        name=name,
        results=known_results(root),
        settings=settings,
        flags=flags(),
        hydra_words=hydra_words(),
    )
    for job in jobs:
        if job.decision == "pending" and not settings.afresh and (there := on_slurm.get(job.fingerprint)):
            job.slurm_job_id, job.folder = there.job_id, there.folder
    if prepare is not None:
        prepare(jobs)
    sweep = Sweep(folder, name, jobs, settings, resume_command(name), numbered=prepare is not None)
    sweep.record()
    return sweep


def do_sweep(sweep: Sweep, progress: Progress | None = None) -> list[Outcome]:
    """Do a planned sweep on this machine: say what is skipped, run the rest, sum up.

    Args:
        sweep: The plan.
        progress: That of the larger whole, which sums up itself, where this is one of its batches.
    """
    for job in sweep.jobs:
        if job.decision == "pending" and job.slurm_job_id is not None:
            job.decision, job.reason = "skipped", f"Slurm has it (job {job.slurm_job_id}); hydra/launcher=slurm waits"
    return _do(sweep, progress, sweep.settings.n_jobs, supervise)


def do_sweep_on_slurm(sweep: Sweep, preset: Preset, progress: Progress | None = None) -> list[Outcome]:
    """Do a planned sweep as a Slurm job array; otherwise the same as :func:`do_sweep`.

    Raises:
        SubmissionError: Slurm does not take it.
    """
    from sousa_bench.sweep.slurm.engine import SlurmEngine
    from sousa_bench.sweep.slurm.submit import SubmissionError

    engine = SlurmEngine(sweep, preset, current.target)

    def run(jobs: Sequence[Job], settings: SweepSettings, progress: Progress) -> list[Outcome]:
        outcomes = engine.run(jobs, progress)
        current.outcomes += outcomes
        current.signal = engine.signal
        return outcomes

    try:
        return _do(sweep, progress, preset.array_parallelism, run)
    except SubmissionError:
        if sweep.settings.name is None and not sweep.numbered:  # a folder of its own time, which nobody else uses
            withdraw(sweep.folder)
        raise


def _do(
    sweep: Sweep,
    whole: Progress | None,
    width: int,
    engine: Callable[[list[Job], SweepSettings, Progress], list[Outcome]],
) -> list[Outcome]:
    started = time.monotonic()
    progress = whole or Progress(len(sweep.jobs), width)
    if whole is None:
        say(f"Sweep {shown(sweep.folder)}: {len(sweep.jobs)} runs")
    by_job = announce(sweep, progress)
    with noted_end(sweep):
        for outcome in engine(sweep.jobs, sweep.settings, progress):
            by_job[id(outcome.job)] = outcome
    outcomes = [by_job[id(job)] for job in sweep.jobs if id(job) in by_job]
    if whole is None:
        say(summary(outcomes, place=sweep.folder, command=sweep.command, seconds=time.monotonic() - started))
    return outcomes


def elsewhere(sweep: Sweep, launcher: Launcher) -> Sequence[JobReturn]:
    """Hand a planned sweep to another launcher of Hydra's; the results tell what became of it."""
    started = time.monotonic()
    say(f"Sweep {shown(sweep.folder)}: {len(sweep.jobs)} runs")
    by_job = announce(sweep, Progress(len(sweep.jobs), 1))
    pending = [job for job in sweep.jobs if job.decision == "pending"]
    places = [f"hydra.sweep.dir={quoted(str(sweep.folder))}"]
    with noted_end(sweep):
        returned = launcher.launch(
            [
                [*job.overrides, *places, f"hydra.sweep.subdir={quoted(relative(sweep.folder, job.folder))}"]
                for job in pending
            ],
            initial_job_idx=0,
        )
    for job in pending:
        result = record.read(job.folder)
        status = str(result.get("status", "pending"))
        by_job[id(job)] = Outcome(job, status, result.get("error"), score=score(record.read(job.folder)))
    current.outcomes = [by_job[id(job)] for job in sweep.jobs if id(job) in by_job]
    text = summary(current.outcomes, place=sweep.folder, command=sweep.command, seconds=time.monotonic() - started)
    say(text)
    return returned


@contextmanager
def noted_end(sweep: Sweep) -> Iterator[None]:
    """Note in the manifest that this command has ended, and what it found done by others meanwhile."""
    try:
        yield
    finally:
        with suppress(OSError):  # the disk may be full by now
            sweep.record(ended=True)


def announce(sweep: Sweep, progress: Progress) -> dict[int, Outcome]:
    """Say what a sweep won't run, and count it."""
    known: dict[int, Outcome] = {}
    for job in sweep.jobs:
        if job.decision == "reused":
            result = job.result or job.folder
            known[id(job)] = Outcome(job, "completed", score=score(record.read(result)), reused=True)
            say(f"Completed already {job.index}/{job.total}: {shown(result)}")
        elif job.decision == "skipped":
            known[id(job)] = Outcome(job, "skipped", job.reason)
            say(f"Skipped {job.index}/{job.total}: {job.name}: {job.reason}")
        elif job.decision in ("refused", "duplicate"):
            say(f"Left out {job.index}/{job.total}: {job.name}: {job.reason}")
            progress.leave_out(job)
    for outcome in known.values():
        progress.end(outcome)
    current.outcomes += known.values()
    return known


def sweeps_root(master: DictConfig) -> Path:
    """The results root of sweeps: the part of ``hydra.sweep.dir`` that is the same for every sweep."""
    node = OmegaConf.select(master, "hydra.sweep.dir", default=ROOTS[0])
    return Path(str(node)).resolve()
