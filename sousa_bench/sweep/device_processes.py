"""The processes of a run, one a device: started together with torchrun's variables, ended together."""

from __future__ import annotations

import asyncio
import pickle
import socket
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sousa_bench.sweep.child import Order
from sousa_bench.sweep.spawner import Spawner
from sousa_bench.sweep.supervised_process import Exit, Watch

PATIENCE = 5.0  # seconds that the other ranks get to end by themselves once one has died


class Ranks:
    """Follows the processes of one run, each by a :class:`Watch`.

    The first rank is the run: its output, messages and timeout count. The others' output goes to ``run_rank<n>.log``.

    Args:
        count: How many there are.
        timeout: Seconds that the run may take, or None for no limit.
        grace: Seconds between asking it to stop and killing it.
        on_progress: Called with what the run tells of itself, where anybody wants to know.
        brief: Whether its lines on the screen leave out what is drawn at the foot of the terminal.
    """

    def __init__(
        self,
        count: int,
        *,
        timeout: float | None,
        grace: float,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        brief: bool = False,
    ) -> None:
        first = Watch(timeout=timeout, grace=grace, on_stop=self.stop, on_progress=on_progress, brief=brief)
        self._watches = [first, *(Watch(timeout=None, grace=grace) for _ in range(count - 1))]

    def stop(self, reason: str) -> None:
        """Ask every rank to save its state and end."""
        for watch in self._watches:
            watch.stop(reason)

    def kill(self) -> None:
        """End every rank, and what it started, now."""
        for watch in self._watches:
            watch.kill()

    async def follow(
        self, spawner: Spawner, order: Order, log_path: Path, echo: Callable[[bytes], None] | None, prefix: str | None
    ) -> Exit:
        """Start the ranks and stay with them to their end.

        Returns:
            How the run ended: as its first rank, or as the rank that died first when that took the others down.
        """
        if len(self._watches) == 1:
            return await self._watches[0].follow(spawner, order, log_path, echo, prefix)
        tasks = []
        for rank, own in enumerate(orders(order, len(self._watches))):
            path = log_path if rank == 0 else log_path.with_name(f"{log_path.stem}_rank{rank}{log_path.suffix}")
            watch = self._watches[rank]
            tasks.append(asyncio.create_task(watch.follow(spawner, own, path, None if rank else echo, prefix)))
        try:
            culprit = await self._first_to_fail(tasks)
            ends = await asyncio.gather(*tasks)
        except BaseException:
            self.kill()
            for task in tasks:  # one that could not start must not leave the others to nobody
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        return verdict(ends, culprit)

    async def _first_to_fail(self, tasks: list[asyncio.Task[Exit]]) -> int | None:
        """Wait for all ranks, and end the others once one has failed or the first is done.

        Returns:
            The rank that failed first, or None.
        """
        culprit, pending = None, set(tasks)
        while pending:
            timeout = PATIENCE if culprit is not None or tasks[0].done() else None
            done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if culprit is None and done:
                failed = [rank for rank, task in enumerate(tasks) if task in done and not completed(task.result())]
                culprit = min(failed, default=None)
            if not done:
                self.kill()
        return culprit


def completed(end: Exit) -> bool:
    """Whether a rank did what it should."""
    return bool(end.end) and end.end.get("status") == "completed"


def verdict(ends: list[Exit], culprit: int | None) -> Exit:
    """What the run's record is written from: always the first rank's process, with the cause of the rank that died."""
    first = ends[0]
    if culprit is None or culprit == 0 or completed(first) or first.stopped:
        if first.stopped and first.end.get("status") not in ("completed", "interrupted"):
            first.end = next((end.end for end in ends if end.end.get("status") == "interrupted"), {})
        return first
    guilty = ends[culprit]
    error = dict(guilty.end)
    if error:
        error["error"] = f"rank {culprit}: {error.get('error')}"
        error["failure"] = {**(error.get("failure") or {}), "rank": culprit}
    return replace(guilty, pid=first.pid, end=error, rank=culprit, seconds=first.seconds)


def orders(order: Order, count: int) -> list[Order]:
    """The order of each rank: torchrun's variables, and its share of the threads."""
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }
    threads = max(1, order.threads // count)
    shared["OMP_NUM_THREADS"] = str(threads)
    return [
        replace(
            order,
            job=_job_of(order.job, rank),
            threads=threads,
            environment={**order.environment, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]


def _job_of(first: bytes, rank: int) -> bytes:
    """The pickled run for one rank; Hydra's files and callbacks are the first one's."""
    if rank == 0:
        return first
    job = pickle.loads(first)  # noqa: S301 - from our own process
    job.rank, job.hydra_job = rank, False
    return pickle.dumps(job)


def _free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
