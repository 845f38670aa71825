"""The recipe for a model: one Python file and one config, used by the commands from a folder of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousa_bench.export.__main__ import main as export
from sousa_bench.predict.__main__ import main as predict
from sousa_bench.results.result import read_result
from tests.extending import recipes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a sweep over methods, by method."""
    folder = tmp_path_factory.mktemp("own")
    recipes.write("A model", folder)
    done = recipes.train(folder, "-m", "sweep=own", "model=mine", "peft=lora,head,ia3", "peft.layers=last_1")
    assert done.returncode == 0, done.stdout + done.stderr
    results = [(read_result(file.parent), file.parent) for file in folder.glob("multirun/own/*/result.json")]
    return {result["config"]["strategy"]: place for result, place in results}


@pytest.mark.slow
def test_it_trains_by_each_method_in_its_last_block(runs: dict[str, Path]) -> None:
    assert sorted(runs) == ["head", "ia3", "lora"]
    results = {method: read_result(folder) for method, folder in runs.items()}
    assert {result["status"] for result in results.values()} == {"completed"}
    assert {result["weights"]["kind"] for result in results.values()} == {"random"}
    adapters = {method: result["parameters"]["adapter"] for method, result in results.items()}
    assert adapters == {"lora": 8 * 2 * (32 + 64), "ia3": 64 + 64, "head": 0}
    logs = "".join((folder / "run.log").read_text() for folder in runs.values())
    assert "Decoding 40 clips" in logs
    assert "Writing 40 synthetic clips" not in logs  # the command did, before a run could


@pytest.mark.slow
def test_it_predicts_and_says_why_it_is_not_exported(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs["lora"]
    home = folder.parents[2]
    clip = next(home.glob("cache/synthetic/*/**/*.flac"))
    assert predict([str(folder), str(clip)]) == 1
    assert "my_model.build can't build its model" in capsys.readouterr().err
    monkeypatch.syspath_prepend(home)
    assert predict([str(folder), str(clip)]) == 0
    assert export([str(folder), str(tmp_path / "package")]) == 1
    assert "model=mine can't be exported" in capsys.readouterr().err
