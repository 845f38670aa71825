"""How a supervisor gets its runs' processes: from the fork server, or one new interpreter each."""

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import psutil

import sousa_bench
from sousa_bench.errors import UserError
from sousa_bench.sweep import wire
from sousa_bench.sweep.child import Order
from sousa_bench.sweep.forkserver import ENVIRONMENT, PRELOAD

PR_SET_CHILD_SUBREAPER = 36
RESTARTS = 3


class ServerError(UserError):
    """The fork server can't start, so no run can."""


class StartError(UserError):
    """One run's process could not be started; the next one's may."""


class Starter(Protocol):
    """Starts the processes of runs."""

    async def ready(self) -> None:
        """Wait until a run can start; raises ServerError when none ever can."""

    async def start(self, order: Order, fds: Sequence[int]) -> int:
        """Start a run with (output, status, lifeline) and return its process id, a child of this process.

        Raises:
            StartError: This run can't be started.
            ServerError: No run can.
        """

    def ended(self, pid: int) -> None:
        """Take note that a run's process is gone."""

    def close(self) -> None:
        """Give up what the starter holds."""

    def new_loop(self) -> None:
        """Forget what belonged to an event loop that has ended."""

    def warnings(self) -> list[str]:
        """What a reader of the results ought to know about how runs were started."""


class ForkServer:
    """A client of :mod:`sousa_bench.sweep.forkserver`, which it starts, and starts again when something kills it."""

    def __init__(self, modules: Sequence[str] = PRELOAD) -> None:
        _become_subreaper()
        self._modules = list(modules)
        self._live: set[int] = set()
        self._restarts = 0
        self._code: str | None = None
        self._warnings: list[str] = []
        self._broken: ServerError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.new_loop()
        self._begin()

    def _begin(self) -> None:
        self._ready = False
        ours, theirs = socket.socketpair()
        self._channel = ours
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sousa_bench.sweep.enter", "serve", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": python_path()},
        )
        theirs.close()
        ours.sendall(wire.frame({"path": sys.path, "modules": self._modules}))
        ours.setblocking(False)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    async def ready(self) -> None:
        """See :class:`Starter`."""
        async with self._lock:
            await self._get_ready()

    async def _get_ready(self) -> None:
        if self._broken is not None:
            raise self._broken
        while not self._ready:
            try:
                answer = await self._receive()
                if answer["event"] == "broken":
                    self._give_up(f"the code of a run can't be imported:\n{answer['traceback'].rstrip()}")
                self._greet(answer)
                await self._send({"event": "adopt", "pids": sorted(self._live)})
            except (EOFError, OSError):
                self._restart("died while it loaded the libraries")

    def _greet(self, answer: dict[str, Any]) -> None:
        self._ready = True
        if len(answer["threads"]) > 1:
            names = ", ".join(answer["threads"])
            self._warnings.append(f"the fork server has several threads ({names}): a run may hang; please report this")
        if self._code is not None and answer["code"] != self._code:
            self._warnings.append(
                "the code was edited while the sweep ran, and the fork server had to start again: "
                "later runs of this sweep run other code than earlier ones"
            )
        self._code = answer["code"]

    async def start(self, order: Order, fds: Sequence[int]) -> int:
        """See :class:`Starter`."""
        async with self._lock:
            while True:
                await self._get_ready()
                try:
                    await self._send({"event": "start", "order": order}, fds)
                    answer = await self._receive()
                except (EOFError, OSError):
                    self._restart("died while it started a run")
                    continue
                self._restarts = 0
                if answer["event"] != "forked":
                    raise StartError(f"no process could be started for the run: {answer['error']}")
                self._live.add(answer["pid"])
                return int(answer["pid"])

    def ended(self, pid: int) -> None:
        """See :class:`Starter`."""
        self._live.discard(pid)
        task = asyncio.ensure_future(self._tell_ended(pid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_ended(self, pid: int) -> None:
        async with self._lock:
            if self._ready:  # a new server learns from "adopt" which runs are left
                with suppress(OSError):
                    await self._send({"event": "ended", "pid": pid})

    def warnings(self) -> list[str]:
        """See :class:`Starter`."""
        return list(self._warnings)

    def new_loop(self) -> None:
        """Forget what belonged to an event loop that has ended."""
        self._lock = asyncio.Lock()  # whoever holds it may use the channel, for a question and its answer

    def close(self) -> None:
        """See :class:`Starter`."""
        self._channel.close()
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._output.close()

    def _restart(self, what: str) -> None:
        words = self._last_words()
        self.close()
        self._end_strays()
        self._restarts += 1
        if self._restarts > RESTARTS:
            self._give_up(f"the fork server {what}, {self._restarts} times running. Its last words:\n{words}")
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

    def _last_words(self) -> str:
        with suppress(OSError, ValueError):
            self._output.seek(0)
            return self._output.read()[-4000:].decode(errors="replace").strip()
        return ""

    async def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        data = wire.frame(message)
        loop = asyncio.get_running_loop()
        if fds:
            socket.send_fds(self._channel, [data[: wire.HEADER.size]], list(fds))
            data = data[wire.HEADER.size :]
        await loop.sock_sendall(self._channel, data)

    async def _receive(self) -> dict[str, Any]:
        head = await self._exactly(wire.HEADER.size)
        (length,) = wire.HEADER.unpack(head)
        return pickle.loads(await self._exactly(length))

    async def _exactly(self, count: int) -> bytes:
        loop, parts = asyncio.get_running_loop(), bytearray()
        while len(parts) < count:
            part = await loop.sock_recv(self._channel, count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


class Spawner:
    """One new interpreter a run, which loads the libraries.

    For systems whose processes can't be adopted (macOS), and for a Slurm job, which has one run.
    """

    async def ready(self) -> None:
        """See :class:`Starter`."""

    async def start(self, order: Order, fds: Sequence[int]) -> int:
        """See :class:`Starter`."""
        with tempfile.TemporaryFile() as file:
            pickle.dump((sys.path, order), file)
            file.seek(0)
            with _deaf_to_warnings():
                process = subprocess.Popen(
                    [sys.executable, "-m", "sousa_bench.sweep.enter", "run", *map(str, fds)],
                    pass_fds=list(fds),
                    stdin=file,
                    start_new_session=True,
                    env={**os.environ, **order.environment, "PYTHONPATH": python_path()},
                )
        process.returncode = 0  # the supervisor waits for it, not this object
        return process.pid

    def ended(self, pid: int) -> None:
        """See :class:`Starter`."""

    def close(self) -> None:
        """See :class:`Starter`."""

    def new_loop(self) -> None:
        """Nothing here belongs to an event loop."""

    def warnings(self) -> list[str]:
        """See :class:`Starter`."""
        return []


@contextmanager
def _deaf_to_warnings() -> Iterator[None]:
    """Start children that SIGUSR2 can't end: Slurm sends its warning to every process of a job."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def python_path() -> str:
    """``PYTHONPATH`` with which a new interpreter finds this package, wherever this one found it."""
    home = str(Path(sousa_bench.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))


def can_fork() -> bool:
    """Whether this system has what the fork server needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def _become_subreaper() -> None:
    """Let this process adopt its orphaned descendants: the runs."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
