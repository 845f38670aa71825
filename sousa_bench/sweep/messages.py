"""Messages between a supervisor, its fork server and its runs."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
from contextlib import suppress
from typing import Any

HEADER = struct.Struct("!Q")
MAX_FDS = 4


def frame(message: Any) -> bytes:
    """A message as bytes, its length first."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def send(channel: socket.socket, message: Any) -> None:
    """Send a message, waiting until it is taken."""
    channel.sendall(frame(message))


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """Wait for a message and the file descriptors that came with it.

    Raises:
        EOFError: The other side is gone.
    """
    head, fds, _, _ = socket.recv_fds(channel, HEADER.size, MAX_FDS)
    head += _exactly(channel, HEADER.size - len(head)) if head else b""
    if not head:
        raise EOFError
    (length,) = HEADER.unpack(head)
    return pickle.loads(_exactly(channel, length)), list(fds)  # noqa: S301 - from our own process


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def send_line(fd: int, message: dict[str, Any]) -> None:
    """Write one JSON line; a supervisor that is gone is no error of the run's."""
    data = memoryview((json.dumps(message, default=str) + "\n").encode())
    with suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def parse_line(line: bytes) -> dict[str, Any]:
    """The message of one line, or an empty dict when a kill tore it."""
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    return {}
