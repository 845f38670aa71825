"""Does a sweep's runs on Slurm: submits those that Slurm doesn't have yet, and follows them all."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import say
from sousa_bench.sweep.progress import Progress, shown
from sousa_bench.sweep.slurm.follow import Follower
from sousa_bench.sweep.slurm.submit import Preset, submit

if TYPE_CHECKING:
    from sousa_bench.sweep.whole import Sweep


class SlurmEngine:
    """What ``hydra/launcher=slurm`` puts in the place of a supervisor here.

    Attributes:
        signal: Number of the signal that ended the watching, or None.
    """

    def __init__(self, sweep: Sweep, preset: Preset, target: str) -> None:
        self.signal: int | None = None
        self._sweep = sweep
        self._preset = preset
        self._target = target

    def run(self, jobs: Sequence[Job], progress: Progress) -> list[Outcome]:
        """Do the pending ones of ``jobs``.

        Raises:
            SubmissionError: Slurm does not take them; none was submitted.
        """
        pending = [job for job in jobs if job.decision == "pending"]
        adopted = [job for job in pending if job.slurm_job_id is not None]
        if adopted:
            say(f"Slurm has {len(adopted)} of the runs already (first: job {adopted[0].slurm_job_id})")
        self._submit([job for job in pending if job.slurm_job_id is None])
        stop = self._sweep.settings.on_error == "stop"
        follower = Follower(self._sweep.folder, self._preset.poll, progress, stop_at_failure=stop)
        outcomes = follower.follow(pending)
        if follower.signal is not None:
            self.signal = follower.signal
            self._say_what_goes_on([outcome.job for outcome in outcomes if outcome.status == "running"])
        return outcomes

    def _submit(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        ids = submit(jobs, self._preset, self._sweep.folder, self._sweep.name, self._target)
        for job, job_id in zip(jobs, ids, strict=True):
            job.slurm_job_id = job_id
        self._sweep.record()
        number = ids[0].partition("_")[0]
        limit = self._preset.minutes(jobs)
        say(
            f"Submitted {len(jobs)} runs as Slurm job {number}"
            f"{'' if limit is None else f', {limit} minutes each'}; Ctrl-C ends the watching, not the jobs"
        )

    def _say_what_goes_on(self, jobs: Sequence[Job]) -> None:
        numbers = sorted({str(job.slurm_job_id).partition("_")[0] for job in jobs})
        if numbers:
            say(
                f"Slurm goes on with {len(jobs)} runs. To look: python -m sousa_bench.status "
                f"{shlex.quote(shown(self._sweep.folder))}; to watch again: {self._sweep.command}; "
                f"to end them: scancel {' '.join(numbers)}"
            )
