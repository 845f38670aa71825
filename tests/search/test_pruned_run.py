"""A real run that a search gives up: it ends after an epoch, with its state saved, and can go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sousa_bench.results import stop_request
from sousa_bench.results.result import Recorder
from sousa_bench.training.run import run
from tests.core.conftest import config, folder  # noqa: F401 - real runs on a few clips


@pytest.fixture
def searched(folder: Path) -> Recorder:  # noqa: F811
    """The recorder of a run that a search gives up as soon as it has seen an epoch."""

    def look(recorder: Recorder) -> None:
        if "val_acc" in recorder.progress:
            stop_request.ask(folder, "lagging")

    return Recorder(folder, listener=look)


def epochs(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["epoch"] for entry in entries]


def test_a_run_is_given_up_and_can_go_on(config: Any, folder: Path, searched: Recorder) -> None:  # noqa: F811
    cfg = config("model=efficientat", "peft=head", "augmentation=off")
    with pytest.raises(stop_request.Pruned, match="lagging"):
        run(cfg, folder, searched)
    assert epochs(stop_request.read_history(folder)) == [1]
    stop_request.forget(folder)
    result = run(cfg, folder)
    assert epochs(result["history"]) == epochs(stop_request.read_history(folder)) == [1, 2, 3]


def test_a_request_after_the_last_epoch_comes_too_late(
    config: Any,  # noqa: F811
    folder: Path,  # noqa: F811
    searched: Recorder,
) -> None:
    cfg = config("model=efficientat", "peft=head", "augmentation=off", "trainer.max_epochs=1")
    assert run(cfg, folder, searched)["metrics"]["best_epoch"] == 1


def test_a_request_within_an_epoch_is_met_within_it(config: Any, folder: Path) -> None:  # noqa: F811
    stop_request.ask(folder, "lagging")
    with pytest.raises(stop_request.Pruned):
        run(config("model=efficientat", "peft=head", "augmentation=off"), folder)
    assert stop_request.read_history(folder) == []
    assert (folder / "checkpoints" / "last.pt").is_file()
