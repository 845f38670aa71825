"""The Hydra callback that writes ``result.json`` at a job's start and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from sousa_bench.sweep.running_job import RunningJob


class ResultCallback(Callback):
    """Writes ``result.json``: ``running`` when a job starts, what became of it when it ends.

    It acts in the process that does the run, which sets ``running``. In the front end, which only supervises, there is
    nothing to write; and since Hydra turns an exception in a callback into a warning, the supervisor looks afterwards
    whether the record stands, and writes it where not.
    """

    running: RunningJob | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the record of the present run."""
        if self.running is not None:
            self.running.begin()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Close the record of the present run."""
        if self.running is not None:
            self.running.finish()
