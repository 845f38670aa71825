"""A sweep: planned, done on this machine, on Slurm or by another launcher, and summed up."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.overrides import quoted
from sousa_bench.config.run_config import value_at
from sousa_bench.errors import ConfigError
from sousa_bench.results.locks import folder_lock
from sousa_bench.results.manifest import MANIFEST_FILE, read_manifest, relative
from sousa_bench.results.result import RESULT_FILE, write_json
from sousa_bench.results.run_process import alive, identity
from sousa_bench.results.scan import ROOT_NAMES, SKIPPED_FOLDERS
from sousa_bench.sweep import record, session
from sousa_bench.sweep.current_command import resume_command
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import counted, say
from sousa_bench.sweep.plan import Candidate, SweepSettings, check_possible, plan
from sousa_bench.sweep.progress import Progress, shown, summary
from sousa_bench.sweep.settled_precision import settled
from sousa_bench.sweep.slurm.ended_jobs import runs_in_queue
from sousa_bench.system.text_table import amount

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher

SCHEMA_VERSION = 1
Engine = Callable[[list[Job], Progress], list[Outcome]]
"""Does jobs, says how they go on, and gives the outcome of each."""


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
        process: The one that does it.
    """

    folder: Path
    name: str
    jobs: list[Job]
    settings: SweepSettings
    command: str
    numbered: bool = False
    process: dict[str, Any] = field(default_factory=identity)

    def record(self, *, ended: bool = False) -> None:
        """Write the manifest, ``sweep.json``.

        Jobs that an earlier or a simultaneous command put into the same folder, and that this one doesn't name, stay
        listed after this sweep's own, marked ``earlier``. ``processes`` names the commands that do the sweep: one that
        is listed and gone was killed.

        Args:
            ended: Whether this command is done with the sweep.
        """
        first = {job.fingerprint: job for job in reversed(self.jobs) if job.decision != "duplicate"}
        for job in self.jobs:
            if job.decision == "duplicate":
                job.result = first[job.fingerprint].result or first[job.fingerprint].folder
        entries = [self._entry(job) for job in self.jobs]
        own, path, me = {entry["fingerprint"] for entry in entries}, self.folder / MANIFEST_FILE, self.process
        with folder_lock(self.folder):
            old = read_manifest(self.folder)
            if not old and path.exists():
                path.replace(bad := path.with_name(f"{MANIFEST_FILE}.bad"))
                say(f"Warning: {path} can't be read; it is kept as {bad.name}, and a new one is written")
            earlier = [{**entry, "earlier": True} for entry in old.get("jobs", []) if entry["fingerprint"] not in own]
            if not self.numbered:
                for index, entry in enumerate(earlier, max((entry["index"] for entry in entries), default=0) + 1):
                    entry["index"] = index
            others = [each for each in old.get("processes", []) if each != me and alive(each)]
            now = f"{datetime.now():%Y-%m-%dT%H:%M:%S}"
            write_json(
                path,
                {
                    "schema_version": SCHEMA_VERSION,
                    "name": self.name,
                    "created": old.get("created") or now,
                    "updated": now,
                    "folder": str(self.folder),
                    "command": self.command,
                    **{key: getattr(self.settings, key) for key in ("resume", "force", "on_error", "n_jobs")},
                    "total": len(self.jobs),
                    "process": me,
                    "processes": others if ended else [*others, me],
                    "jobs": sorted([*entries, *earlier], key=lambda entry: int(entry["index"])),
                },
            )

    def _entry(self, job: Job) -> dict[str, Any]:
        """One job as the manifest lists it; paths are relative to the manifest."""
        elsewhere = job.result if job.result and self.folder not in job.result.parents else None
        return {
            "index": job.index,
            "fingerprint": job.fingerprint,
            "name": job.name,
            "overrides": list(job.overrides),
            "folder": relative(self.folder, job.result or job.folder),
            "status": job.decision,
            "result": relative(self.folder, elsewhere / RESULT_FILE) if elsewhere else None,
            "reason": job.reason,
            **({"reads": reads} if (reads := value_at(job.source.values, "peft.reads")) else {}),
            **({"slurm_job_id": job.slurm_job_id} if job.slurm_job_id else {}),
        }


def claim_folder(root: Path, name: str | None) -> Path:
    """The folder of a sweep: ``root/name``, or one by date and time that no other sweep has.

    Raises:
        ConfigError: ``name`` is no relative path below the root.
    """
    if name:
        below = Path(name).parts and not Path(name).is_absolute() and ".." not in name
        if not below or not re.fullmatch(r"[\w.,=+@-]+(/[\w.,=+@-]+)*", name):
            raise ConfigError(
                f"sweep={name}: a sweep's name is a folder below {root.name}/; "
                "it can hold letters, digits, '.', '-', '_' and '/'"
            )
        if skipped := [part for part in Path(name).parts if part in SKIPPED_FOLDERS or part.startswith(".")]:
            raise ConfigError(
                f"sweep={name}: readers of results enter no folder named {skipped[0]}; give it another name"
            )
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    now = datetime.now()
    day = root / f"{now:%Y-%m-%d}"
    day.mkdir(parents=True, exist_ok=True)
    for count in range(1, 10_000):
        folder = day / (f"{now:%H-%M-%S}" if count == 1 else f"{now:%H-%M-%S}_{count}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another sweep began in the same second
            continue
    raise ConfigError(f"{day}: no free folder for a sweep at {now:%H:%M:%S}; name it with sweep=NAME")


def withdraw(folder: Path) -> None:
    """Remove the folder of a sweep of which nothing was started, unless there is a result, or a run that Slurm has."""
    with suppress(OSError):
        on_slurm = any(entry.get("slurm_job_id") for entry in read_manifest(folder).get("jobs", []))
        if not on_slurm and not any(folder.rglob(RESULT_FILE)):
            shutil.rmtree(folder)
            folder.parent.rmdir()  # the day's folder, when this was its first


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
    from sousa_bench.config.composing import Composer  # it imports Hydra, which status does without

    if not overrides:
        raise ConfigError("the sweep holds no run: a range or list in it is empty")
    composer = Composer(loader, master)
    configs = [composer.compose(job) for job in counted(overrides, "composing")]
    given = [SweepSettings.of(config.values) for config in configs]
    if all(config.values.get("n_jobs") == "auto" for config in configs):  # it follows free memory and the runs' devices
        given = [replace(each, n_jobs=min(some.n_jobs for some in given)) for each in given]
    settings = given[0]
    if any(each != settings for each in given):
        raise ConfigError("n_jobs, sweep, resume, force and on_error belong to the sweep: they can't vary in it")
    pairs = list(zip(configs, overrides, strict=True))
    candidates = [Candidate.of(config, job) for config, job in counted(pairs, "checking")]
    if folder is None:  # a later batch may hold but such runs
        check_possible(candidates)
    root = sweeps_root(master)
    claimed = folder or claim_folder(root, settings.name)
    name = relative(root, claimed)
    folder = claimed.resolve()  # so that paths relative to it lead where they say
    on_slurm = runs_in_queue(root)  # before the results are read: it closes the records of Slurm jobs that are gone
    results = session.known_results(root)
    launcher = OmegaConf.select(master, "hydra.launcher._target_", default=None)
    candidates = settled(candidates, None if settings.afresh else results, on_slurm, launcher)
    jobs = plan(candidates, folder=folder, name=name, results=results, settings=settings)
    for job in jobs:
        if job.decision == "pending" and not settings.afresh and (there := on_slurm.get(job.fingerprint)):
            job.slurm_job_id, job.folder = there
    if prepare is not None:
        prepare(jobs)
    sweep = Sweep(folder, name, jobs, settings, resume_command(name), numbered=prepare is not None)
    sweep.record()
    return sweep


def do_sweep(sweep: Sweep, engine: Engine, *, width: int = 1, batch_of: Progress | None = None) -> list[Outcome]:
    """Do a planned sweep: say what is skipped, let an engine do the rest, sum up.

    Args:
        sweep: The plan.
        engine: Does the jobs that are pending.
        width: How many runs go on at the same time.
        batch_of: Progress of the larger whole, which sums up itself, where the sweep is one of its batches.
    """
    started = time.monotonic()
    progress = batch_of or Progress(len(sweep.jobs), width)
    if batch_of is None:
        say(f"Sweep {shown(sweep.folder)}: {amount(len(sweep.jobs), 'run')}")
    by_job = {id(outcome.job): outcome for outcome in _announce(sweep, progress)}
    session.current.outcomes += by_job.values()
    try:
        pending = [job for job in sweep.jobs if job.decision == "pending"]
        if sweep.settings.runs_per_gpu != "auto":  # which takes the memory of the first ones for that of the others
            pending.sort(key=lambda job: not job.stepless)
        done = engine(pending, progress)
    finally:  # note in the manifest that this command has ended, and what it found done by others meanwhile
        with suppress(OSError):  # the disk may be full by now
            sweep.record(ended=True)
    session.current.outcomes += done
    by_job |= {id(outcome.job): outcome for outcome in done}
    outcomes = [by_job[id(job)] for job in sweep.jobs if id(job) in by_job]
    if batch_of is None:
        refused = sum(job.decision == "refused" for job in sweep.jobs)
        took = time.monotonic() - started
        say(summary(outcomes, place=sweep.folder, command=sweep.command, seconds=took, refused=refused))
    return outcomes


def do_sweep_here(sweep: Sweep, batch_of: Progress | None = None) -> list[Outcome]:
    """Do a planned sweep on this machine; see :func:`do_sweep`."""

    def engine(jobs: list[Job], progress: Progress) -> list[Outcome]:
        return session.supervise(jobs, sweep.settings, progress)

    _leave_to_slurm(sweep)
    return do_sweep(sweep, engine, width=sweep.settings.n_jobs, batch_of=batch_of)


def do_sweep_elsewhere(sweep: Sweep, launcher: Launcher) -> Sequence[JobReturn]:
    """Hand a planned sweep to another launcher of Hydra's; the results tell what became of it."""
    returned: list[JobReturn] = []

    def engine(jobs: list[Job], progress: Progress) -> list[Outcome]:
        place = f"hydra.sweep.dir={quoted(str(sweep.folder))}"
        folders = [f"hydra.sweep.subdir={quoted(relative(sweep.folder, job.folder))}" for job in jobs]
        words = [[*job.overrides, place, folder] for job, folder in zip(jobs, folders, strict=True)]
        known = list(session.current.outcomes)
        returned.extend(launcher.launch(words, initial_job_idx=0))
        session.current.outcomes[:] = known  # a launcher that uses this process has added those of its runs
        return [Outcome.of(job, record.read(job.folder)) for job in jobs]

    do_sweep(sweep, engine)
    return returned


def _leave_to_slurm(sweep: Sweep) -> None:
    """Skip the runs that Slurm has in its queue."""
    for job in sweep.jobs:
        if job.decision == "pending" and job.slurm_job_id is not None:
            job.decision, job.reason = "skipped", f"Slurm has it (job {job.slurm_job_id}); hydra/launcher=slurm waits"


def _announce(sweep: Sweep, progress: Progress) -> list[Outcome]:
    """Say what a sweep won't run, and count it; the outcomes of those that count as runs."""
    outcomes = []
    for job in sweep.jobs:
        if job.decision == "pending":
            progress.warn(job)
        place = f"{job.index}/{job.total}"
        if job.decision == "reused":
            result = job.result or job.folder
            outcomes.append(Outcome.of(job, record.read(result), reused=True))
            say(f"Completed already {place}: {shown(result)}")
        elif job.decision == "skipped":
            outcomes.append(Outcome(job, "skipped", job.reason))
            say(f"Skipped {place}: {job.name}: {job.reason}")
        elif job.decision in ("refused", "duplicate"):
            say(f"Left out {place}: {job.name}: {job.reason}")
            progress.leave_out(job)
    for outcome in outcomes:
        progress.end(outcome)
    return outcomes


def sweeps_root(master: DictConfig) -> Path:
    """The results root of sweeps: the part of ``hydra.sweep.dir`` that is the same for every sweep."""
    node = OmegaConf.select(master, "hydra.sweep.dir", default=ROOT_NAMES[0])
    return Path(os.path.realpath(str(node)))  # resolve() fails where a link leads to itself
