"""Runs jobs, several at a time, each in a process of its own, and lets nothing that happens to one touch another."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sousa_bench.result import LOG_FILE
from sousa_bench.sweep import record
from sousa_bench.sweep.child import Order
from sousa_bench.sweep.conclude import conclude, score
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.lock import FolderLock
from sousa_bench.sweep.output import say, show_bytes
from sousa_bench.sweep.progress import Progress
from sousa_bench.sweep.ranks import Ranks
from sousa_bench.sweep.resources import Slot, slots
from sousa_bench.sweep.server import code_digest
from sousa_bench.sweep.starter import Starter
from sousa_bench.sweep.watch import Watch

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Rules:
    """How a supervisor goes about it.

    Attributes:
        n_jobs: Runs at the same time.
        on_error: ``continue``, or ``stop`` to start nothing more after a run that failed.
        grace: Seconds between asking a run to stop and killing it.
        target: Dotted path of the function that does a run.
        signals: Those that end the sweep early.
        patient: Whether a second signal changes nothing; else it ends the current runs at once.
    """

    n_jobs: int = 1
    on_error: str = "continue"
    grace: float = 30.0
    target: str = "sousa_bench.run.run"
    signals: tuple[signal.Signals, ...] = STOP_SIGNALS
    patient: bool = False


class Supervisor:
    """Does jobs: the local launcher's many, a single run's one, a Slurm job's one.

    Attributes:
        signal: The signal that ended the sweep early, or None.
    """

    def __init__(self, starter: Starter, rules: Rules, progress: Progress) -> None:
        self.signal: signal.Signals | None = None
        self._starter = starter
        self._rules = rules
        self._progress = progress
        self._watches: set[Watch | Ranks] = set()
        self._postponed: list[Job] = []
        self._halted = False
        self._code = code_digest()
        self._ready_lock: asyncio.Lock | None = None
        self._said: set[str] = set()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do the jobs whose decision is ``pending``; never raises for what a run does.

        Returns:
            The outcome of each job, in their order; ``pending`` for those that were not started.

        Raises:
            ServerError: No process can be started at all.
        """
        self._queue = deque(job for job in jobs if job.decision == "pending")
        self._outcomes: dict[int, Outcome] = {}
        asyncio.run(self._all())
        return [self._outcomes.get(id(job)) or Outcome(job, "pending") for job in jobs if job.decision == "pending"]

    async def _all(self) -> None:
        self._stopping = asyncio.Event()
        self._starter.new_loop()
        self._listen()
        devices = max((job.devices for job in self._queue), default=1)
        workers = [asyncio.create_task(self._worker(slot)) for slot in slots(self._rules.n_jobs, devices)]
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
            if self._watches:
                hint = "" if self._rules.patient else " (once more to end them at once)"
                say(f"{number.name}: the current runs save their state{hint}")
            for watch in self._watches:
                watch.stop("interrupt")
        elif not self._rules.patient:
            for watch in self._watches:
                watch.kill()

    async def _worker(self, slot: Slot) -> None:
        while self._queue and not self._halted:
            if not await self._can_start():
                return
            if self._queue and not self._halted:
                await self._supervise(self._queue.popleft(), slot)

    async def _can_start(self) -> bool:
        """Wait for the starter, or for a signal."""
        ready = asyncio.ensure_future(self._ready())
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not ready.done():
            ready.cancel()
            with suppress(asyncio.CancelledError):
                await ready
            return False
        ready.result()
        return True

    async def _ready(self) -> None:
        self._ready_lock = self._ready_lock or asyncio.Lock()
        async with self._ready_lock:
            await self._starter.ready()
        for warning in self._starter.warnings():
            self._say_once(f"Warning: {warning}")

    async def _supervise(self, job: Job, slot: Slot) -> None:
        lock = FolderLock(job.folder)
        try:
            if not lock.acquire():
                self._say_once(f"{job.name} is being done by another process; this sweep waits for it at its end")
                self._postponed.append(job)
                return
        except OSError as error:
            self._ended(Outcome(job, "failed", f"its folder can't be written: {error}", 0.001))
            return
        try:
            if self._done_meanwhile(job):
                return
            self._ended(await self._attempt(job, slot))
        finally:
            lock.release()

    async def _attempt(self, job: Job, slot: Slot) -> Outcome:
        self._progress.begin(job)
        if code_digest() != self._code:
            self._say_once("Note: the code was edited; this sweep's runs go on with the code as it was at its start")
        job.warnings += [warning for warning in self._starter.warnings() if warning not in job.warnings]
        if job.fresh:
            record.start_over(job.folder)
        many = self._rules.n_jobs > 1
        watch: Watch | Ranks
        if job.devices > 1:
            watch = Ranks(job.devices, timeout=job.timeout, grace=self._rules.grace)
        else:
            watch = Watch(timeout=job.timeout, grace=self._rules.grace)
        self._watches.add(watch)
        try:
            end = await watch.follow(
                self._starter,
                Order(
                    job=pickle.dumps(job),
                    target=self._rules.target,
                    supervisor=os.getpid(),
                    environment=slot.environment,
                    cpus=slot.cpus,
                    threads=slot.threads,
                    argv=sys.argv,
                ),
                job.folder / LOG_FILE,
                show_bytes,
                f"[{job.index}] " if many else None,
            )
        finally:
            self._watches.discard(watch)
        return conclude(job, end)

    def _ended(self, outcome: Outcome) -> None:
        self._outcomes[id(outcome.job)] = outcome
        self._progress.end(outcome)
        if outcome.status != "completed" and self._rules.on_error == "stop" and not self._halted:
            self._halted = True
            say("on_error=stop: nothing more is started")

    def _done_meanwhile(self, job: Job) -> bool:
        """Whether another sweep completed this very run since this one was planned."""
        standing = record.read(job.folder)
        if standing.get("status") != "completed" or standing.get("fingerprint") != job.fingerprint:
            return False
        self._ended(Outcome(job, "completed", score=score(standing), reused=True))
        return True

    async def _after_the_other(self, job: Job) -> None:
        """Wait until another process lets go of a run's folder, then do what it left undone."""
        lock = FolderLock(job.folder)
        while not self._halted and not lock.acquire():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOCK_SECONDS)
        lock.release()
        if not self._halted and await self._can_start():
            await self._supervise(job, slots(1)[0])

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)
