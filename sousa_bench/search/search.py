"""A search, from its config to the best trial: ask, run a batch as a sweep does, tell, and so on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf, open_dict

from sousa_bench.config.composing import compose, remember_files
from sousa_bench.config.run_config import RunConfig
from sousa_bench.errors import ConfigError, UserError
from sousa_bench.results import stop_request
from sousa_bench.results.locks import folder_lock
from sousa_bench.search.optuna_study import ERROR, METRIC, STUDY_NAME, Trials
from sousa_bench.search.search_settings import METRICS, SearchSettings, built, import_optuna
from sousa_bench.search.space import Space, make_space
from sousa_bench.search.trial_table import STATUS, trial_table
from sousa_bench.search.watcher import Watcher
from sousa_bench.sweep import record, session
from sousa_bench.sweep.current_command import hydra_overrides, run_command
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import say
from sousa_bench.sweep.plan import Candidate, SweepSettings, check_possible
from sousa_bench.sweep.progress import Progress, shown
from sousa_bench.sweep.sweep import Sweep, claim_folder, plan_sweep, sweeps_root

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from optuna import Trial
    from optuna.trial import FrozenTrial

LOCK_FOLDER = ".search"


class BatchLauncher(Protocol):
    """What a search needs of a launcher."""

    def launch_sweep(self, sweep: Sweep, progress: Progress | None = None) -> Any:
        """Do a planned batch."""

    def width(self, settings: SweepSettings) -> int:
        """How many runs go on at the same time."""


def search(
    loader: ConfigLoader,
    master: DictConfig,
    launcher: BatchLauncher,
    settings: SearchSettings,
    params: Mapping[str, str],
    arguments: Sequence[str],
) -> float | None:
    """Search, or go on with a search of this name.

    Args:
        loader: Hydra's.
        master: The config that the search was started with.
        launcher: Does the batches.
        settings: The search's own.
        params: The space that a config names.
        arguments: Overrides of the command line.

    Returns:
        The best value, or None while no trial is completed.

    Raises:
        ConfigError: The space or a switch can't be. Nothing was written.
        UserError: Optuna is missing, or another process does this search.
    """
    import_optuna()
    for key, node in (("sampler", settings.sampler), ("pruner", settings.pruner)):
        if node is not None:
            built(f"hydra.sweeper.{key}", node)
    remember_files(loader)
    space = make_space(loader, master, params, arguments)
    first = compose(loader, master, space.overrides(space.baseline))
    switches = SweepSettings.of(first)
    if switches.resume == "failed":
        raise ConfigError("resume=failed: a search tells a failed trial once; run it by its own command")
    check_possible([Candidate.of(RunConfig(first), space.overrides(space.baseline))])
    folder = claim_folder(sweeps_root(master), switches.name).resolve()
    with ExitStack() as held:
        try:
            held.enter_context(folder_lock(folder / LOCK_FOLDER).acquire(blocking=False))
        except Timeout as error:
            words = "another process does this search; python -m sousa_bench.status shows it"
            raise UserError(f"{shown(folder)}: {words}") from error
        saved = master.copy()
        with open_dict(saved):
            saved.hydra.sweep.dir = str(folder)
        OmegaConf.save(saved, folder / "multirun.yaml")
        return _Search(loader, master, launcher, settings, space, switches, folder).complete()


@dataclass
class _Search:
    """The parts of one search."""

    loader: ConfigLoader
    master: DictConfig
    launcher: BatchLauncher
    settings: SearchSettings
    space: Space
    switches: SweepSettings
    folder: Path
    command: str = ""

    def __post_init__(self) -> None:
        self.trials = Trials(self.folder, self.space, self.settings)
        self.width = self.launcher.width(self.switches)
        self.progress = Progress(self.settings.n_trials, self.width)

    def complete(self) -> float | None:
        """Batches until every trial has ended, or the command was stopped."""
        self._open()
        while not self._stopped() and (batch := self.trials.next(self.width)):
            self._do(batch)
        say(self._summary())
        best = self._best()
        return None if best is None else best.value

    def _open(self) -> None:
        there = self.trials.all()
        for note in self.space.notes:
            say(f"Note: {note}")
        say(
            f"Search {shown(self.folder)}: {self.settings.n_trials} trials, {self.settings.direction} "
            f"{self.settings.metric or 'what ranks'} over {', '.join(self.space.distributions)}"
            f"{f'; {len(there)} begun earlier' if there else ''}"
        )
        for trial in there:
            if trial.state.is_finished():  # so that the counts on the screen go on
                self.progress.outcomes[trial.number + 1] = Outcome(_no_job(trial.number), STATUS[trial.state.name])

    def _stopped(self) -> bool:
        stop = self.switches.on_error == "stop" and not session.current.well
        return stop or session.current.signal is not None

    def _do(self, batch: Sequence[Trial]) -> None:
        """One batch, from its plan to what Optuna is told."""
        sweep = plan_sweep(
            self.loader,
            self.master,
            [self.space.overrides(asked.params) for asked in batch],
            self.folder,
            lambda jobs: self._number(batch, jobs),
        )
        self.command = sweep.command
        pairs = list(zip(batch, sweep.jobs, strict=True))
        for asked, job in list(pairs):
            if self.trials.was_pruned(asked) and stop_request.is_pruned(record.read(job.folder)):
                self.trials.prune(asked)  # the kill came after its end, and before that was told
                self.progress.end(Outcome(job, "pruned", record.read(job.folder).get("error")))
                pairs.remove((asked, job))
        sweep.jobs = [job for _, job in pairs if job.decision != "duplicate"]
        if not pairs:
            return
        running = [pair for pair in pairs if pair[1].decision == "pending"]
        watched = Watcher(running, self.settings) if self.settings.pruner else nullcontext()
        with watched:
            self.launcher.launch_sweep(sweep, self.progress)
        outcomes = {outcome.job.fingerprint: outcome for outcome in session.current.outcomes}
        for asked, job in pairs:
            outcome = outcomes.get(job.fingerprint)
            if outcome is not None and job.decision == "duplicate":  # two trials of a batch drew the same values
                self.progress.outcomes[job.index] = Outcome(job, outcome.status, reused=True)
            self._tell(asked, job, outcome)

    def _number(self, batch: Sequence[Trial], jobs: Sequence[Job]) -> None:
        """Let the jobs of a batch have their places in the whole search."""
        for asked, job in zip(batch, jobs, strict=True):
            job.index, job.total = asked.number + 1, self.settings.n_trials
            if job.sweep is not None:
                job.sweep |= {"index": job.index, "total": job.total, "trial": asked.number}

    def _tell(self, asked: Trial, job: Job, outcome: Outcome | None) -> None:
        """Tell what became of a trial; one that was interrupted, never started or can't be read now is begun still."""
        if outcome is None:
            if job.decision == "refused":
                self.trials.fail(asked, str(job.reason))
                say(f"FAIL: trial {asked.number}: {job.reason}")
            return
        folder = outcome.job.result or outcome.job.folder
        if outcome.status == "completed":
            if result := record.read(folder):
                self.trials.complete(asked, result)
            else:  # to call it failed would be for good; left as begun, the next command takes its result
                say(f"Warning: trial {asked.number} is completed, but {shown(folder)} can't be read now")
        elif outcome.status == "pruned":
            self.trials.prune(asked)
        elif outcome.status in ("failed", "timeout"):
            self.trials.fail(asked, str(outcome.error))
            say(f"FAIL: trial {asked.number}: {str(outcome.error).splitlines()[0]}")

    def _best(self) -> Any:
        done = [trial for trial in self.trials.all() if trial.state.name == "COMPLETE" and trial.value is not None]
        sign = -1 if self.settings.direction == "maximize" else 1
        return min(done, key=lambda trial: (sign * float(trial.value or 0.0), trial.number), default=None)

    def _summary(self) -> str:
        """The text at the end: counts, failures, the best trial, what comes next."""
        trials, wanted = self.trials.all(), self.settings.n_trials
        counts = [(what, sum(trial.state.name == state for trial in trials)) for state, what in STATUS.items()]
        ended = sum(trial.state.is_finished() for trial in trials)
        counted = ", ".join(f"{count} {what}" for what, count in counts if count)
        lines = [self._table(trials)] if trials else []
        lines.append(f"Search ended: {ended} of {wanted} trials{f': {counted}' if counted else ''}")
        for trial in trials:
            if trial.state.name == "FAIL":
                first = (str(trial.user_attrs.get(ERROR) or "").splitlines() or [""])[0]
                own = self.space.own(trial.params) if set(trial.params) >= set(self.space.distributions) else []
                lines.append(f"FAIL: trial {trial.number} ({' '.join(own)}): {first}")
        lines += self._best_lines()
        lines.append(f"Study: {shown(self.trials.file)} (optuna.load_study, name {STUDY_NAME!r}, {self.trials.url})")
        if ended < wanted and self.command:
            lines.append(f"Go on with the trials that are left: {self.command}")
        return "\n".join(lines)

    def _table(self, trials: Sequence[FrozenTrial]) -> str:
        metric = next(
            (m for trial in trials if (m := trial.user_attrs.get(METRIC))), self.settings.metric or METRICS[0]
        )
        seconds = {index - 1: outcome.seconds for index, outcome in self.progress.outcomes.items()}
        return trial_table(trials, list(self.space.distributions), metric, self.settings.direction, seconds)

    def _best_lines(self) -> list[str]:
        best = self._best()
        if best is None:
            return ["No trial is completed yet"]
        metric, place = best.user_attrs.get(METRIC, self.settings.metric), shlex.quote(shown(self.folder))
        base = next((t for t in self.trials.all() if t.number == 0 and t.state.name == "COMPLETE"), None)
        beside = (
            "the baseline" if best.number == 0 else f"baseline {base.value:.4f}" if base else "baseline not completed"
        )
        here = [word for word in hydra_overrides() if not word.startswith(("hydra/launcher", "hydra.launcher"))]
        command = run_command([*here, *self.space.overrides(best.params)], None)
        return [
            f"Best: trial {best.number}, {metric}={best.value:.4f} ({beside}): {' '.join(self.space.own(best.params))}",
            f"Run it: {command}",
            f"Take it on, with other seeds: python -m sousa_bench.promote {place} --top 1 --metric {metric}",
            f"Compare the trials: python -m sousa_bench.analyze {place}",
        ]


def _no_job(number: int) -> Job:
    """A place in the counts for a trial of an earlier command."""
    return Job(RunConfig(OmegaConf.create()), number + 1, 0, "", "", Path(), [], "")
