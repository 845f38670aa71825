"""Follows the runs of a sweep while Slurm does them, and says what became of each."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sousa_bench.sweep import record
from sousa_bench.sweep.conclude import outcome_status, score
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import say
from sousa_bench.sweep.progress import Progress
from sousa_bench.sweep.slurm import adopt, queue
from sousa_bench.sweep.supervisor import STOP_SIGNALS

FILES_LAG = 3.0  # seconds until a file that another node wrote is surely seen here
ORDINARY = ("", "None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime")


class Follower:
    """Watches jobs by their records and Slurm's queue; its own end touches no job.

    Attributes:
        signal: Number of the signal that ended the watching, or None.

    Args:
        folder: The sweep's.
        poll: Seconds between two looks.
        progress: Says what became of each run.
        stop_at_failure: Whether to cancel what waits once a run has failed.
    """

    def __init__(self, folder: Path, poll: float, progress: Progress, *, stop_at_failure: bool) -> None:
        self.signal: int | None = None
        self._folder = folder
        self._poll = poll
        self._progress = progress
        self._stop_at_failure = stop_at_failure
        self._cancelled = False
        self._said: set[str] = set()
        self._running: set[str] = set()

    def follow(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Stay with the jobs until each has ended, or a signal came.

        Returns:
            The outcome of each that has ended, ``running`` for the others.
        """
        outcomes: dict[int, Outcome] = {}
        with self._listening():
            while self.signal is None:
                for job in jobs:
                    if id(job) not in outcomes and (outcome := self._done(job)) is not None:
                        outcomes[id(job)] = outcome
                        self._ended(outcome, [each for each in jobs if id(each) not in outcomes])
                open_jobs = [job for job in jobs if id(job) not in outcomes]
                if not open_jobs:
                    break
                self._look_at_queue(open_jobs, outcomes)
                self._pause(self._poll)
        return [outcomes.get(id(job)) or Outcome(job, "running") for job in jobs]

    def _done(self, job: Job) -> Outcome | None:
        """The outcome that a run's record tells, once it is final."""
        result = record.read(job.folder)
        if (result.get("process") or {}).get("slurm_job_id") != job.slurm_job_id:
            return None  # an earlier attempt's
        if result.get("status") == "running" and job.name not in self._running:
            self._running.add(job.name)
            self._progress.begin(job)
        return _outcome(job, result) if result.get("status") in adopt.FINAL else None

    def _look_at_queue(self, jobs: Sequence[Job], outcomes: dict[int, Outcome]) -> None:
        """Conclude about the jobs that Slurm has no more, and say why others wait."""
        places = queue.places(str(job.slurm_job_id) for job in jobs)
        if places is None:
            self._say_once("Slurm's controller does not answer; the jobs go on, and so does the waiting")
            return
        gone = [job for job in jobs if job.slurm_job_id not in places]
        if gone:
            self._pause(FILES_LAG)
        for job in gone:
            if self._cancelled and not (job.folder / "run.log").exists():
                outcomes[id(job)] = Outcome(job, "pending")
                continue
            adopt.close(job, self._folder, str(job.slurm_job_id))
            outcomes[id(job)] = _outcome(job, record.read(job.folder))
            self._ended(outcomes[id(job)], [each for each in jobs if id(each) not in outcomes])
        for job in jobs:
            place = places.get(str(job.slurm_job_id))
            if place is not None and place.state == "PENDING" and place.reason not in ORDINARY:
                self._say_once(f"Slurm lets jobs wait: {place.reason} (first {job.slurm_job_id}, {job.name})")

    def _ended(self, outcome: Outcome, others: Sequence[Job]) -> None:
        self._progress.end(outcome)
        if not outcome.well and self._stop_at_failure and not self._cancelled and others:
            self._cancelled = True
            say("on_error=stop: nothing more is started")
            queue.ask("scancel", "--state=PENDING", *(str(job.slurm_job_id) for job in others))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.signal is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(0.2, left))

    @contextmanager
    def _listening(self) -> Iterator[None]:
        former: dict[int, Any] = {}
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)


def _outcome(job: Job, result: dict[str, Any]) -> Outcome:
    status = outcome_status(str(result.get("status", "pending")), result.get("failure"))
    seconds = float((result.get("efficiency") or {}).get("training_time_seconds") or 0.0)
    return Outcome(job, status, result.get("error"), seconds, score(result))
