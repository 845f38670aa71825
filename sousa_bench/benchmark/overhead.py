"""A run's wall time against the arithmetic of the same model, batches and steps."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.benchmark.compute import bare
from sousa_bench.benchmark.setup import Setup
from sousa_bench.config.composing import composed

CAUSES = ("inputs", "metrics", "checkpoint", "log", "record")


@dataclass(frozen=True)
class Overhead:
    """One setup's figures; seconds are those of an epoch, from the second on, training and validation together.

    Attributes:
        setup: What was run.
        epochs: Epochs that the medians are of.
        run_seconds: Median of the run.
        compute_seconds: Median of the arithmetic.
        causes: Seconds of the run by cause; ``other`` is Lightning's loop and what is between.
    """

    setup: str
    epochs: int
    run_seconds: float
    compute_seconds: float
    causes: dict[str, float]

    @property
    def share(self) -> float:
        """Overhead over the arithmetic."""
        return self.run_seconds / self.compute_seconds - 1

    def as_dict(self) -> dict[str, Any]:
        """Plain fields."""
        return {**asdict(self), "share": self.share}


def overhead(overrides: Sequence[str], *, repeats: int) -> Overhead:
    """Take turns: a run, the arithmetic of the same run, then the other way round, and so on.

    A pass that doesn't count comes first, since a process that has just begun is slower.

    Args:
        overrides: What to run, with at least two epochs.
        repeats: Turns.
    """
    cfg = composed(overrides)
    runs: list[float] = []
    computes: list[float] = []
    by_cause: dict[str, list[float]] = defaultdict(list)

    def one_run() -> None:
        watch = watched_run(cfg)
        runs.extend(watch.epochs[1:])
        for cause in CAUSES:
            by_cause[cause] += watch.causes[cause][1:]

    def one_compute() -> None:
        computes.extend(bare(Setup.of(cfg)).epochs[1:])

    bare(Setup.of(cfg))
    for turn in range(repeats):
        for side in (one_run, one_compute) if turn % 2 == 0 else (one_compute, one_run):
            side()
    run, compute = statistics.median(runs), statistics.median(computes)
    causes = {cause: statistics.median(by_cause[cause]) for cause in CAUSES}
    if cfg.augmentation.name != "off":  # there the inputs are arithmetic too
        causes.pop("inputs")
    causes["other"] = max(0.0, run - compute - sum(causes.values()))
    return Overhead(" ".join(overrides), len(runs), run, compute, causes)


@dataclass
class Watch:
    """When the epochs of a run ended, and what took how long in each."""

    epochs: list[float]
    causes: dict[str, list[float]]


def watched_run(cfg: DictConfig) -> Watch:
    """Do a real run in this process, with its logger, checkpoints and result file."""
    from sousa_bench.results import result
    from sousa_bench.training import checkpoint, classifier, inputs, loggers
    from sousa_bench.training.run import run

    ends: list[float] = []
    spent: dict[str, float] = defaultdict(float)
    per_epoch: dict[str, list[float]] = {cause: [] for cause in CAUSES}

    def epoch_ended() -> None:
        ends.append(time.perf_counter())
        for cause in CAUSES:
            per_epoch[cause].append(spent.pop(cause, 0.0))

    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for owner, name, cause in (
            (classifier.Classifier, "training_inputs", "inputs"),
            (inputs.ClipInputs, "plain", "inputs"),
            (classifier.Classifier, "_split_metrics", "metrics"),
            (checkpoint.KeepState, "_save", "checkpoint"),
            (loggers.BackgroundLogger, "log_metrics", "log"),
            (result.Recorder, "show", "record"),
        ):
            stack.enter_context(_timed(owner, name, cause, spent))
        stack.enter_context(_after(checkpoint.KeepState, "on_validation_end", epoch_ended))
        stack.enter_context(_after(checkpoint.KeepState, "on_train_start", lambda: ends.append(time.perf_counter())))
        run(cfg, Path(folder) / "run")
    return Watch([end - start for start, end in itertools.pairwise(ends)], per_epoch)


@contextmanager
def _timed(owner: type, name: str, cause: str, spent: dict[str, float]) -> Iterator[None]:
    """Add up the seconds of a method, those of a timed method inside it once."""
    original = getattr(owner, name)

    @wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        before, started = sum(spent.values()), time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            inner = sum(spent.values()) - before
            spent[cause] += time.perf_counter() - started - inner

    with _replaced(owner, name, timed):
        yield


@contextmanager
def _after(owner: type, name: str, call: Callable[[], None]) -> Iterator[None]:
    original = getattr(owner, name)

    @wraps(original)
    def followed(*args: Any, **kwargs: Any) -> Any:
        answer = original(*args, **kwargs)
        call()
        return answer

    with _replaced(owner, name, followed):
        yield


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    own = owner.__dict__.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
