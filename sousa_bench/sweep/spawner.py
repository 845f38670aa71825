"""How a supervisor gets its runs' processes: one new interpreter each, or forks from the fork server."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn

import psutil

from sousa_bench.errors import Interrupted, UserError
from sousa_bench.sweep import messages
from sousa_bench.sweep.child import Order
from sousa_bench.sweep.forkserver import ENVIRONMENT, PRELOAD
from sousa_bench.system.python import python_environment

PR_SET_CHILD_SUBREAPER = 36
RESTARTS = 3
LOAD_SECONDS = 600.0  # that the fork server may take for its libraries
ANSWER_SECONDS = 60.0  # that it may take to answer an order; one that was stopped never does
STOP_SECONDS = 2.0  # that an order may still take once the sweep was told to end


class ServerError(UserError):
    """The fork server can't start, so no run can."""


class StartError(UserError):
    """One run's process could not be started; the next one's may."""


class Spawner:
    """Starts each run as a new interpreter, which loads the libraries.

    For systems whose processes can't be adopted (macOS), and for a Slurm job, which has few runs.

    Attributes:
        keeps_code: Whether a run has the code as it was at the sweep's start, whatever is edited meanwhile.
        warnings: What a reader of the results ought to know about how runs were started.
    """

    keeps_code = False

    def __init__(self) -> None:
        self.warnings: list[str] = []

    async def ready(self) -> None:
        """Wait until a run can start; raises ServerError when none ever can."""

    async def start(self, order: Order, fds: Sequence[int]) -> int:
        """Start a run with (output, status, lifeline) and return its process id, a child of this process.

        Raises:
            StartError: This run can't be started.
            ServerError: No run can.
        """
        with tempfile.TemporaryFile() as file:
            pickle.dump((sys.path, order), file)
            file.seek(0)
            # Slurm sends its warning, SIGUSR2, to every process of a job: no child may die of it before it begins.
            former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            try:
                process = subprocess.Popen(
                    _python("sousa_bench.sweep.child", *fds),
                    pass_fds=list(fds),
                    stdin=file,
                    start_new_session=True,
                    env=python_environment(**order.environment),
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, former)
        process.returncode = 0  # the supervisor waits for it, not this object
        return process.pid

    def ended(self, pid: int) -> None:
        """Take note that a run's process is gone."""

    def stop(self) -> None:
        """Wait no longer for a run that is being started: the sweep was told to end."""

    def close(self) -> None:
        """Give up what this object holds."""

    def new_loop(self) -> None:
        """Forget what belonged to an event loop that has ended."""


class ForkServer(Spawner):
    """A client of :mod:`sousa_bench.sweep.forkserver`, which it starts, and starts again when something kills it."""

    keeps_code = True

    def __init__(self, modules: Sequence[str] = PRELOAD) -> None:
        super().__init__()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # this process adopts its orphans: the runs
        self._modules = list(modules)
        self._live: set[int] = set()
        self._restarts = 0
        self._stopped = False
        self._code: str | None = None
        self._broken: ServerError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.new_loop()
        self._begin()

    def _begin(self) -> None:
        self._ready = False
        self._channel, theirs = socket.socketpair()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self._process = subprocess.Popen(
            _python("sousa_bench.sweep.forkserver", theirs.fileno()),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            env=python_environment(**ENVIRONMENT),
        )
        theirs.close()
        messages.send(self._channel, {"path": sys.path, "modules": self._modules})
        self._channel.setblocking(False)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    async def ready(self) -> None:
        """See :class:`Spawner`."""
        async with self._lock:
            await self._get_ready()

    async def _get_ready(self) -> None:
        if self._broken is not None:
            raise self._broken
        while not self._ready:
            try:
                answer = await self._receive(LOAD_SECONDS)
                if answer["event"] == "broken":
                    self._give_up(f"the code of a run can't be imported: {answer['error']}")
                self._greet(answer)
                await self._send({"event": "adopt", "pids": sorted(self._live)})
            except (EOFError, OSError):
                self._go_on_or_end()
                self._restart("died, or stood still, while it loaded the libraries")

    def _greet(self, answer: dict[str, Any]) -> None:
        self._ready = True
        if len(answer["threads"]) > 1:
            names = ", ".join(answer["threads"])
            self.warnings.append(f"the fork server has several threads ({names}): a run may hang; please report this")
        if self._code is not None and answer["code"] != self._code:
            self.warnings.append(
                "the code was edited while the sweep ran, and the fork server had to start again: "
                "later runs of this sweep run other code than earlier ones"
            )
        self._code = answer["code"]

    async def start(self, order: Order, fds: Sequence[int]) -> int:
        """See :class:`Spawner`."""
        async with self._lock:
            while True:
                await self._get_ready()
                try:
                    await self._send({"event": "start", "order": order}, fds)
                    answer = await self._receive(ANSWER_SECONDS)
                except (EOFError, OSError):
                    self._go_on_or_end()
                    self._restart("died, or stood still, while it started a run")
                    continue
                self._restarts = 0
                if answer["event"] != "forked":
                    raise StartError(f"no process could be started for the run: {answer['error']}")
                self._live.add(answer["pid"])
                return int(answer["pid"])

    def ended(self, pid: int) -> None:
        """See :class:`Spawner`."""
        self._live.discard(pid)
        task = asyncio.ensure_future(self._tell_ended(pid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_ended(self, pid: int) -> None:
        async with self._lock:
            if self._ready:  # a new server learns from "adopt" which runs are left
                with suppress(OSError):
                    await self._send({"event": "ended", "pid": pid})

    def new_loop(self) -> None:
        """See :class:`Spawner`."""
        self._lock = asyncio.Lock()  # whoever holds it may use the channel, for a question and its answer

    def stop(self) -> None:
        """See :class:`Spawner`."""
        self._stopped = True
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._end_order)

    def _go_on_or_end(self) -> None:
        if self._stopped:
            raise Interrupted("interrupted before it started")

    def _end_order(self) -> None:
        """End a server that hasn't answered an order by now, so that whoever waits for the answer goes on."""
        if self._lock.locked():
            self._process.kill()

    def close(self) -> None:
        """See :class:`Spawner`."""
        self._channel.close()
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._output.close()

    def _restart(self, what: str) -> None:
        last_lines = ""
        with suppress(OSError, ValueError):
            self._output.seek(0)
            last_lines = self._output.read()[-4000:].decode(errors="replace").strip()
        self.close()
        self._end_strays()
        self._restarts += 1
        if self._restarts > RESTARTS:
            times = f"{self._restarts} times running"
            self._give_up(f"the fork server {what}, {times}. The end of its output:\n{last_lines}")
        self._begin()

    def _end_strays(self) -> None:
        """End what the dead server forked and could not tell about: that run is started anew."""
        for child in psutil.Process().children():
            with suppress(psutil.Error, OSError):
                if child.pid not in self._live and child.cmdline() == self._process.args:
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)

    def _give_up(self, why: str) -> NoReturn:
        self._broken = ServerError(why)
        raise self._broken

    async def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        data = messages.frame(message)
        if fds:
            socket.send_fds(self._channel, [data[: messages.HEADER.size]], list(fds))
            data = data[messages.HEADER.size :]
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self._channel, data), ANSWER_SECONDS)

    async def _receive(self, seconds: float) -> dict[str, Any]:
        """The next message; raises EOFError or OSError where none comes in that time."""
        async with asyncio.timeout(seconds):
            (length,) = messages.HEADER.unpack(await self._exactly(messages.HEADER.size))
            return pickle.loads(await self._exactly(length))  # noqa: S301 - from our own process

    async def _exactly(self, count: int) -> bytes:
        loop, parts = asyncio.get_running_loop(), bytearray()
        while len(parts) < count:
            part = await loop.sock_recv(self._channel, count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _python(module: str, *arguments: int) -> list[str]:
    """The command that calls ``main`` of a module in a new interpreter.

    Not ``-m``, which would run once more what the package has imported by then.
    """
    return [sys.executable, "-c", f"from {module} import main; main()", *map(str, arguments)]


def can_fork() -> bool:
    """Whether this system has what the fork server needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")
