"""The front end of a command: from Hydra's entry to the exit code."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import DictConfig, OmegaConf, open_dict

from sousa_bench.errors import ConfigError, UserError
from sousa_bench.result import RESULT_FILE
from sousa_bench.sweep import attempt, record
from sousa_bench.sweep.combinations import quoted
from sousa_bench.sweep.config_errors import explain, is_config_error
from sousa_bench.sweep.fingerprint import fingerprint, run_name
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.known import ROOTS, Results
from sousa_bench.sweep.manifest import claim_folder, read_manifest, relative, withdraw, write_manifest
from sousa_bench.sweep.output import say
from sousa_bench.sweep.plan import Candidate, check_possible, plan
from sousa_bench.sweep.progress import Progress, shown, summary
from sousa_bench.sweep.server import PRELOAD
from sousa_bench.sweep.settings import SweepSettings
from sousa_bench.sweep.slurm.adopt import waiting
from sousa_bench.sweep.starter import ForkServer, Spawner, can_fork
from sousa_bench.sweep.supervisor import Rules, Supervisor

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher

    from sousa_bench.sweep.slurm.submit import Preset

TARGET = "sousa_bench.run.run"
ASKING = ("-h", "--help", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
INTERRUPTED = 130


@dataclass
class Session:
    """What one command's front end holds.

    Attributes:
        target: Dotted path of the function that does a run.
        modules: What the fork server imports.
        starter: Where runs' processes come from; started when first needed.
        outcomes: Every job of this command.
        signal: Number of the signal that ended it early.
        single: The plan of a single run.
        roots: Folders below which results were looked for.
    """

    target: str = TARGET
    modules: Sequence[str] = PRELOAD
    starter: ForkServer | Spawner | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    signal: int | None = None
    single: Job | None = None
    roots: tuple[Path, ...] = ()

    def start(self) -> ForkServer | Spawner:
        """Start the fork server, which imports in the background while the configs are composed."""
        if self.starter is None:
            self.starter = ForkServer(self.modules) if can_fork() else Spawner()
        return self.starter

    def close(self) -> None:
        """End the fork server."""
        if self.starter is not None:
            self.starter.close()
            self.starter = None


current = Session()


def command_line(main: Callable[[], Any], *, target: str = TARGET, modules: Sequence[str] = PRELOAD) -> NoReturn:
    """Run a ``@hydra.main`` function as a command and exit: see :func:`command` for the codes."""
    sys.exit(command(main, target=target, modules=modules))


def command(main: Callable[[], Any], *, target: str = TARGET, modules: Sequence[str] = PRELOAD) -> int:
    """Run a ``@hydra.main`` function as a command.

    Args:
        main: The decorated function; what it decorates calls :func:`execute`.
        target: Dotted path of the function that does a run: ``(config, folder) -> result blocks``.
        modules: What the fork server imports.

    Returns:
        0 when every run is completed, 1 when not, 2 for a config that can't be composed (nothing started), 130 after
        Ctrl-C (128 + its number for another signal).
    """
    current.target, current.modules = target, modules
    current.outcomes.clear()
    current.signal, current.single, current.roots = None, None, ()
    spell_augmentation(sys.argv)
    spell_search(sys.argv)
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        if not any(word in ASKING or word.startswith("--shell-completion") for word in sys.argv[1:]):
            if not any(word.startswith("hydra/launcher=") and word != "hydra/launcher=local" for word in sys.argv[1:]):
                current.start()
            register_resolvers()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets its errors through, and they get one clear message
        main()
        return exit_code()
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED if current.signal is None else exit_code()
    except UserError as error:
        return _refuse(error)
    except Exception as error:  # an OSError that arrives here: a folder that can't be written, a full disk
        if wants_trace or not (is_config_error(error) or isinstance(error, OSError)):
            raise
        return _refuse(error)
    finally:
        current.close()


def exit_code() -> int:
    """What became of this command's runs, as an exit code."""
    if current.signal is not None:
        return 128 + current.signal
    return 0 if all(outcome.well for outcome in current.outcomes) else 1


def _refuse(error: Exception) -> int:
    with suppress(OSError):
        print(f"Error: {explain(error)}", file=sys.stderr, flush=True)
    return 1 if current.outcomes else 2


def spell_augmentation(argv: list[str]) -> None:
    """Let ``augmentation=true|false``, the older runner's spelling, mean ``on|off``."""
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if key == "augmentation" and equals:
            argv[place] = f"{key}=" + ",".join(
                {"true": "on", "false": "off"}.get(choice.strip().lower(), choice) for choice in value.split(",")
            )


def spell_search(argv: list[str]) -> None:
    """Let ``search=lora``, or ``+search=lora``, be enough: a space of a search goes to the sweeper that searches."""
    asked = [place for place, word in enumerate(argv) if word.lstrip("+").startswith("search=")]
    for place in asked:
        argv[place] = argv[place].lstrip("+")
    if any(argv[place] != "search=null" for place in asked) and not any(w.startswith("hydra/sweeper=") for w in argv):
        argv.append("hydra/sweeper=optuna")


def register_resolvers() -> None:
    """Teach OmegaConf the names of runs' folders, which ``conf/hydra/output/sousa.yaml`` uses."""
    OmegaConf.register_new_resolver("sousa_run", lambda root, *, _root_: str(single_folder(root, _root_)), replace=True)
    OmegaConf.register_new_resolver("sousa_name", lambda *, _root_: _name(_root_), replace=True)


def _name(config: DictConfig) -> str:
    return "" if _hydra_alone(config) else run_name(config, fingerprint(config))


def _hydra_alone(config: DictConfig) -> bool:
    """Whether this is Hydra's copy of its own node, whose values nobody uses yet."""
    return not any(key != "hydra" for key in config)


def single_folder(root: str, config: DictConfig) -> Path:
    """Plan a single run when Hydra asks for its folder."""
    if _hydra_alone(config):
        return Path(root)
    if current.single is None:
        if str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".SlurmLauncher"):
            raise ConfigError("hydra/launcher=slurm submits a sweep: add -m (a single run may be a sweep of one)")
        overrides = list(OmegaConf.select(config, "hydra.overrides.task", default=[]))
        settings = SweepSettings.of(config)
        folder = Path(root).resolve()
        candidate = Candidate.of(config, overrides)
        check_possible([candidate])
        results = known_results(folder)
        [current.single] = plan(
            [candidate],
            folder=folder,
            name=None,
            results=results,
            settings=settings,
            flags=flags(),
            hydra_words=hydra_words(),
        )
    return current.single.result or current.single.folder


def results_roots(*more: Path) -> tuple[Path, ...]:
    """The results roots of the current folder, and those of ``more`` that don't lie below them."""
    roots = [(Path.cwd() / root).resolve() for root in ROOTS]
    return (*roots, *(path for path in more if not any(root in (path, *path.parents) for root in roots)))


def known_results(*more: Path) -> Results:
    """Every result below the results roots of the current folder, and below ``more``."""
    current.roots = results_roots(*more)
    results = Results(current.roots)
    for problem in results.torn:
        say(f"Warning: {problem}; its run counts as not done")
    return results


def execute(cfg: DictConfig) -> float | None:
    """Do the run of a composed config: what the function under ``@hydra.main`` calls.

    In a supervised process it is done here; anywhere else (a single run, Hydra's basic launcher, a Slurm job) a
    process is started for it and supervised.

    Returns:
        ``val_acc``, or NaN when the run is not completed. It never raises for what a run does.
    """
    if attempt.current is not None:
        return attempt.current.call(cfg)
    if current.signal is not None:  # stopped: a launcher that goes on to its next job gets nothing more
        return math.nan
    job = _job_of(cfg)
    if job.decision == "reused":
        result = job.result or job.folder
        say(f"Completed already: {shown(result)} (force=true runs it again)")
        outcome = Outcome(job, "completed", score=_score(result), reused=True)
        current.outcomes.append(outcome)
        return outcome.score
    settings = SweepSettings.of(job.config)
    started = time.monotonic()
    [outcome] = supervise([job], settings, Progress(1, 1))
    text = summary([outcome], place=None, command=job.command, seconds=time.monotonic() - started)
    if job.sweep is None:
        place = job.folder / RESULT_FILE
        say("\n".join(filter(None, [text, f"Result: {shown(place)}" if place.is_file() else ""])))
    return outcome.score


def check_going_on(settings: SweepSettings) -> None:
    """End a command whose sweeper wants one more batch after it was stopped.

    Raises:
        KeyboardInterrupt: By a signal.
        UserError: By ``on_error=stop``.
    """
    if current.signal is not None:
        raise KeyboardInterrupt
    if settings.on_error == "stop" and not all(outcome.well for outcome in current.outcomes):
        raise UserError("on_error=stop: a run is not completed, and the sweeper's further batches are not started")


def supervise(jobs: Sequence[Job], settings: SweepSettings, progress: Progress) -> list[Outcome]:
    """Do the pending ones of ``jobs`` under a supervisor; the outcomes also count for the exit code."""
    roots = current.roots or results_roots(*(job.folder.parent for job in jobs[:1]))
    rules = Rules(settings.n_jobs, settings.on_error, settings.grace, current.target, roots=roots)
    supervisor = Supervisor(current.start(), rules, progress)
    outcomes = supervisor.run(jobs)
    current.outcomes += outcomes
    if supervisor.signal is not None:
        current.signal = int(supervisor.signal)
    return outcomes


def _job_of(cfg: DictConfig) -> Job:
    """The plan of the run that Hydra is in: made when its folder was asked for, or by a sweeper elsewhere."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    config = cfg.copy()
    with open_dict(config):
        config["hydra"] = hydra
    folder = Path(hydra.runtime.output_dir).resolve()
    overrides = list(hydra.overrides.task)
    if current.single is not None and OmegaConf.is_missing(hydra.job, "num"):
        current.single.config = config
        return current.single
    manifest = read_manifest(folder.parent)
    settings = SweepSettings.of(config)
    name = str(manifest.get("name") or folder.parent.name)
    [job] = plan(
        [Candidate.of(config, overrides)],
        folder=folder.parent,
        name=name,
        results=Results([folder]),
        settings=settings,
        flags=flags(),
        hydra_words=hydra_words(),
    )
    job.folder, job.hydra_job = folder, False
    entries = manifest.get("jobs", [])
    for entry in entries:
        if entry["fingerprint"] == job.fingerprint:
            job.index, job.total = entry["index"], len(entries)
            job.sweep = {"name": name, "folder": str(folder.parent), "index": job.index, "total": job.total}
    if entries and job.fingerprint not in {entry["fingerprint"] for entry in entries}:
        words = "this run is none of those that the sweep planned: a config was edited while the sweep ran"
        say(f"Warning: {job.name}: {words}")
        job.warnings.append(words)
    return job


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
    from sousa_bench.sweep.compose import compose, remember_files  # it imports Hydra, which status does without

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
    sweep = Sweep(folder, name, jobs, settings, _resume_command(name), numbered=prepare is not None)
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
        by_job[id(job)] = Outcome(job, status, result.get("error"), score=_score(job.folder))
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
            known[id(job)] = Outcome(job, "completed", score=_score(result), reused=True)
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


def _score(folder: Path) -> float:
    value = (record.read(folder).get("metrics") or {}).get("val_acc")
    return math.nan if value is None else float(value)


def hydra_words() -> list[str]:
    """Overrides of the present command that tell Hydra where runs go and how they are launched.

    What belongs to the sweeper is left out: it says which runs there are, and a run's own command names one.
    """
    words = [word for word in sys.argv[1:] if word.startswith(("hydra.", "hydra/"))]
    return [word for word in words if not word.startswith(("hydra.sweeper", "hydra/sweeper"))]


def flags() -> list[str]:
    """Flags of the present command that choose where configs come from."""
    found, words = [], iter(sys.argv[1:])
    for word in words:
        name = word.partition("=")[0]
        if name in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"):
            found.append(word)
            if "=" not in word:
                found.append(next(words, ""))
    return found


def _resume_command(name: str) -> str:
    words = [word for word in sys.argv[1:] if word.partition("=")[0] not in ("sweep", "resume", "force")]
    if "-m" not in words and "--multirun" not in words:
        words.insert(0, "-m")
    return shlex.join(["python", "-m", "sousa_bench.train", *words, f"sweep={name}"])
