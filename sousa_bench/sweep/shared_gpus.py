"""Which runs may be on a GPU together: as many as were asked for, or as it has memory and idle time for."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sousa_bench.sweep.resources import Slot
from sousa_bench.system.gpus import busy_share

SPARE = 0.1
"""Share of a GPU's memory that ``auto`` leaves free: what a run takes grows a little after its first epoch."""
BUSY = 90
"""Per cent of the time; a GPU that works as much has nothing to give to one more run."""
LOOKS, LOOK_SECONDS = 4, 0.5


@dataclass
class Gpu:
    """A GPU and the runs that are on it.

    Attributes:
        most: Runs that it may hold; fewer once memory ran out.
        idle_for: Runs that it has been seen to have time for.
        runs: What each run there last told of memory, by the number of its place; None before it has told.
        free: Bytes that no process holds.
        total: Bytes that it has.
        look: The present look at how busy it is.
    """

    most: int
    idle_for: int
    runs: dict[int, Mapping[str, Any] | None] = field(default_factory=dict)
    free: float = 0.0
    total: float = 0.0
    look: asyncio.Task[None] | None = None


class SharedGpus:
    """Lets runs onto the GPUs of their places. Without GPUs everyone may start.

    Args:
        places: Where runs may be.
        per_gpu: Most runs on a GPU; ``auto``: one at first, and another whenever the GPU is seen to be idle for a
            tenth of the time and has memory for the largest run so far; None: as many as places name it.
    """

    def __init__(self, places: Sequence[Slot], per_gpu: int | str | None) -> None:
        self.auto = per_gpu == "auto"
        named = [gpu for place in places for gpu in place.gpus]
        most = per_gpu if isinstance(per_gpu, int) else len(places)
        self._gpus = {gpu: Gpu(min(most, named.count(gpu)), 1 if self.auto else most) for gpu in named}
        self._largest = 0
        self._together: dict[int, int] = {}
        self._changed = asyncio.Event()

    def enter(self, place: Slot) -> bool:
        """Take a run onto its place's GPUs, if they have room."""
        own = self._of(place)
        if not all(self._has_room(gpu) for gpu in own):
            return False
        self._together[place.number] = 1
        for gpu in own:
            gpu.runs[place.number] = None
            for number in gpu.runs:
                self._together[number] = max(self._together[number], len(gpu.runs))
        return True

    def leave(self, place: Slot) -> None:
        """A run has ended."""
        self._together.pop(place.number, None)
        for gpu in self._of(place):
            told = gpu.runs.pop(place.number)
            gpu.free += told["need"] if told else 0
        self.wake()

    def shares(self, place: Slot) -> bool:
        """Whether a run there may have others beside it."""
        return any(gpu.most > 1 for gpu in self._of(place))

    def together(self, place: Slot) -> int:
        """Most runs that there were at a time on the GPU of the run there, itself included."""
        return self._together.get(place.number, 1)

    def learn(self, place: Slot, progress: Mapping[str, Any]) -> None:
        """Take in what a run tells, see :func:`sousa_bench.training.hardware.gpu_memory`."""
        told = progress.get("gpu_memory")
        if not self.auto or told is None:
            return
        for gpu in self._of(place):
            earlier = gpu.runs[place.number]
            if told == earlier:  # progress repeats it until there is news
                continue
            gpu.runs[place.number], gpu.free, gpu.total = told, told["free"], told["total"]
            self._largest = max(self._largest, told["need"])
            if earlier is None and None not in gpu.runs.values():
                if gpu.look is not None:
                    gpu.look.cancel()
                gpu.look = asyncio.create_task(self._look(gpu, told["uuid"]))
            self.wake()

    def ran_out(self, place: Slot) -> int:
        """Memory ran out for a run that had others beside it: how many its GPU holds from now on."""
        for gpu in self._of(place):
            gpu.most = max(1, min(gpu.most, len(gpu.runs)) - 1)
        return min((gpu.most for gpu in self._of(place)), default=1)

    async def change(self) -> None:
        """Wait until there may be room, or nothing more is to be started."""
        await self._changed.wait()

    def wake(self) -> None:
        """Let those that wait look again."""
        self._changed.set()
        self._changed.clear()

    def _of(self, place: Slot) -> list[Gpu]:
        return [self._gpus[gpu] for gpu in place.gpus if gpu in self._gpus]

    def _has_room(self, gpu: Gpu) -> bool:
        if not gpu.runs:
            return True
        if len(gpu.runs) >= min(gpu.most, gpu.idle_for):
            return False
        untold = sum(told is None for told in gpu.runs.values())
        return not self.auto or (untold + 1) * self._largest <= gpu.free - SPARE * gpu.total

    async def _look(self, gpu: Gpu, uuid: str) -> None:
        """See whether a GPU has time for one run more than it has now; memory alone decides where nobody can say."""
        now, shares = len(gpu.runs), []
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_SECONDS)
            if (share := await asyncio.to_thread(busy_share, uuid)) is None:
                break
            shares.append(share)
        gpu.idle_for = now + (not shares or statistics.mean(shares) < BUSY)
        self.wake()
