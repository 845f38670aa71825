"""Runs jobs, several at a time, each in a process of its own, and lets nothing that happens to one touch another."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousa_bench.results.index import EarlierResult, ResultIndex
from sousa_bench.results.locks import RunLock
from sousa_bench.results.result import LOG_FILE
from sousa_bench.sweep import record
from sousa_bench.sweep.child import Order
from sousa_bench.sweep.device_processes import Ranks
from sousa_bench.sweep.forkserver import code_digest
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import on_terminal, say, screen_that_never_blocks, show_bytes
from sousa_bench.sweep.progress import Progress
from sousa_bench.sweep.resources import Slot, slots
from sousa_bench.sweep.run_lines import RunLines
from sousa_bench.sweep.shared_gpus import SharedGpus
from sousa_bench.sweep.spawner import ServerError, Spawner
from sousa_bench.sweep.supervised_process import Exit
from sousa_bench.sweep.verdict import conclude, not_started
from sousa_bench.system.gpus import SHARED, visible_gpus

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "on_error=stop: nothing more is started"
LOCK_SECONDS = 1.0
SCREEN_SECONDS = 2.0  # that a sweep which was told to end waits for a screen that nobody reads


@dataclass(frozen=True)
class Rules:
    """How a supervisor goes about it.

    Attributes:
        n_jobs: Runs at the same time.
        on_error: ``continue``, or ``stop`` to start nothing more after a run that failed.
        grace: Seconds between asking a run to stop and killing it.
        target: Dotted path of the function that does a run.
        signals: Those that end the sweep early.
        roots: Folders below which another process may do, or have done, the same runs.
        patient: Whether a second signal changes nothing; else it ends the current runs at once.
        stop_file: Once it is there, nothing more is started.
        runs_per_gpu: Most runs on a GPU, ``auto``, or None for what ``n_jobs`` makes.
    """

    n_jobs: int = 1
    on_error: str = "continue"
    grace: float = 30.0
    target: str = "sousa_bench.training.run.run"
    signals: tuple[signal.Signals, ...] = STOP_SIGNALS
    roots: tuple[Path, ...] = ()
    patient: bool = False
    stop_file: Path | None = None
    runs_per_gpu: int | str | None = None


class Supervisor:
    """Does jobs: the local launcher's many, a single run's one, those of a Slurm job.

    Attributes:
        signal: The signal that ended the sweep early, or None.
    """

    def __init__(self, spawner: Spawner, rules: Rules, progress: Progress) -> None:
        self.signal: signal.Signals | None = None
        self._spawner = spawner
        self._rules = rules
        self._progress = progress
        self._watches: set[Ranks] = set()
        self._postponed: list[Job] = []
        self._again: set[int] = set()
        self._halted = False
        self._code = code_digest()
        self._begun = False
        self._supervised = 0
        self._lines = RunLines()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do the jobs whose decision is ``pending``; never raises for what a run does.

        Returns:
            The outcome of each job, in their order; ``pending`` for those that were not started.

        Raises:
            ServerError: No process can be started at all; nothing was.
        """
        pending = [job for job in jobs if job.decision == "pending"]
        self._queue = deque(pending)
        self._several = self._rules.n_jobs > 1 and len(pending) > 1
        self._outcomes: dict[int, Outcome] = {}
        with screen_that_never_blocks(lambda: None if self.signal is None else SCREEN_SECONDS):
            asyncio.run(self._all())
        return [self._outcomes.get(id(job)) or Outcome(job, "pending") for job in pending]

    async def _all(self) -> None:
        self._stopping = asyncio.Event()
        self._spawner.new_loop()
        self._listen()
        devices = max((job.devices for job in self._queue), default=1)
        places = slots(self._rules.n_jobs, devices)
        self._gpus = SharedGpus(places, self._rules.runs_per_gpu)
        if self._rules.runs_per_gpu is not None and not visible_gpus():
            self._progress.say_once("Note: hydra.launcher.runs_per_gpu changes nothing here: there is no GPU")
        workers = [asyncio.create_task(self._worker(slot)) for slot in places]
        try:
            await asyncio.gather(*workers)
            while self._postponed and not self._halted:
                await self._after_the_other(self._postponed.pop(0))
        except BaseException:
            for worker in workers:
                worker.cancel()
            for watch in self._watches:
                watch.kill()
            raise

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in self._rules.signals:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP, and so do we then
                loop.add_signal_handler(number, self._on_signal, signal.Signals(number))

    def _on_signal(self, number: signal.Signals) -> None:
        if self.signal is None:
            self.signal = number
            self._halted = True
            self._stopping.set()
            self._gpus.wake()
            if self._watches:
                cause = "Ctrl-C" if number == signal.SIGINT else number.name
                what = (
                    "the current run saves its state"
                    if len(self._watches) == 1
                    else "the current runs save their state"
                )
                say(f"{cause}: {what}{'' if self._rules.patient else f' ({cause} again ends at once)'}")
            for watch in self._watches:
                watch.stop("interrupt")
            self._spawner.stop()
        elif not self._rules.patient:
            for watch in self._watches:
                watch.kill()

    async def _worker(self, slot: Slot) -> None:
        while self._queue and not self._halted:
            if self._rules.stop_file is not None and self._rules.stop_file.exists():
                self._halt(STOPPED)
            elif await self._can_start() and self._queue and not self._halted:
                if not self._gpus.enter(slot):
                    await self._gpus.change()
                    continue
                try:
                    await self._supervise(self._queue.popleft(), slot)
                finally:
                    self._gpus.leave(slot)

    async def _can_start(self) -> bool:
        """Wait until runs can be started, or for a signal.

        Raises:
            ServerError: Nothing was started, and nothing can be. Later the same costs only the next run.
        """
        ready = asyncio.ensure_future(self._ready())
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not ready.done():
            ready.cancel()
            with suppress(asyncio.CancelledError):
                await ready
            return False
        if ready.exception() is not None and not self._begun:
            ready.result()
        return True

    async def _ready(self) -> None:
        await self._spawner.ready()
        for warning in self._spawner.warnings:
            self._progress.say_once(f"Warning: {warning}")

    async def _supervise(self, job: Job, slot: Slot) -> None:
        lock = RunLock(job.folder, job.fingerprint, self._rules.roots)
        try:
            if not lock.acquire():
                self._postpone(job)
                return
        except OSError as error:
            self._ended(Outcome(job, "failed", f"its folder can't be written: {error}", 0.001))
            return
        self._count(1)
        try:
            known = await self._known(job)
            if known is not None and known.status == "running":
                self._postpone(job)
            elif known is not None and known.status == "completed":
                job.decision, job.result = "reused", known.folder
                self._ended(Outcome.of(job, record.read(known.folder), reused=True))
            else:
                if known is not None and known.status != "failed":
                    job.folder = known.folder
                outcome = await self._attempt(job, slot)
                if not self._goes_on_with_fewer(outcome, slot):
                    self._ended(outcome)
        finally:
            self._count(-1)
            lock.release()

    def _count(self, more: int) -> None:
        """Let the estimate know how many runs there are at a time, which may be fewer than places."""
        self._supervised += more
        self._progress.n_jobs = max(1, self._supervised)

    def _postpone(self, job: Job) -> None:
        self._progress.say_once(f"{job.name} is being done by another process; this sweep waits for it at its end")
        self._postponed.append(job)

    async def _known(self, job: Job) -> EarlierResult | None:
        """What others did about this very run since the sweep was planned: the record that decides how to go on."""
        own = job.fresh or id(job) in self._again
        roots = [job.folder] if own else [job.folder, *self._rules.roots]
        results = await asyncio.to_thread(ResultIndex, roots, job.fingerprint)
        known = results.of(job.fingerprint, job.folder.parent)
        order = {"completed": 0, "running": 1, "failed": 3}
        return min(known, key=lambda each: order.get(each.status, 2), default=None)

    async def _attempt(self, job: Job, slot: Slot) -> Outcome:
        """Do a run; what keeps it from starting is its failure, and no other run's."""
        self._progress.begin(job)
        self._begun = True
        started = time.monotonic()
        try:
            outcome = conclude(job, await self._process(job, slot))
            record.note_company(job.folder, self._gpus.together(slot))
            return outcome
        except ServerError as error:
            self._halt("the remaining runs are not started")
            return not_started(job, error, time.monotonic() - started)
        except Exception as error:
            return not_started(job, error, time.monotonic() - started)

    def _goes_on_with_fewer(self, outcome: Outcome, slot: Slot) -> bool:
        """Queue a run again that ran out of memory beside others on its GPU, which then holds fewer."""
        job = outcome.job
        if self._halted or outcome.status != "interrupted":
            return False
        if (record.read(job.folder).get("failure") or {}).get("cause") != "oom":
            return False
        left = self._gpus.ran_out(slot)
        warning = "memory ran out beside other runs on its GPU; went on from the last checkpoint beside fewer"
        job.warnings = list(dict.fromkeys([*job.warnings, warning]))
        job.fresh = False
        self._again.add(id(job))
        say(f"{job.name}: memory ran out beside other runs; it goes on later, and its GPU now holds at most {left}")
        self._queue.appendleft(job)
        return True

    async def _process(self, job: Job, slot: Slot) -> Exit:
        if code_digest() != self._code:
            if self._spawner.keeps_code:
                self._progress.say_once(
                    "Note: the code was edited; this sweep's runs go on with the code as it was at its start"
                )
            else:
                job.warnings.append("the code was edited meanwhile: this run may run other code than others")
        job.warnings += [warning for warning in self._spawner.warnings if warning not in job.warnings]
        if job.fresh or record.read(job.folder).get("status", "failed") == "failed":
            job.fresh = True
            record.start_over(job.folder)
        drawn = self._several and on_terminal()

        def on_progress(progress: dict[str, Any]) -> None:
            self._gpus.learn(slot, progress)
            if drawn:
                self._lines.show(job, progress)

        watch = Ranks(job.devices, timeout=job.timeout, grace=self._rules.grace, on_progress=on_progress, brief=drawn)
        self._watches.add(watch)
        try:
            return await watch.follow(
                self._spawner,
                Order(
                    job=pickle.dumps(job),
                    target=self._rules.target,
                    supervisor=os.getpid(),
                    environment={**slot.environment, SHARED: str(int(self._gpus.shares(slot)))},
                    threads=slot.threads,
                    argv=sys.argv,
                ),
                job.folder / LOG_FILE,
                show_bytes,
                f"[{job.index}] " if self._several else None,
            )
        finally:
            if drawn:
                self._lines.remove(job)
            self._watches.discard(watch)

    def _ended(self, outcome: Outcome) -> None:
        self._outcomes[id(outcome.job)] = outcome
        self._progress.end(outcome)
        if not outcome.well and self._rules.on_error == "stop":
            self._halt(STOPPED)

    def _halt(self, why: str) -> None:
        if not self._halted:
            self._halted = True
            self._gpus.wake()
            say(why)

    async def _after_the_other(self, job: Job) -> None:
        """See whether another process has let go of a run, and do what it left undone; else wait a moment."""
        lock = RunLock(job.folder, job.fingerprint, self._rules.roots)
        if free := lock.acquire():
            known = await self._known(job)
            free = known is None or known.status != "running"
        lock.release()
        if not free:
            self._postponed.append(job)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOCK_SECONDS)
        elif await self._can_start():
            await self._supervise(job, slots(1)[0])
