"""What a Slurm job does: supervise its run or runs, and ask for its own restart when it is preempted."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sousa_bench.results import stop_request
from sousa_bench.results.run_process import slurm_job_id
from sousa_bench.sweep import record
from sousa_bench.sweep.forkserver import code_digest
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.progress import Progress, describe
from sousa_bench.sweep.slurm.ended_jobs import FINAL, is_from, last_output, stop_file
from sousa_bench.sweep.spawner import Spawner
from sousa_bench.sweep.supervisor import STOP_SIGNALS, Rules, Supervisor
from sousa_bench.sweep.verdict import Verdict, close
from sousa_bench.system.slurm_queue import ask_slurm, job_details

WARNING = signal.SIGUSR2  # Slurm sends it before the time limit (sbatch --signal), a site's preemption may too
WARNING_SLACK = 60.0  # seconds by which Slurm may send it early


@dataclass(frozen=True)
class Terms:
    """What a job needs to know besides its runs.

    Attributes:
        target: Dotted path of the function that does a run.
        grace: Seconds between asking the run to stop and killing it.
        minutes: Slurm's time limit, or None when the partition's own holds.
        warning_seconds: How long before the limit Slurm warns.
        code: Hash of the code at the submission.
        at_once: Runs at the same time.
        on_error: ``stop``: after a run that failed, the job's others are not started.
    """

    target: str
    grace: float
    minutes: int | None
    warning_seconds: int
    code: str
    at_once: int = 1
    on_error: str = "continue"

    def near_its_end(self, seconds: float) -> bool:
        """Whether a warning after ``seconds`` is the one before Slurm's time limit."""
        return self.minutes is not None and 60 * self.minutes - seconds <= self.warning_seconds + WARNING_SLACK


def do(runs: Sequence[Job] | Job, terms: Terms) -> None:
    """Do runs in a Slurm job, but those that an earlier start of this very job ended; never raises for them.

    Args:
        runs: One alone was submitted by an earlier version.
        terms: Theirs.
    """
    started = time.monotonic()
    job_id = slurm_job_id()
    jobs = [runs] if isinstance(runs, Job) else runs
    left = []
    for job in jobs:
        before = _status_from(job, job_id)
        if before is not None:  # requeued: an earlier start left its checkpoint
            job.fresh = False
        if before not in (*FINAL, "pruned"):
            left.append(job)
    if code_digest() != terms.code:
        for job in left:
            job.warnings.append(
                "the code was edited after the sweep was submitted: this run may run other code than others"
            )
    signals = (*STOP_SIGNALS, WARNING)
    stop = stop_file(jobs[0], job_id) if job_id and terms.on_error == "stop" else None
    rules = Rules(terms.at_once, terms.on_error, terms.grace, terms.target, signals, patient=True, stop_file=stop)
    supervisor = Supervisor(Spawner(), rules, Progress(len(left), terms.at_once))
    outcomes = supervisor.run(left)
    for number in rules.signals:
        signal.signal(number, signal.SIG_IGN)  # what is left is to write, and to ask for the restart
    if supervisor.signal is not None:
        _after_signal(outcomes, supervisor.signal, terms, time.monotonic() - started)
    for outcome in outcomes:
        print(outcome.status if outcome.status == "completed" else describe(outcome), flush=True)


def _status_from(job: Job, job_id: str | None) -> str | None:
    """What became of a run in this very Slurm job, by its record; None where that is of another or there is none."""
    standing = record.read(job.folder)
    if job_id is None or not is_from(standing, job_id):
        return None
    return "pruned" if stop_request.is_pruned(standing) else str(standing.get("status"))


def _after_signal(outcomes: Sequence[Outcome], number: signal.Signals, terms: Terms, seconds: float) -> None:
    """Tell the end of Slurm's time, which is a timeout, from a preemption, after which the job asks to be run again."""
    job_id = slurm_job_id()
    stopped = [outcome for outcome in outcomes if outcome.status == "interrupted"]
    if number == WARNING and terms.near_its_end(seconds):
        words = f"Slurm's time limit of {terms.minutes} minutes; the run was told to save its state before it"
        for outcome in stopped:
            standing = record.read(outcome.job.folder)
            phase = str((standing.get("failure") or {}).get("phase", "start"))
            verdict = Verdict.of("timeout", "TimeoutError", words, phase=phase, cause="slurm TIMEOUT")
            tail = last_output(outcome.job)
            outcome.status, outcome.error = "timeout", close(outcome.job, verdict, standing, tail=tail)
        return
    unfinished = stopped or any(outcome.status == "pending" for outcome in outcomes)
    if not unfinished or job_id is None or not (number == WARNING or _preempted(job_details(job_id))):
        return
    answer = ask_slurm("scontrol", "requeue", job_id)
    if answer is None or answer.returncode:
        words = "scontrol is missing" if answer is None else answer.stderr.strip()
        print(f"the job can't be requeued ({words}); the same sweep command goes on with its runs", file=sys.stderr)


def _preempted(facts: dict[str, str]) -> bool:
    """Whether Slurm has told this job to make room."""
    return facts.get("PreemptTime", "None") not in ("None", "N/A", "")
