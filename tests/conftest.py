"""What every test needs of the process that runs them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def ctrl_c_arrives() -> Iterator[None]:
    """Start each test with Ctrl-C handled, so that the commands which it starts get it at its default.

    A shell without job control starts background commands with Ctrl-C ignored, a run that was asked to stop leaves it
    so in its process, and every process that is started inherits that.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
