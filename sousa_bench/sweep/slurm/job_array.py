"""Does a sweep's runs on Slurm: submits those that Slurm doesn't have yet, and follows them all."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sousa_bench.sweep import record, session
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import say
from sousa_bench.sweep.progress import Progress, shown
from sousa_bench.sweep.slurm import ended_jobs
from sousa_bench.sweep.slurm.submit import Preset, SubmissionError, submit
from sousa_bench.sweep.supervisor import STOP_SIGNALS, STOPPED
from sousa_bench.sweep.sweep import Sweep, do_sweep, withdraw
from sousa_bench.system.slurm_queue import ask_slurm, queue_places
from sousa_bench.system.text_table import amount

FILES_LAG = 3.0  # seconds until a file that another node wrote is surely seen here
ORDINARY = ("", "None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime")


def do_sweep_on_slurm(sweep: Sweep, preset: Preset, batch_of: Progress | None = None) -> list[Outcome]:
    """Do a planned sweep as a Slurm job array; see :func:`sousa_bench.sweep.sweep.do_sweep`.

    Raises:
        SubmissionError: Slurm does not take it.
    """
    try:
        width = preset.array_parallelism * preset.runs_at_once
        return do_sweep(sweep, JobArray(sweep, preset).run, width=width, batch_of=batch_of)
    except SubmissionError:
        if sweep.settings.name is None and not sweep.numbered:  # a folder of its own time, which nobody else uses
            withdraw(sweep.folder)
        raise


class JobArray:
    """Submits jobs and watches them by their records and Slurm's queue; the end of the watching touches no job."""

    def __init__(self, sweep: Sweep, preset: Preset) -> None:
        self._sweep = sweep
        self._preset = preset
        self._signal: int | None = None
        self._cancelled = False
        self._running: set[str] = set()
        self._outcomes: dict[int, Outcome] = {}

    def run(self, jobs: Sequence[Job], progress: Progress) -> list[Outcome]:
        """Do the jobs, and stay with them until each has ended, or a signal came.

        Returns:
            The outcome of each that has ended, ``running`` for the others.

        Raises:
            SubmissionError: Slurm does not take them; none was submitted.
        """
        self._progress = progress
        there = [job for job in jobs if job.slurm_job_id is not None]
        if there:
            say(f"Slurm has {len(there)} of the runs already (first: job {there[0].slurm_job_id})")
        self._submit([job for job in jobs if job.slurm_job_id is None])
        with self._listening():
            while left := self._look_at_records(jobs):
                self._look_at_queue(left)
                self._pause(self._preset.poll)
                if self._signal is not None:
                    break
        outcomes = [self._outcomes.get(id(job)) or Outcome(job, "running") for job in jobs]
        if self._signal is not None:
            session.current.signal = self._signal
            self._say_what_goes_on([outcome.job for outcome in outcomes if outcome.status == "running"])
        return outcomes

    def _submit(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        on_error = self._sweep.settings.on_error
        ids = submit(jobs, self._preset, self._sweep.folder, self._sweep.name, session.current.target, on_error)
        for job, job_id in zip(jobs, ids, strict=True):
            job.slurm_job_id = job_id
        self._sweep.record()
        minutes = self._preset.minutes(jobs)
        limit = "" if minutes is None else f", {minutes} minutes each"
        number = ids[0].partition("_")[0]
        tasks = "" if self._preset.runs_per_task == 1 else f" in {amount(len(set(ids)), 'task')}"
        say(
            f"Submitted {amount(len(jobs), 'run')} as Slurm job {number}{tasks}{limit}; "
            "Ctrl-C ends the watching, not the jobs"
        )

    def _open(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that have not ended."""
        return [job for job in jobs if id(job) not in self._outcomes]

    def _look_at_records(self, jobs: Sequence[Job]) -> list[Job]:
        """Take the outcomes that final records tell; the jobs that are left."""
        for job in self._open(jobs):
            result = record.read(job.folder)
            if not ended_jobs.is_from(result, str(job.slurm_job_id)):
                continue  # an earlier attempt's
            if result.get("status") == "running" and job.name not in self._running:
                self._running.add(job.name)
                self._progress.begin(job)
            if result.get("status") in ended_jobs.FINAL:
                self._end(Outcome.of(job, result), jobs)
        return self._open(jobs)

    def _look_at_queue(self, jobs: Sequence[Job]) -> None:
        """Conclude about the jobs that Slurm has no more, and say why others wait."""
        places = queue_places(str(job.slurm_job_id) for job in jobs)
        if places is None:
            self._progress.say_once("Slurm's controller does not answer; the jobs go on, and so does the waiting")
            return
        gone = [job for job in jobs if job.slurm_job_id not in places]
        if gone:
            self._pause(FILES_LAG)
        for job in gone:
            if self._cancelled and not (job.folder / "run.log").exists():
                self._outcomes[id(job)] = Outcome(job, "pending")
                continue
            ended_jobs.close(job, str(job.slurm_job_id))
            result = record.read(job.folder)
            if ended_jobs.is_from(result, str(job.slurm_job_id)):
                self._end(Outcome.of(job, result), jobs)
            else:  # its turn did not come; what lies there is of an earlier attempt
                self._outcomes[id(job)] = Outcome(job, "pending")
        for job in jobs:
            place = places.get(str(job.slurm_job_id))
            if place is not None and place.state == "PENDING" and place.reason not in ORDINARY:
                self._progress.say_once(f"Slurm lets jobs wait: {place.reason} (first {job.slurm_job_id}, {job.name})")

    def _end(self, outcome: Outcome, jobs: Sequence[Job]) -> None:
        self._outcomes[id(outcome.job)] = outcome
        self._progress.end(outcome)
        others = self._open(jobs)
        if others and not outcome.well and self._sweep.settings.on_error == "stop" and not self._cancelled:
            self._cancelled = True
            say(STOPPED)
            for job in others:
                with suppress(OSError):
                    ended_jobs.stop_file(job, str(job.slurm_job_id)).touch()
            ask_slurm("scancel", "--state=PENDING", *(str(job.slurm_job_id) for job in others))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._signal is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(0.2, left))

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def note(number: int, frame: Any) -> None:
            self._signal = number

        heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        former = {number: signal.signal(number, note) for number in heeded}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _say_what_goes_on(self, jobs: Sequence[Job]) -> None:
        numbers = sorted({str(job.slurm_job_id).partition("_")[0] for job in jobs})
        if numbers:
            say(
                f"Slurm goes on with {amount(len(jobs), 'run')}. To look: python -m sousa_bench.status "
                f"{shlex.quote(shown(self._sweep.folder))}; to watch again: {self._sweep.command}; "
                f"to end them: scancel {' '.join(numbers)}"
            )
