from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, a_cluster
from tests.sweep.running import Command


@pytest.fixture(scope="session", params=[False, True], ids=["no-accounting", "accounting"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm of the tests' own: once without an accounting database, once with one."""
    yield from a_cluster(tmp_path_factory, accounting=request.param)


@pytest.fixture
def command(tmp_path: Path, cluster: Cluster) -> Iterator[Command]:
    yield Command(tmp_path, OMP_NUM_THREADS="1", **cluster.environment)
    cluster.command("scancel", "--user=root", "--signal=KILL", "--full")
    cluster.command("scancel", "--user=root")
