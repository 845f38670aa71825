"""A job as the process that does it sees it: call the function, follow its phases, record what became of it."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.errors import Interrupted, UserError
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import Recorder
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.verdict import Verdict

Function = Callable[[DictConfig, Path, Recorder], dict[str, Any]]


class RunningJob:
    """What a run's process knows about it.

    Attributes:
        job: The run.
        status: ``running`` until :meth:`call` has ended.
        recorded: Whether the final record was written.

    Args:
        job: The run.
        function: Does it: ``(config, folder, recorder) -> result blocks``.
        send: Takes a message to the supervisor.
    """

    def __init__(self, job: Job, function: Function, send: Callable[[dict[str, Any]], None]) -> None:
        self.job = job
        self.status = "running"
        self.recorded = False
        self._function = function
        self._send = send
        self._begun = False
        self._blocks: dict[str, Any] = {}
        self._verdict: Verdict | None = None
        self._trace: str | None = None
        title = f"run {job.index}/{job.total}" if job.total > 1 else ""
        self._recorder = Recorder(job.folder, quiet=job.rank > 0, listener=self._tell_progress, title=title)

    def begin(self) -> None:
        """Open the record, once."""
        if not self._begun:
            if self.job.rank == 0:
                record.begin(self.job)
            self._begun = True

    def call(self, config: DictConfig) -> float | None:
        """Do the run and note how it ended.

        Returns:
            ``val_acc`` (``val_map`` where clips may have several labels) of a run that completed, else None.

        Raises:
            Exception: Whatever the run raised, after it was noted.
        """
        self.begin()
        try:
            self._blocks = self._function(config, self.job.folder, self._recorder)
            self.status = "completed"
        except BaseException as error:
            self.note(error)
            raise
        finally:
            self._recorder.listener = None
        metrics = self._blocks.get("metrics") or {}
        return metrics.get(ranking(metrics))

    def note(self, error: BaseException) -> None:
        """Note the exception that ended the run."""
        self._trace = "".join(traceback.format_exception(error))
        if self._recorder.progress:
            self._blocks = dict(self._recorder.result)
        self._verdict = Verdict.of_error(error, str(self._recorder.progress.get("phase", "start")))
        self.status = self._verdict.status

    def finish(self) -> None:
        """Close the record, once; a completed run that left fields empty becomes a failed one that names them."""
        if self.recorded or self.status == "running":
            return
        for number in (signal.SIGTERM, signal.SIGINT):  # too late to stop: the record is being written
            signal.signal(number, signal.SIG_IGN)
        if self.job.rank == 0:
            try:
                self._record()
            except ValueError as error:
                if self.status != "completed":
                    raise
                self.note(error)
                self._record()
        self.recorded = True
        if self.status == "completed" and self.job.rank == 0:
            # Not before the record stands: until then the checkpoints are all there is.
            record.drop_checkpoints(self.job.folder)

    def _record(self) -> None:
        record.finish(self.job, self.status, self._blocks, **self._facts())

    def _facts(self) -> dict[str, Any]:
        found = self._verdict
        return {"error": found.error, "failure": found.failure} if found else {"error": None, "failure": None}

    def report(self) -> None:
        """Tell the supervisor how it ended, in case the disk can't."""
        facts = {**self._facts(), "traceback": self._trace, "recorded": self.recorded}
        self._send({"event": "end", "status": self.status, **facts})

    def show(self, error: BaseException) -> None:
        """Print what ended the run into its output: a line if the user can mend it or it can go on, else the traceback.

        ``error.log`` has the whole traceback; here it begins inside the run.
        """
        if isinstance(error, (UserError, Interrupted)) or self.status == "interrupted":
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code is not RunningJob.call.__code__:
            trace = trace.tb_next
        inside = trace.tb_next if trace is not None else error.__traceback__
        traceback.print_exception(type(error), error, inside, file=sys.stderr)

    def _tell_progress(self, recorder: Recorder) -> None:
        self._send({"event": "progress", **recorder.progress})
