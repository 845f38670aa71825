"""Shows Optuna how the running trials do, epoch by epoch, and asks those to end that its pruner gives up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sousa_bench.results import stop_request
from sousa_bench.search.optuna_study import PRUNED, report
from sousa_bench.search.search_settings import SearchSettings
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.output import say

if TYPE_CHECKING:
    from optuna import Trial


class Watcher(threading.Thread):
    """Runs beside a batch of trials, as a context around it.

    Args:
        batch: The trials that run, with their jobs.
        settings: The search's: what their histories are judged by, and how often.
    """

    def __init__(self, batch: Sequence[tuple[Trial, Job]], settings: SearchSettings) -> None:
        super().__init__(name="pruning", daemon=True)
        self._batch = batch
        self._settings = settings
        self._over = threading.Event()
        self._given_up: dict[int, str] = {}

    def run(self) -> None:
        """Look until the batch has ended."""
        try:
            while not self._over.wait(self._settings.poll):
                for asked, job in self._batch:
                    self._look(asked, job)
        except Exception as error:  # of the pruner's or the database's: the trials go on to their ends
            say(f"Warning: nothing is pruned any more: {type(error).__name__}: {error}")

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def _look(self, asked: Trial, job: Job) -> None:
        history = stop_request.read_history(job.folder)
        if not history:
            return
        metric = self._settings.metric_of(history[0])
        report(asked, history, metric)
        if asked.number not in self._given_up and asked.should_prune():
            last = history[-1]
            reason = (
                f"given up by the search's {type(asked.study.pruner).__name__} after epoch {last['epoch']}, "
                f"{metric}={last[metric]:.4f}"
            )
            asked.set_user_attr(PRUNED, reason)
            self._given_up[asked.number] = reason
        given_up = self._given_up.get(asked.number)
        if given_up is not None and stop_request.asked(job.folder) is None:
            stop_request.ask(job.folder, given_up)
