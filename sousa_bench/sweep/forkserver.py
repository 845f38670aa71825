"""The fork server: a process that has the heavy libraries loaded and forks runs, so that a run starts at once.

It must stay single-threaded: a child of a process whose OpenMP or autograd threads exist waits for threads that it
doesn't have. So it computes nothing, and asks CUDA for nothing.

A run is forked twice. Its parent exits at once, and the supervisor, a "subreaper", adopts the run: the supervisor
itself learns how the run ends, and the end of this server touches no run.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from sousa_bench.sweep import messages

PRELOAD = (
    "wandb",
    # What wandb.init imports behind its own back. It looks into the source of every loaded module, so it comes before
    # the many that follow: 0.2 s instead of a second in each run.
    "wandb.sdk.launch.inputs.internal?",
    "torch",
    "torchaudio",
    "pytorch_lightning",
    "transformers",
    "peft",
    "torchmetrics",
    "pandas",
    "pyarrow.parquet",
    "sousa_bench.training.run",
    "sousa_bench.models.*",
    "sousa_bench.data.*",
    "sousa_bench.peft.*",
)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # no OpenBLAS or OpenMP pool before the fork; each run sets its own number
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch.cuda.is_available() without a CUDA context, which no fork survives
    # glibc would give each large tensor back to the system and take it anew, a page fault for each 4 KiB: a fifth of
    # a small model's time. Other C libraries don't read these.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # torch.compile's own processes could outlive a run that is killed
}


def main() -> None:
    """Serve the supervisor at the other end of the socket whose descriptor is the argument, until it is gone."""
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        settings, _ = messages.receive(channel)
        sys.path[:] = settings["path"]
        try:
            preload(settings["modules"])
        except BaseException as error:
            messages.send(channel, {"event": "broken", "error": _where(error)})
            return
        messages.send(channel, {"event": "ready", "threads": threads(), "code": code_digest()})
        serve(channel)


def _where(error: BaseException) -> str:
    """An error of an import in one line, with the file and line that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    return f"{type(error).__name__}: {error} ({frames[-1].filename}, line {frames[-1].lineno})"


def preload(modules: list[str]) -> None:
    """Import ``modules`` and leave the heap as the forks will share it.

    Args:
        modules: ``package.*`` stands for a package with everything below it; ``name?`` may be missing.
    """
    for name in modules:
        with suppress(ImportError) if name.endswith("?") else nullcontext():
            module = importlib.import_module(name.rstrip("?.*"))
        if name.endswith(".*"):
            for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
                importlib.import_module(found.name)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # the collector would write to every page otherwise, and each fork would copy all of it


def serve(channel: socket.socket) -> None:
    """Fork runs on demand; when the supervisor is gone, whatever ended it, kill those that are left.

    An error of this server's own ends the server alone: the supervisor lives, and so shall its runs.
    """
    groups: set[int] = set()
    with suppress(EOFError, OSError):
        while True:
            message, fds = messages.receive(channel)
            if message["event"] == "start":
                try:
                    pid = fork_run(message["order"], fds, channel)
                except OSError as error:  # no more processes, or descriptors, for now
                    messages.send(channel, {"event": "failed", "error": str(error)})
                    continue
                groups.add(pid)
                messages.send(channel, {"event": "forked", "pid": pid})
            elif message["event"] == "adopt":
                groups |= set(message["pids"])
            elif message["event"] == "ended":
                groups.discard(message["pid"])
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def fork_run(order: Any, fds: list[int], channel: socket.socket) -> int:
    """Fork a run whose parent is gone, so that the supervisor adopts it.

    Returns:
        Its process id.

    Raises:
        OSError: The system has no room for another process.
    """
    with ExitStack() as stack:
        for fd in fds:
            stack.callback(os.close, fd)
        ours, theirs = (stack.enter_context(os.fdopen(fd, mode)) for fd, mode in zip(os.pipe(), "rw", strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            middle = os.fork()
            if middle == 0:
                _fork_again(order, fds, (channel, ours, theirs))
        theirs.close()
        answer = json.loads(ours.read() or "[]")
        os.waitpid(middle, 0)
    match answer:
        case [pid]:
            return int(pid)
        case [number, words]:
            raise OSError(number, words)
    raise OSError(errno.ECHILD, "the process that was to fork it died")


def _fork_again(order: Any, fds: list[int], others: Sequence[Any]) -> NoReturn:
    """In the process between server and run: fork the run, tell its process id or why there is none, and leave."""
    *_, answer = others
    try:
        pid = os.fork()
        if pid == 0:
            for other in others:
                other.close()
            _become_run(order, fds)
        os.write(answer.fileno(), json.dumps([pid]).encode())
    except OSError as error:
        os.write(answer.fileno(), json.dumps([error.errno, error.strerror]).encode())
    finally:
        os._exit(0)


def _become_run(order: Any, fds: list[int]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sousa_bench.sweep.child import live

    live(order, *fds)


def threads() -> list[str]:
    """Names of this process's threads, those of C libraries included, that a fork would have to miss.

    The background thread of jemalloc, Arrow's allocator, is none: it minds forks by itself.
    """
    if Path("/proc/self/task").is_dir():
        names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    else:
        names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name != "jemalloc_bg_thd"]


def code_digest() -> str:
    """Hash of the package's source files: tells whether the code was edited since."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for file in sorted(root.rglob("*.py")):
        with suppress(OSError):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
