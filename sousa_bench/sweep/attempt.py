"""One attempt at a run, in the process that does it: call it, watch its phases, record what became of it."""

from __future__ import annotations

import errno
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.errors import Interrupted, UserError, out_of_memory
from sousa_bench.results import pruning
from sousa_bench.results.result import CHECKPOINT_FOLDER, ERROR_FILE, Recorder
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job

Function = Callable[[DictConfig, Path, Recorder], dict[str, Any]]

current: Attempt | None = None
"""The attempt that this process makes; None in a process that only supervises."""


class Attempt:
    """What a run's process knows about it.

    Attributes:
        job: The run.
        status: ``running`` until :meth:`call` has ended.
        error: One line, when it isn't completed.
        failure: The result's ``failure`` block.
        trace: Full traceback of what ended it.
        recorded: Whether the final record was written.
    """

    def __init__(self, job: Job, function: Function, send: Callable[[dict[str, Any]], None]) -> None:
        self.job = job
        self.status = "running"
        self.error: str | None = None
        self.failure: dict[str, Any] | None = None
        self.trace: str | None = None
        self.recorded = False
        self._function = function
        self._send = send
        self._begun = False
        self._blocks: dict[str, Any] = {}
        self._recorder: Recorder | None = None

    def begin(self) -> None:
        """Open the record, once."""
        if not self._begun:
            if self.job.rank == 0:
                record.begin(self.job)
            self._begun = True

    def call(self, config: DictConfig) -> float | None:
        """Do the run and note how it ended.

        Returns:
            ``val_acc`` of a run that completed, else None.

        Raises:
            Exception: Whatever the run raised, after it was noted.
        """
        self.begin()
        recorder = Recorder(self.job.folder, quiet=self.job.rank > 0, listener=self._watch)
        try:
            self._blocks = self._function(config, self.job.folder, recorder)
            self.status = "completed"
        except BaseException as error:
            self.note(error)
            raise
        finally:
            recorder.listener = None
        return (self._blocks.get("metrics") or {}).get("val_acc")

    def note(self, error: BaseException) -> None:
        """Note the exception that ended the run."""
        stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
        self.status = "interrupted" if stopped else "failed"
        self.error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self.trace = "".join(traceback.format_exception(error))
        if self._recorder is not None:
            self._blocks = dict(self._recorder.result)
        self.failure = {
            "type": type(error).__name__,
            "message": str(error),
            "phase": self.phase,
            "cause": stop_cause(error) if stopped else cause(error),
            "log": None if stopped else ERROR_FILE,
        }

    @property
    def phase(self) -> str:
        """The phase that the run is in, ``start`` before its first."""
        return str(self._recorder.progress.get("phase", "start")) if self._recorder else "start"

    def finish(self) -> None:
        """Close the record, once; a completed run that left fields empty becomes a failed one that names them."""
        if self.recorded or self.status == "running":
            return
        for number in (signal.SIGTERM, signal.SIGINT):  # too late to stop: the record is being written
            signal.signal(number, signal.SIG_IGN)
        if self.job.rank > 0:
            self.recorded = True
            return
        try:
            record.finish(self.job, self.status, self._blocks, error=self.error, failure=self.failure)
        except ValueError as error:
            if self.status != "completed":
                raise
            self.note(error)
            record.finish(self.job, self.status, self._blocks, error=self.error, failure=self.failure)
        self.recorded = True
        if self.status == "completed":  # not before the record stands: until then the checkpoints are all there is
            shutil.rmtree(self.job.folder / CHECKPOINT_FOLDER, ignore_errors=True)

    def report(self) -> None:
        """Tell the supervisor how it ended, in case the disk can't."""
        self._send(
            {
                "event": "end",
                "status": self.status,
                "error": self.error,
                "failure": self.failure,
                "traceback": self.trace,
                "recorded": self.recorded,
            }
        )

    def show(self, error: BaseException) -> None:
        """Print what ended the run into its output: one line for a mistake of the user's, else the traceback.

        ``error.log`` has the whole traceback; here it begins inside the run.
        """
        if isinstance(error, (UserError, Interrupted)):
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code is not Attempt.call.__code__:
            trace = trace.tb_next
        inside = trace.tb_next if trace is not None else error.__traceback__
        traceback.print_exception(type(error), error, inside, file=sys.stderr)

    def _watch(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._send({"event": "progress", **recorder.progress})


def stop_cause(error: BaseException) -> str:
    """Who stopped a run: a search (``pruned``), or somebody (``interrupted``)."""
    return pruning.CAUSE if isinstance(error, pruning.Pruned) else "interrupted"


def cause(error: BaseException) -> str:
    """What lies behind an exception: ``oom``, ``disk full`` or just ``exception``."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return "disk full"
        link = link.__cause__ or link.__context__
    return "oom" if out_of_memory(error) else "exception"
