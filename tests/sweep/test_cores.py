"""Runs side by side keep to their cores; what they share is made on all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sousa_bench.sweep.resources import slots

SCRIPT = """
import json, os
from concurrent.futures import ThreadPoolExecutor
from sousa_bench.system.cores import all_cores, keep_to, usable_cores

def in_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(usable_cores).result()

told = [usable_cores()]
with all_cores():  # nobody keeps to anything yet
    told.append(usable_cores())
keep_to([min(os.sched_getaffinity(0))])
told += [usable_cores(), in_thread()]
with all_cores():
    told += [usable_cores(), in_thread()]
told += [usable_cores(), in_thread()]
print(json.dumps(told))
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="there are no cores to choose from"
)
def test_shared_data_are_made_on_all_cores():
    environment = {key: value for key, value in os.environ.items() if key != "SOUSA_BENCH_CORES"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    every = len(os.sched_getaffinity(0))
    assert json.loads(done.stdout) == [every, every, 1, 1, every, every, 1, 1]


def test_runs_side_by_side_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, second = slots(2)
    assert (first.cpus, second.cpus) == ([0, 1], [2, 3])
    assert first.threads == second.threads == 2 or os.environ.get("OMP_NUM_THREADS")
