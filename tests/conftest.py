"""What every test needs of the process that runs them."""

from __future__ import annotations

import signal

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start each test, before its fixtures, with signals at their defaults, so that what it starts gets them.

    ``nohup`` and a shell without job control start commands with Ctrl-C and hang-up ignored, a run that was asked to
    stop leaves its signals so in its process, and every process that is started inherits that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
