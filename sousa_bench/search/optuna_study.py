"""The study of a search: one SQLite file in the sweep's folder, which the search's own process alone opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousa_bench.errors import ConfigError, UserError
from sousa_bench.results.manifest import STUDY_FILE
from sousa_bench.search.search_settings import METRICS, SearchSettings, built, import_optuna
from sousa_bench.search.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

STUDY_NAME = "search"
PRUNED = "sousa_bench_pruned"  # attribute of a trial whose run was asked to end
METRIC = "sousa_bench_metric"  # of a completed one: the metric that its value is
ERROR = "sousa_bench_error"  # of one that failed: why
FACTS = "sousa_bench"  # attribute of the study: what its values depend on


class Trials:
    """Asks and tells; what a killed command began is taken up again.

    Args:
        folder: The sweep's.
        space: What varies.
        settings: The search's.

    Raises:
        ConfigError: The folder holds a search over another space, metric or config.
        UserError: The file can't be used.
    """

    def __init__(self, folder: Path, space: Space, settings: SearchSettings) -> None:
        self.file = folder / STUDY_FILE
        self._space = space
        self._settings = settings
        self._tried: set[int] = set()
        self.study = self._open()

    @property
    def url(self) -> str:
        """Where Optuna finds it."""
        return _url(self.file)

    def _open(self) -> Study:
        optuna = import_optuna()
        from sqlalchemy.exc import SQLAlchemyError

        settings = self._settings
        pruner = (
            optuna.pruners.NopPruner() if settings.pruner is None else built("hydra.sweeper.pruner", settings.pruner)
        )
        sampler = built("hydra.sweeper.sampler", settings.sampler, settings.seed)
        try:
            storage = optuna.storages.RDBStorage(self.url, engine_kwargs={"connect_args": {"timeout": 60}})
            study = optuna.create_study(
                storage=storage,
                study_name=STUDY_NAME,
                direction=settings.direction,
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
            )
            self._hold_against(study)
            trials = study.get_trials(deepcopy=False)
            if trials:  # with the seed alone it would draw once more what it drew when the study began
                study.sampler = built("hydra.sweeper.sampler", settings.sampler, settings.seed + len(trials))
            else:
                study.enqueue_trial(dict(self._space.baseline), user_attrs={"baseline": True})
            return study
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            raise UserError(f"{self.file}: can't be used as a study ({str(error).splitlines()[0]})") from error

    def _hold_against(self, study: Study) -> None:
        """Refuse to go on with a study whose values would not be comparable."""
        facts: dict[str, Any] = {
            "metric": self._settings.metric or METRICS[0],
            "direction": self._settings.direction,
            "baseline": self._space.identity,
            "space": self._space.description(),
        }
        old = study.user_attrs.get(FACTS)
        if old is None:
            study.set_user_attr(FACTS, facts)
            return
        for key, what in (("space", "space"), ("metric", "metric"), ("direction", "direction"), ("baseline", "config")):
            if json.dumps(old.get(key), sort_keys=True) != json.dumps(facts[key], sort_keys=True):
                changes = _changes(old.get(key), facts[key]) if key == "space" else ""
                raise ConfigError(
                    f"{self.file}: this sweep holds a search with another {what}{changes}; give the new one another "
                    "name (sweep=NAME), or the same values as before (another version of the package may have other "
                    "spaces)"
                )

    def next(self, size: int) -> list[Trial]:
        """The next trials to do, at most ``size``: first those that were begun and have no end, then new ones."""
        from optuna.trial import Trial, TrialState

        frozen = self.study.get_trials(deepcopy=False)
        begun = [t for t in frozen if t.state == TrialState.RUNNING and t.number not in self._tried][:size]
        asked = [self._drawn(Trial(self.study, item._trial_id)) for item in begun]
        count = sum(item.state != TrialState.WAITING for item in frozen)
        while len(asked) < size and count < self._settings.n_trials:
            asked.append(self._drawn(self.study.ask()))
            count += 1
        self._tried |= {each.number for each in asked}
        return asked

    def _drawn(self, trial: Trial) -> Trial:
        """Draw what a trial doesn't have yet: a kill may have come between two parameters."""
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is out of range")  # a baseline may lie outside on purpose
            for key, item in self._space.distributions.items():
                trial._suggest(key, item)
        return trial

    def complete(self, asked: Trial, result: Mapping[str, Any]) -> None:
        """Tell what a completed run reached; one that lacks the metric has failed."""
        metrics = result.get("metrics") or {}
        metric = self._settings.metric_of(metrics)
        value = metrics.get(metric)
        if value is None:
            self.fail(asked, f"its result has no {metric}")
            return
        asked.set_user_attr(METRIC, metric)
        report(asked, result.get("history") or [], metric)
        self.study.tell(asked.number, float(value))

    def prune(self, asked: Trial) -> None:
        """Tell that a run was given up; its last value counts for the sampler."""
        from optuna.trial import TrialState

        self.study.tell(asked.number, state=TrialState.PRUNED)

    def fail(self, asked: Trial, why: str) -> None:
        """Tell that a run failed."""
        from optuna.trial import TrialState

        asked.set_user_attr(ERROR, why)
        self.study.tell(asked.number, state=TrialState.FAIL)

    def was_pruned(self, asked: Trial) -> bool:
        """Whether an earlier command asked the trial's run to end."""
        return bool(asked.user_attrs.get(PRUNED))

    def all(self) -> list[FrozenTrial]:
        """Every trial that was begun."""
        from optuna.trial import TrialState

        return [item for item in self.study.get_trials(deepcopy=False) if item.state != TrialState.WAITING]


def report(trial: Trial, history: list[dict[str, Any]], metric: str) -> None:
    """Tell Optuna the epochs that it doesn't know yet."""
    known = trial.study._storage.get_trial(trial._trial_id).intermediate_values
    for entry in history:
        value, epoch = entry.get(metric), entry.get("epoch")
        if isinstance(value, (int, float)) and isinstance(epoch, int) and epoch not in known:
            trial.report(float(value), epoch)


def _url(file: Path) -> str:
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(file)).render_as_string()


def _changes(old: Any, new: Mapping[str, Any]) -> str:
    """What differs between two descriptions of a space, each before and now: an end of a range, or its choices."""
    before, now = (_described(space) if isinstance(space, Mapping) else {} for space in (old, new))
    return "".join(
        f", {name}: {before.get(name, 'none')} before, {now.get(name, 'none')} now"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    )


def _described(space: Mapping[str, Any]) -> dict[str, str]:
    """Each value of a described space as JSON, by its key and what it is: ``peft.r choices``."""
    facts = {key: {"kind": item.get("name"), **item.get("attributes", {})} for key, item in space.items()}
    return {f"{key} {name}": json.dumps(value) for key, item in facts.items() for name, value in item.items()}
