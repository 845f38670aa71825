"""One supervised process, from its start to its exit."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousa_bench.sweep import messages
from sousa_bench.sweep.child import SHOW_STACKS, Order
from sousa_bench.sweep.output import RunLog, on_terminal, open_output
from sousa_bench.sweep.spawner import Spawner

DRAIN_SECONDS = 2.0
LEAVE_SECONDS = 30.0  # for a run that has reported its end, to exit
TICK = 1.0
"""Seconds between two looks at the timeout: what the supervisor stood still meanwhile counts as one of them."""


@dataclass
class Exit:
    """How a supervised process ended.

    Attributes:
        pid: Its process id.
        code: Exit code, or the negative number of the signal that killed it.
        stopped: Why the supervisor stopped it: ``timeout`` or ``interrupt``, else None.
        killed: Whether the supervisor used SIGKILL.
        phase: The phase that it was in.
        end: What it said about its end, or empty when it died without a message.
        seconds: Time that it took.
        tail: The last lines of its output.
        oom_kills: Processes that the kernel's out-of-memory killer ended meanwhile, on this machine.
        rank: Which of the run's processes it was.
    """

    pid: int
    code: int = 0
    stopped: str | None = None
    killed: bool = False
    phase: str = "start"
    end: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    tail: list[str] = field(default_factory=list)
    oom_kills: int = 0
    rank: int = 0


class Watch:
    """Follows one process: its output, its messages, its time."""

    def __init__(
        self,
        *,
        timeout: float | None,
        grace: float,
        on_stop: Callable[[str], None] | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        brief: bool = False,
    ) -> None:
        self._timeout = timeout
        self._grace = grace
        self._on_stop = on_stop
        self._on_progress = on_progress
        self._brief = brief
        self._exit = Exit(0)
        self._gone = False
        self._deadline: asyncio.TimerHandle | None = None
        self._clock_set = False
        self._answers_signals = False
        self._lines = b""

    async def follow(
        self, spawner: Spawner, order: Order, log_path: Path, echo: Callable[[bytes], None] | None, prefix: str | None
    ) -> Exit:
        """Start the process and stay with it to its end."""
        kills, started = oom_kills(), time.monotonic()
        with ExitStack() as ours, ExitStack() as theirs:
            terminal = echo is not None and prefix is None and on_terminal()
            output, their_output = _pair(ours, theirs, open_output(terminal=terminal))
            status, their_status = _pair(ours, theirs, os.pipe())
            their_lifeline, _ = _pair(theirs, ours, os.pipe())
            log = RunLog(log_path, echo, prefix, brief=self._brief)
            ours.callback(log.close)
            ours.callback(self._stop_clock)
            closed = [self._read(ours, output, log.feed), self._read(ours, status, self._message)]
            self._exit.pid = await spawner.start(order, (their_output, their_status, their_lifeline))
            theirs.close()
            ours.callback(self._kill_group)  # an error here must not leave a run that nobody watches
            if self._exit.stopped:  # asked to while it started
                self._signal(signal.SIGTERM)
            self._set_clock()
            self._exit.code = await wait_for_exit(self._exit.pid, self._kill_group)
            self._gone = True
            self._exit.seconds = time.monotonic() - started
            spawner.ended(self._exit.pid)
            await asyncio.wait(closed, timeout=DRAIN_SECONDS)
            reap_group(self._exit.pid)
        self._exit.tail = list(log.tail)
        self._exit.oom_kills = oom_kills() - kills
        return self._exit

    def stop(self, reason: str) -> None:
        """Ask the run to save its state and end; after the grace it is killed."""
        if self._exit.stopped is None:
            self._exit.stopped = reason
            if self._exit.pid:
                self._signal(signal.SIGTERM)
            self._stop_clock()
            self._deadline = asyncio.get_running_loop().call_later(self._grace, self.kill)
            if self._on_stop:
                self._on_stop(reason)

    def kill(self) -> None:
        """End the run and every process that it started, now."""
        if self._exit.pid and not self._exit.killed:
            self._exit.killed = True
            self._kill_group()

    def _message(self, data: bytes) -> None:
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            message = messages.parse_line(line)
            match message.pop("event", None):
                case "started":
                    self._answers_signals = True
                case "progress":
                    self._exit.phase = str(message.get("phase", self._exit.phase))
                    self._set_clock()
                    if self._on_progress is not None:
                        self._on_progress(message)
                case "end":
                    self._exit.end = message
                    if self._exit.stopped is None:
                        self._stop_clock()
                        self._deadline = asyncio.get_running_loop().call_later(LEAVE_SECONDS, self.kill)

    def _set_clock(self) -> None:
        """Start the timeout: at each sign of life while the shared caches fill, for good once they are ready."""
        if self._timeout is None or self._clock_set or self._exit.stopped or self._exit.end:
            return
        self._clock_set = self._exit.phase not in ("start", "data")
        self._stop_clock()
        self._tick(self._timeout)

    def _tick(self, left: float) -> None:
        """Let ``left`` seconds pass, of which none counts twice: SIGSTOP of a sweep takes no time from its runs."""
        if left <= 0:
            self._time_is_up()
            return
        step = min(left, TICK)
        self._deadline = asyncio.get_running_loop().call_later(step, self._tick, left - step)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_is_up(self) -> None:
        if self._answers_signals:
            self._signal(SHOW_STACKS)
        self.stop("timeout")

    def _signal(self, number: int) -> None:
        if not self._gone:  # its number may be another process's by now
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._exit.pid, number)

    def _kill_group(self) -> None:
        if not self._gone:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._exit.pid, signal.SIGKILL)
        self._signal(signal.SIGKILL)

    @staticmethod
    def _read(stack: ExitStack, fd: int, take: Callable[[bytes], None]) -> asyncio.Future[None]:
        """Feed what arrives on ``fd`` to ``take``; the future is done when the other end is closed."""
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        os.set_blocking(fd, False)

        def readable() -> None:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            except OSError:  # a pseudo-terminal's way to say that nobody holds its other end
                data = b""
            if data:
                take(data)
            else:
                loop.remove_reader(fd)
                _settle(closed)

        loop.add_reader(fd, readable)
        stack.callback(loop.remove_reader, fd)
        return closed


def _pair(first: ExitStack, second: ExitStack, fds: tuple[int, int]) -> tuple[int, int]:
    """Two ends of a channel, each to be closed by a stack."""
    for stack, fd in zip((first, second), fds, strict=True):
        stack.callback(os.close, fd)
    return fds


async def wait_for_exit(pid: int, before_it_goes: Callable[[], None]) -> int:
    """Wait, without polling, until a child process ends.

    Args:
        pid: The child.
        before_it_goes: Called when it has ended while its number is still its own (not on macOS, which can't tell).

    Returns:
        Its exit code, or the negative number of the signal that killed it.
    """
    loop = asyncio.get_running_loop()
    if hasattr(os, "pidfd_open"):
        handle = os.pidfd_open(pid)
        gone: asyncio.Future[None] = loop.create_future()
        loop.add_reader(handle, _settle, gone)
        try:
            await gone
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        before_it_goes()
        _, code = os.waitpid(pid, 0)
    else:
        _, code = await loop.run_in_executor(None, os.waitpid, pid, 0)
        before_it_goes()
    return os.waitstatus_to_exitcode(code)


def reap_group(group: int) -> None:
    """Wait for the killed descendants of a run, which this process, their "subreaper", has inherited."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def oom_kills() -> int:
    """How many processes the kernel's out-of-memory killer has ended on this machine since it started."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
