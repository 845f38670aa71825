"""What every test needs of the process that runs them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports NumPy or torch; `-n 2` has a core for each lane
HOME = "SOUSA_BENCH_TEST_HOME"
"""The folder of what tests of several files share (tests/trained.py): one, however many processes run the tests."""

LONG = ("tests/docs/test_from", "tests/docs/", "tests/slurm/", "tests/faults/", "tests/pretrain/", "tests/sweep/")
"""Begun first, so that with -n 2 none of them is left over at the end."""


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[HOME] = tempfile.mkdtemp(prefix="sousa_tests_")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(HOME), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start each test, before its fixtures, with signals at their defaults, so that what it starts gets them.

    ``nohup`` and a shell without job control start commands with Ctrl-C and hang-up ignored, a run that was asked to
    stop leaves its signals so in its process, and every process that is started inherits that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium or Chrome; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium or Chrome on this machine")
    return path


@pytest.fixture(scope="session")
def sample() -> Path:
    """The piece of real SOUSA: the variable SOUSA_SAMPLE, else beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "sousa_sample"
    root = Path(os.environ.get("SOUSA_SAMPLE", beside))
    if not (root / "generator" / "splits.json").is_file():
        pytest.skip(f"no piece of real SOUSA in {root} (SOUSA_SAMPLE)")
    return root
