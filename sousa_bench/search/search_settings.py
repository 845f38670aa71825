"""What a search is told: how many trials, what it optimises, which sampler and pruner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hydra.utils import get_class

from sousa_bench.analysis.columns import lower_is_better
from sousa_bench.errors import ConfigError, UserError, first_line
from sousa_bench.results import metrics
from sousa_bench.system.number_checks import is_positive, is_whole

METRICS = tuple(f"val_{metric.name}" for metric in (*metrics.METRICS[:4], *metrics.METRICS_OF_SEVERAL))
DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class SearchSettings:
    """The values of ``conf/hydra/sweeper/optuna.yaml``.

    Attributes:
        n_trials: Trials of the study, the baseline among them, whatever becomes of them.
        metric: Of the validation clips; None: what ranks, ``val_acc`` or ``val_map``.
        direction: ``maximize`` or ``minimize``.
        seed: Of the sampler.
        sampler: Node of an Optuna sampler.
        pruner: Node of an Optuna pruner, or None.
        poll: Seconds between two looks at the trials' histories.

    Raises:
        ConfigError: A value is impossible; the message names the key.
    """

    n_trials: int
    metric: str | None
    direction: str
    seed: int
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any] | None
    poll: float

    def __post_init__(self) -> None:
        why = " (the test clips must have no part in the choice)" if str(self.metric).startswith("test") else ""
        for key, good, what in (
            ("n_trials", is_whole(self.n_trials, 1), "is a whole number, 1 or more"),
            ("metric", self.metric in (None, *METRICS), f"can be {', '.join(METRICS)}, or null{why}"),
            ("direction", self.direction in DIRECTIONS, f"can be {' or '.join(DIRECTIONS)}, or null"),
            ("seed", is_whole(self.seed, 0), "is a whole number, 0 or more"),
            ("poll", is_positive(self.poll), "is a number of seconds above 0"),
        ):
            if not good:
                raise ConfigError(f"hydra.sweeper.{key}={getattr(self, key)}: it {what}")

    @classmethod
    def of(cls, direction: str | None, **values: Any) -> SearchSettings:
        """Fill in the direction that a metric has by its name."""
        natural = "minimize" if lower_is_better(str(values["metric"])) else "maximize"
        return cls(direction=direction or natural, **values)

    def metric_of(self, values: Mapping[str, Any]) -> str:
        """The metric's name in a run, or an epoch, with these ``values``."""
        return self.metric or metrics.ranking(values)


def import_optuna() -> ModuleType:
    """Optuna, which is an extra.

    Raises:
        UserError: It isn't installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(f'a search needs Optuna: pip install "sousa-bench[search]" ({error})') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def built(key: str, node: Mapping[str, Any], seed: int | None = None) -> Any:
    """The sampler or pruner of a node.

    Args:
        key: Its config key, for messages.
        node: ``_target_`` and its arguments.
        seed: Given to a class that takes one.

    Raises:
        ConfigError: There is no such class, or it takes other arguments.
    """
    arguments = {str(name): value for name, value in node.items() if name != "_target_"}
    try:
        kind = get_class(str(node.get("_target_")))
        if seed is not None and "seed" in inspect.signature(kind).parameters:
            arguments.setdefault("seed", seed)
        return kind(**arguments)
    except Exception as error:  # what a class of any package raises for arguments that it doesn't take
        raise ConfigError(f"{key}={node.get('_target_')}: {first_line(error)}") from error
