"""What every test needs of the process that runs them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def signals_arrive() -> Iterator[None]:
    """Start each test with Ctrl-C and hang-up at their defaults, so that the commands which it starts get them.

    ``nohup`` and a shell without job control start commands with these ignored, a run that was asked to stop leaves it
    so in its process, and every process that is started inherits that.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
