"""A search whose batches are Slurm job arrays: pruned from afar, left alone, and watched again."""

from __future__ import annotations

import os
import signal

import pytest

from tests.slurm.test_slurm import WITHOUT_ACCOUNTING
from tests.sweep.running import Command, until

optuna = pytest.importorskip("optuna")
from tests.search.test_search_command import results, states  # noqa: E402

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]
SMALL = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=0.5")
SLURM = (
    "hydra/launcher=slurm",
    "hydra.launcher.poll=1",
    "hydra.launcher.gpus_per_node=null",
    *SMALL,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)


@WITHOUT_ACCOUNTING
def test_a_search_prunes_on_slurm_and_is_taken_up(command: Command) -> None:
    words = (
        "-m",
        "hydra/sweeper=optuna",
        "peft.learning_rate=tag(log,interval(1e-6,1e-4))",
        "sweep=s",
        "hydra.sweeper.n_trials=4",
        "hydra/sweeper/pruner=threshold",
        "trainer.max_epochs=12",
        "task.seconds=0.4",
        *SLURM,
        "hydra.launcher.array_parallelism=2",
    )
    process = command.start(*words)
    until(lambda: process.poll() is not None or list(command.folder.glob("multirun/s/*/history.json")), timeout=120)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, signal.SIGKILL)  # the jobs go on
    process.communicate()
    output = command(*words, timeout=300)
    assert set(states(command)) == {"COMPLETE", "PRUNED"}, output
    assert len(states(command)) == 4
    assert "4 trials" in output
    given_up = [result for result in results(command) if result["status"] == "interrupted"]
    assert given_up
    assert {result["failure"]["cause"] for result in given_up} == {"pruned"}
