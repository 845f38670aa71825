"""The front end of a command: from Hydra's entry to the exit code."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf, open_dict

from sousa_bench.config import conf_folder
from sousa_bench.config.config_errors import explain, is_config_error, left_to_runs
from sousa_bench.config.file_variant import with_variant
from sousa_bench.config.fingerprint import fingerprint, run_name
from sousa_bench.config.overrides import with_quotes
from sousa_bench.config.run_config import RunConfig, value_at
from sousa_bench.config.search_spaces import drop_space, register_spaces
from sousa_bench.errors import ConfigError, UserError
from sousa_bench.results.index import ResultIndex
from sousa_bench.results.manifest import read_manifest
from sousa_bench.results.result import PRECISION_KEY, RESULT_FILE
from sousa_bench.results.scan import ROOT_NAMES
from sousa_bench.sweep import record
from sousa_bench.sweep.current_command import config_folders, spell_augmentation, spell_search
from sousa_bench.sweep.early_clips import write_early
from sousa_bench.sweep.forkserver import PRELOAD
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import open_missing_streams, say
from sousa_bench.sweep.plan import Candidate, SweepSettings, check_possible, plan
from sousa_bench.sweep.progress import Progress, shown, summary
from sousa_bench.sweep.settled_precision import settled
from sousa_bench.sweep.spawner import ForkServer, Spawner, can_fork
from sousa_bench.sweep.supervisor import Rules, Supervisor
from sousa_bench.system.foreign import clean

TARGET = "sousa_bench.training.run.run"
ASKING = ("-h", "--help", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
INTERRUPTED = 130


@dataclass
class Session:
    """What one command's front end holds.

    Attributes:
        target: Dotted path of the function that does a run.
        modules: What the fork server imports.
        spawner: Where runs' processes come from; made when first needed.
        outcomes: Every job of this command.
        signal: Number of the signal that ended it early.
        single: The plan of a single run.
        roots: Folders below which results were looked for.
    """

    target: str = TARGET
    modules: Sequence[str] = PRELOAD
    spawner: Spawner | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    signal: int | None = None
    single: Job | None = None
    roots: tuple[Path, ...] = ()

    def start(self) -> Spawner:
        """Start the fork server, which imports in the background while the configs are composed."""
        if self.spawner is None:
            self.spawner = ForkServer(self.modules) if can_fork() else Spawner()
        return self.spawner

    def close(self) -> None:
        """End the fork server."""
        if self.spawner is not None:
            self.spawner.close()
            self.spawner = None

    @property
    def well(self) -> bool:
        """Whether nothing went wrong with any job so far."""
        return all(outcome.well for outcome in self.outcomes)


current = Session()
"""That of the present command. Hydra calls sweepers, launchers, resolvers and the job, and hands none of them on."""


def command_line(main: Callable[[], Any], **options: Any) -> NoReturn:
    """Run a ``@hydra.main`` function as a command and exit: see :func:`command` for the options and codes."""
    sys.exit(command(main, **options))


def command(
    main: Callable[[], Any], *, target: str = TARGET, modules: Sequence[str] = PRELOAD, conf: Path | None = None
) -> int:
    """Run a ``@hydra.main`` function as a command.

    Args:
        main: The decorated function; what it decorates calls :func:`execute`.
        target: Dotted path of the function that does a run: ``(config, folder, recorder) -> result blocks``.
        modules: What the fork server imports.
        conf: The folder of config groups that ``main`` has, where that isn't the package's own.

    Returns:
        0 when every run is completed, 1 when not, 2 for a config that can't be composed (nothing started), 130 after
        Ctrl-C (128 + its number for another signal).
    """
    global current
    current = Session(target, modules)
    open_missing_streams()
    spell_augmentation(sys.argv)
    spell_search(sys.argv)
    sys.argv[:] = with_quotes(sys.argv)
    register_spaces([conf or conf_folder(), *config_folders()])
    forget_other_launchers()
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        if not any(word in ASKING or word.startswith("--shell-completion") for word in sys.argv[1:]):
            launchers = [word for word in sys.argv[1:] if word.startswith("hydra/launcher=")]
            if not launchers or launchers[-1].endswith("local"):
                current.start()
            register_resolvers()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets its errors through, and they get one clear message
        _compose_and_run(main)
        return exit_code()
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED if current.signal is None else exit_code()
    except BrokenPipeError:  # whoever reads --help has enough
        sys.stderr.close()
        return exit_code()
    except Exception as error:  # an OSError that arrives here: a folder that can't be written, a full disk
        if not isinstance(error, UserError) and (
            wants_trace or not (is_config_error(error) or isinstance(error, OSError))
        ):
            raise
        with suppress(OSError):
            print(f"Error: {clean(explain(error))}", file=sys.stderr, flush=True)
        return 1 if current.outcomes else 2
    finally:
        current.close()


def _compose_and_run(main: Callable[[], Any]) -> None:
    while True:
        try:
            main()
            return
        except Exception as error:
            if current.outcomes or not left_to_runs(sys.argv, error):
                raise


def exit_code() -> int:
    """What became of this command's runs, as an exit code."""
    if current.signal is not None:
        return 128 + current.signal
    return 0 if current.well else 1


def completed_folders() -> list[Path]:
    """Folders of the runs that this command asked for and that are completed, in order."""
    return [outcome.job.result or outcome.job.folder for outcome in current.outcomes if outcome.status == "completed"]


def forget_other_launchers() -> None:
    """Take the choices of Hydra's submitit plugin away, whose names ``conf/hydra/launcher`` gives to launchers of ours.

    Hydra would hold our files against the plugin's schema, which knows other keys.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # it imports the plugin, which then registers nothing any more
    known = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for name in ("submitit_local", "submitit_slurm"):
        known.pop(f"{name}.yaml", None)


def register_resolvers() -> None:
    """Teach OmegaConf the names of runs' folders, which ``conf/hydra/output/sousa.yaml`` uses."""

    def name(*, _root_: DictConfig) -> str:
        return "" if _only_hydra(_root_) else run_name(_root_, fingerprint(_root_))

    def folder(root: str, *, _root_: DictConfig) -> str:
        return str(Path(root) if _only_hydra(_root_) else _single_folder(Path(os.path.realpath(root)), _root_))

    OmegaConf.register_new_resolver("sousa_run", folder, replace=True)
    OmegaConf.register_new_resolver("sousa_name", name, replace=True)


def _only_hydra(config: DictConfig) -> bool:
    """Whether this is Hydra's copy of its own node, whose values nobody uses yet."""
    return all(key == "hydra" for key in config)


def _single_folder(root: Path, config: DictConfig) -> Path:
    """Plan a single run when Hydra asks for its folder."""
    if current.single is None:
        if str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".SlurmLauncher"):
            name = OmegaConf.select(config, "hydra.runtime.choices.hydra/launcher")
            raise ConfigError(f"hydra/launcher={name} submits a sweep: add -m (a single run may be a sweep of one)")
        overrides = list(OmegaConf.select(config, "hydra.overrides.task", default=[]))
        settings = SweepSettings.of(config)
        candidate = Candidate.of(RunConfig(drop_space(config.copy())), overrides)
        check_possible([candidate])
        results = known_results(root)
        candidates = settled([candidate], None if settings.afresh else results)
        [current.single] = plan(candidates, folder=root, name=None, results=results, settings=settings)
    return current.single.result or current.single.folder


def results_roots(*more: Path) -> tuple[Path, ...]:
    """The results roots of the current folder, and those of ``more`` that don't lie below them."""
    roots = [Path(os.path.realpath(root)) for root in ROOT_NAMES]
    return (*roots, *(path for path in more if not any(root in (path, *path.parents) for root in roots)))


def known_results(*more: Path) -> ResultIndex:
    """Every result below the results roots of the current folder, and below ``more``."""
    current.roots = results_roots(*more)
    results = ResultIndex(current.roots)
    for problem in results.torn:
        say(f"Warning: {problem}; its run counts as not done")
    return results


def execute(cfg: DictConfig) -> float | None:
    """Do the run of a composed config: what the function under ``@hydra.main`` calls.

    A process is started for it and supervised, whoever calls: a single run, Hydra's basic launcher, another's job.

    Returns:
        ``val_acc`` or ``val_map``, or NaN when the run is not completed. It never raises for what a run does.
    """
    if current.signal is not None:  # stopped: a launcher that goes on to its next job gets nothing more
        return math.nan
    job = _job_of(cfg)
    if job.decision == "reused":
        result = job.result or job.folder
        say(f"Completed already: {shown(result)} (force=true runs it again)")
        outcome = Outcome.of(job, record.read(result), reused=True)
        current.outcomes.append(outcome)
        return outcome.score
    if job.decision == "skipped":
        say(f"Not run: {job.name}: {job.reason}")
        current.outcomes.append(Outcome(job, "skipped", job.reason))
        return math.nan
    started = time.monotonic()
    progress = Progress(1, 1)
    progress.warn(job)
    [outcome] = supervise([job], SweepSettings.of(job.config), progress)
    current.outcomes.append(outcome)
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
    if settings.on_error == "stop" and not current.well:
        raise UserError("on_error=stop: a run is not completed, and the sweeper's further batches are not started")


def supervise(jobs: Sequence[Job], settings: SweepSettings, progress: Progress) -> list[Outcome]:
    """Do the pending ones of ``jobs`` under a supervisor; a signal that it got ends the command."""
    roots = current.roots or results_roots(*(job.folder.parent for job in jobs[:1]))
    rules = Rules(
        settings.n_jobs,
        settings.on_error,
        settings.grace,
        current.target,
        roots=roots,
        runs_per_gpu=settings.runs_per_gpu,
    )
    supervisor = Supervisor(current.start(), rules, progress)
    if current.target == TARGET:
        write_early(jobs)
    outcomes = supervisor.run(jobs)
    if supervisor.signal is not None:
        current.signal = int(supervisor.signal)
    return outcomes


def _job_of(cfg: DictConfig) -> Job:
    """The plan of the run that Hydra is in: made when its folder was asked for, or by a sweeper elsewhere."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    config = drop_space(cfg.copy())
    with open_dict(config):
        config["hydra"] = hydra
    if current.single is not None and OmegaConf.is_missing(hydra.job, "num"):
        source = with_variant(RunConfig(config))
        if (precision := value_at(current.single.source.values, PRECISION_KEY)) is not None:
            source = source.having(PRECISION_KEY, precision)
        current.single.source = source
        return current.single
    folder = Path(hydra.runtime.output_dir).resolve()
    candidate = Candidate.of(RunConfig(config), list(hydra.overrides.task))
    manifest = read_manifest(folder.parent)
    name = str(manifest.get("name") or folder.parent.name)
    settings, results = SweepSettings.of(config), ResultIndex([folder])
    [job] = plan([candidate], folder=folder.parent, name=name, results=results, settings=settings)
    job.folder, job.hydra_job = folder, False
    entries = {entry["fingerprint"]: entry for entry in manifest.get("jobs", [])}
    if entry := entries.get(job.fingerprint):
        job.index, job.total = entry["index"], len(manifest["jobs"])
        job.sweep = {"name": name, "folder": str(folder.parent), "index": job.index, "total": job.total}
    elif entries:
        job.warnings.append(
            f"{job.name} is none of those that the sweep planned: a config was edited while the sweep ran"
        )
    return job
