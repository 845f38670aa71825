"""What a run's process does, from its first instant to its exit."""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from omegaconf import DictConfig, open_dict

from sousa_bench.errors import Interrupted
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.messages import send_line
from sousa_bench.sweep.record import task_config
from sousa_bench.sweep.running_job import RunningJob

PR_SET_PDEATHSIG = 1
SHOW_STACKS = signal.SIGQUIT  # asks for the stacks of all threads, from C code too, before a run that hangs is killed


@dataclass
class Order:
    """What the supervisor tells a new process.

    Attributes:
        job: The run, pickled.
        target: Dotted path of the function that does it, ``(config, folder, recorder) -> result blocks``.
        supervisor: Process id of the supervisor.
        environment: Variables to set (devices, threads, ranks).
        threads: Threads for PyTorch's operations.
        argv: The supervisor's command line.
    """

    job: bytes
    target: str
    supervisor: int
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    argv: list[str] = field(default_factory=list)


def main() -> None:
    """Do the run whose order stands on stdin: the entry of a new interpreter, whose arguments are the descriptors."""
    sys.path[:], order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own process
    live(order, *map(int, sys.argv[1:]))


def live(order: Order, output: int, status: int, lifeline: int) -> NoReturn:
    """Do the run and leave the process; never returns.

    Args:
        order: What to do.
        output: Descriptor that stdout and stderr go to.
        status: Descriptor for messages to the supervisor.
        lifeline: Descriptor that reaches its end when the supervisor is gone.
    """
    code = 1
    try:
        settle(order, output, lifeline)
        code = _do(order, partial(send_line, status))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        leave(code)


def settle(order: Order, output: int, lifeline: int) -> None:
    """Make this process a run's: own session, output, threads, death with its supervisor."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    _redirect(output)
    threading.Thread(target=_die_with, args=(lifeline,), name="lifeline", daemon=True).start()
    die_with_parent(order.supervisor)
    faulthandler.enable()
    faulthandler.register(SHOW_STACKS, all_threads=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    os.environ.update(order.environment)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(order.threads)
    sys.argv = list(order.argv)


def _redirect(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for fd in (1, 2):
        os.dup2(output, fd)
    sys.stdout, sys.stderr = (
        os.fdopen(fd, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False) for fd in (1, 2)
    )


def die_with_parent(supervisor: int) -> None:
    """Ask the kernel to kill this process when its supervisor dies, even while it hangs in C code.

    A forked run is orphaned at birth and adopted by the supervisor, which is a "subreaper"; that takes an instant.
    """
    if sys.platform != "linux":
        return
    give_up = time.monotonic() + 1.0
    while os.getppid() != supervisor and time.monotonic() < give_up:
        time.sleep(0.0005)
    if os.getppid() == supervisor:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os.killpg(0, signal.SIGKILL)


def leave(code: int) -> NoReturn:
    """Exit without the interpreter's teardown, where libraries like to crash or hang."""
    for step in (logging.shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        with suppress(BaseException):
            step()
    os._exit(code)


def _do(order: Order, send: Callable[[dict[str, Any]], None]) -> int:
    from hydra.utils import get_method

    send({"event": "started", "pid": os.getpid()})
    job: Job = pickle.loads(order.job)  # noqa: S301 - from our own process
    running = RunningJob(job, get_method(order.target), send)
    try:
        running.begin()
        _run_job(running) if job.hydra_job else _run_bare(running)
    except BaseException as error:  # also SystemExit and what the record's opening raised
        if running.status == "running":
            running.note(error)
        running.show(error)
    running.report()  # before the record is closed too: a full disk must not hide the cause
    try:
        running.finish()
    except Exception as error:
        running.note(error)
        running.show(error)
    running.report()
    return {"completed": 0, "interrupted": 3}.get(running.status, 1)


def _run_job(running: RunningJob) -> None:
    """Through Hydra's ``run_job``, so that its logging, its saved configs and every callback work as ever."""
    from hydra import version
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import JobRuntime, run_job, setup_globals
    from hydra.types import HydraContext

    from sousa_bench.sweep.callback import ResultCallback

    config = running.job.config
    version.setbase(config.hydra.runtime.version_base)
    setup_globals()
    JobRuntime.instance().set("name", config.hydra.job.name)
    callbacks = Callbacks(config)
    for callback in callbacks.callbacks:
        if isinstance(callback, ResultCallback):
            callback.running = running
    context = HydraContext(config_loader=None, callbacks=callbacks)  # type: ignore[arg-type]
    with open_dict(config):
        config.hydra.sweep.dir = str(running.job.folder.parent)
        config.hydra.sweep.subdir = running.job.folder.name
    returned = run_job(
        task_function=running.call,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )
    if isinstance(returned._return_value, BaseException):
        raise returned._return_value


def _run_bare(running: RunningJob) -> None:
    """The supervisor is itself inside ``run_job``; only what belongs to a process is set up here."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import configure_log, setup_globals

    config: DictConfig = running.job.config
    setup_globals()
    HydraConfig.instance().set_config(config)
    configure_log(config.hydra.job_logging, config.hydra.verbose)
    running.call(task_config(config))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for again in (signal.SIGTERM, signal.SIGINT):  # Slurm signals every process of a job, and then the supervisor does
        signal.signal(again, signal.SIG_IGN)
    raise Interrupted("asked to stop")


def _die_with(lifeline: int) -> None:
    """Wait for the supervisor's end of the pipe to close, whatever closes it, and kill the whole run."""
    while True:
        try:
            if os.read(lifeline, 1):
                continue
        except InterruptedError:
            continue
        except OSError:
            return
        os.killpg(0, signal.SIGKILL)
