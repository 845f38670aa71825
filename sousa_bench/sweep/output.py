"""A run's output on its way: into ``run.log``, its last lines into memory, and onto the screen."""

from __future__ import annotations

import codecs
import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sousa_bench.sweep.record import TAIL_LINES

T = TypeVar("T")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
QUIET_SECONDS = 3.0  # that planning may take before it says how far it is
LONGEST_LINE = 64 * 1024
MOST_WAITING = 1024 * 1024  # bytes that wait for the screen
EPOCH_LINE = re.compile(r"epoch \d+/\d+[:,] ")  # what a run says of an epoch; its line at the foot says it too
DROPPED = b"\n[the screen was not read: some output is only in the runs' run.log]\n"


class Screen(io.TextIOBase):
    """Writes to a descriptor from a thread, so that a screen that nobody reads (Ctrl-S, ``| less``) stops nothing.

    What is pinned stays at the foot of a terminal: whatever else is written, whole lines, appears above it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._dropped = False
        self._ending = False
        self._foot: list[str] = []
        self._begun = b""
        self._thread = threading.Thread(target=self._work, name="screen", daemon=True)
        self._thread.start()

    def write(self, text: str, /) -> int:
        """Write this command's own text, none of which is dropped; above a foot only whole lines can stand."""
        with self._changed:
            data = self._begun + text.encode(errors="replace")
            end = data.rfind(b"\n") + 1 if self._foot else len(data)
            self._begun = data[end:]
            if end:
                self.show(data[:end], always=True)
        return len(text)

    def fileno(self) -> int:
        """The descriptor of the screen."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the screen is a terminal."""
        return os.isatty(self._descriptor)

    def show(self, data: bytes, *, always: bool, foot: list[str] | None = None) -> None:
        """Write when the screen takes it; runs' output is dropped while too much waits, this command's words aren't.

        Args:
            data: What is written.
            always: Whether it is never dropped.
            foot: Lines that are pinned from now on; None for those that are.
        """
        with self._changed:
            full = self._size > MOST_WAITING
            if full and not always:
                self._dropped = self._dropped or bool(data)
                return
            if self._dropped and not full:
                self._dropped = False
                data = DROPPED + data
            if self._foot:
                data = f"\x1b[{len(self._foot)}A\x1b[J".encode() + data
            self._foot = self._foot if foot is None else foot
            data += "".join(f"{line}\n" for line in self._foot).encode(errors="replace")
            if data:
                self._pieces.append(data)
                self._size += len(data)
                self._changed.notify()

    def finish(self, seconds: float | None) -> bool:
        """Wait until all is written, for so many seconds (None: no limit) or until Ctrl-C; whether it is."""
        with self._changed:
            if self._begun:
                self.show(self._begun, always=True, foot=[])
            self._ending = True
            self._changed.notify()
        with suppress(KeyboardInterrupt):
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._ending)
                if not self._pieces:
                    return
                data = memoryview(self._pieces[0])
            with suppress(OSError):  # a terminal that was closed
                while data:
                    data = data[os.write(self._descriptor, data) :]
            with self._changed:
                self._size -= len(self._pieces.popleft())


@contextmanager
def screen_that_never_blocks(patience: Callable[[], float | None]) -> Iterator[None]:
    """Let stdout take what is printed at once, and wait for the reader at the end.

    Args:
        patience: Seconds that this waiting may take, asked at the end; None for no limit but Ctrl-C. Afterwards
            nothing waits for this screen any more.
    """
    usual = sys.stdout
    try:
        usual.flush()
        screen = Screen(usual.fileno())
    except (OSError, ValueError):  # no real screen: nothing that could block
        yield
        return
    sys.stdout = screen
    try:
        yield
    finally:
        if screen.finish(patience()):
            sys.stdout = usual


def open_missing_streams() -> None:
    """Lead standard streams that were closed (``>&-``) to nowhere, before another file gets their descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115 - lives as long as the process
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def say(text: str) -> None:
    """Print to the screen; a terminal that was closed is no reason to end a sweep."""
    with suppress(OSError, ValueError):
        print(f"{text}\n", end="", flush=True)


def counted(items: Sequence[T], what: str) -> Iterator[T]:
    """Go through ``items``; where that takes long, say how far it is: "composing 240 of 1,000".

    On a terminal that is one line, redrawn and removed at the end; elsewhere a line every ten seconds.
    """
    terminal = on_terminal()
    due, said = time.monotonic() + QUIET_SECONDS, False
    try:
        for number, item in enumerate(items):
            if time.monotonic() >= due:
                due, said = time.monotonic() + (0.2 if terminal else 10.0), True
                text = f"{what} {number:,} of {len(items):,}"
                show_bytes(f"\r{text}\x1b[K".encode()) if terminal else say(text)
            yield item
    finally:
        if said and terminal:
            show_bytes(b"\r\x1b[K")


def show_bytes(data: bytes) -> None:
    """Pass a run's output to the screen as it is, its progress bar's cursor movements included."""
    if isinstance(sys.stdout, Screen):
        sys.stdout.show(data, always=False)
        return
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def pin(lines: list[str], *, always: bool = False) -> None:
    """Keep these lines at the foot of the terminal, in place of those before; ``always``: however much waits."""
    if isinstance(sys.stdout, Screen):
        sys.stdout.show(b"", always=always, foot=lines)


class RunLog:
    """Takes a run's output in pieces; keeps whole lines.

    A progress bar rewrites its line with carriage returns: the log gets what the line was in the end.

    Attributes:
        tail: The last lines, for ``error.log``.

    Args:
        path: The log file.
        echo: Shows the output on the screen, where it is shown.
        prefix: Stands before each line there; None shows the pieces as they come.
        brief: Whether the lines of a prefix leave out what a run's line at the foot of the terminal says.
    """

    def __init__(
        self, path: Path, echo: Callable[[bytes], None] | None, prefix: str | None = None, *, brief: bool = False
    ) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._echo = echo
        self._prefix = prefix
        self._brief = brief
        self._partial = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def feed(self, data: bytes) -> None:
        """Take the next piece of output."""
        if self._echo is not None and self._prefix is None:
            self._echo(data)
        *lines, self._partial = (self._partial + self._decode(data)).replace("\r\n", "\n").split("\n")
        for line in lines:
            self._line(line)
        if len(self._partial) > LONGEST_LINE:
            self._partial = self._partial.rpartition("\r")[2][-LONGEST_LINE:]

    def close(self) -> None:
        """Write what is left of an unfinished line."""
        if self._partial:
            self._line(self._partial)
            self._partial = ""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _line(self, line: str) -> None:
        text = ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2])
        self.tail.append(text)
        if self._echo is not None and self._prefix is not None and not (self._brief and EPOCH_LINE.match(text)):
            self._echo(f"{self._prefix}{text}\n".encode(errors="replace"))
        if self._file is not None:
            with suppress(OSError):  # a full disk fails the run by its own writes; its log may end here
                os.write(self._file, f"{text}\n".encode(errors="replace"))


def open_output(*, terminal: bool) -> tuple[int, int]:
    """A channel for a run's output: (our end, the run's end).

    Args:
        terminal: Whether the run shall see a terminal (of our screen's size), so that its progress bar moves.
    """
    if not terminal:
        return os.pipe()
    ours, theirs = os.openpty()
    modes = termios.tcgetattr(theirs)
    modes[1] &= ~termios.OPOST
    modes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    with suppress(OSError, ValueError):
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    return ours, theirs


def on_terminal() -> bool:
    """Whether the screen is a terminal."""
    with suppress(OSError, ValueError):
        return sys.stdout.isatty()
    return False
