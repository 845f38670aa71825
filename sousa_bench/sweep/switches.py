"""The switches of a sweep, read from its config and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.errors import ConfigError
from sousa_bench.sweep.job import devices_of
from sousa_bench.sweep.resources import fitting_jobs


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
    """

    n_jobs: int = 1
    name: str | None = None
    resume: str = "true"
    force: bool = False
    on_error: str = "continue"
    grace: float = 30.0

    @property
    def afresh(self) -> bool:
        """Whether earlier results don't count."""
        return self.force or self.resume == "false"

    @classmethod
    def of(cls, config: DictConfig) -> SweepSettings:
        """Read the switches.

        Raises:
            ConfigError: A switch has a value that it can't have.
        """
        resume = str(config.get("resume", True)).lower()
        _choice("resume", resume, ("true", "false", "failed"))
        on_error = str(config.get("on_error", "continue"))
        _choice("on_error", on_error, ("continue", "stop"))
        force = config.get("force", False)
        _choice("force", str(force).lower(), ("true", "false"))
        n_jobs = config.get("n_jobs", 1)
        if n_jobs == "auto":
            n_jobs = fitting_jobs(devices_of(config))
        if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs < 1:
            raise ConfigError(f"n_jobs={n_jobs}: it is the number of runs at the same time, 1 or more, or auto")
        check_timeout(config)
        name = config.get("sweep")
        grace = OmegaConf.select(config, "hydra.launcher.grace", default=30.0)
        if not isinstance(grace, (int, float)) or isinstance(grace, bool) or grace < 0:
            raise ConfigError(f"hydra.launcher.grace={grace}: it is a number of seconds, 0 or more")
        return cls(
            n_jobs=n_jobs,
            name=None if name is None else str(name),
            resume=resume,
            force=str(force).lower() == "true",
            on_error=on_error,
            grace=float(grace),
        )


def check_timeout(config: DictConfig) -> None:
    """Raise ConfigError unless ``timeout`` is a positive number of seconds or null."""
    timeout = config.get("timeout")
    if timeout is not None and (not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or timeout <= 0):
        raise ConfigError(f"timeout={timeout}: it is a number of seconds above 0 (or null for no limit)")


def _choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value}: it can be {', '.join(choices[:-1])} or {choices[-1]}")
