"""Names, labels, overrides and result files that nobody thought of: nothing gets through.

Nothing is written outside of the folder, every command ends within ten seconds, with an exit code and no traceback.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sousa_bench.analyze import main as analyze
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.export import package
from sousa_bench.export.__main__ import main as export
from sousa_bench.promote.__main__ import main as promote
from sousa_bench.results.result import write_result
from sousa_bench.status import show
from sousa_bench.sweep import session
from sousa_bench.sweep.spawner import ForkServer
from tests.analysis.synthetic import Clips, predict, result, write_predictions
from tests.faults.guard import Guard
from tests.trained import Trained, trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EXAMPLES = {"analyze": 30, "train": 30, "evaluate": 15, "export": 15}
GUARD = Guard()

PIECES = [
    "../x", "/tmp/sousa_bench_was_here", "a/../../b", "..", ".", "~", "*", "", "\0", "\n", "\x1b[2J", "\x9b", "\u2028",
    "<script>", "</script><img src=x onerror=y>", "=1+1", "|", "`$(id)`", "${oc.env:HOME}", "$\\{oc.env:HOME\\}",
    "${", "_target_", "{_target_: os.system}", "nan", "NA", "null", "None", "true", "1e400", "-1", "0", "[", "{a: 1}",
    "[1,2]", "a,b", "a=b", "'", '"', "--help", "-x", "é", "e\u0301", "🥁", "\ud800", "x" * 300, "analysis", ".hidden",
]  # fmt: skip
mixed = st.builds(str.__add__, st.text(max_size=3), st.sampled_from(PIECES))
texts = st.one_of(st.sampled_from(PIECES), st.text(max_size=8), mixed)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, -1, 1e308, 2**31, 10**400]))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def places(content: Any, above: tuple = ()) -> Iterator[tuple]:
    """The way to each part of a JSON document."""
    if above:
        yield above
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*above, key))


def changed(content: dict[str, Any], draw: Callable[[st.SearchStrategy], Any], most: int = 3) -> dict[str, Any]:
    """A document in which a few parts are something else, or have gone."""
    made = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, most))):
        ways = sorted(places(made), key=repr)
        if not ways:
            break
        *above, last = draw(st.sampled_from(ways))
        inner = made
        for key in above:
            inner = inner[key]
        if draw(st.integers(0, 5)):
            inner[last] = draw(values)
        else:
            del inner[last]
    return made


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def emptied(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return folder


def ended(main: Callable[[list[str]], int], *words: str) -> int:
    """A command's exit code; its own parser ends the process."""
    try:
        return main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)


def example(number: int) -> Callable:
    """So many examples, each in the same folder."""
    return settings(
        max_examples=number,
        deadline=None,
        phases=[Phase.generate],  # an example is short as it is
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, whose surroundings are watched."""
    folder = tmp_path / "around" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


def printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Fail where an escape of someone's was printed."""
    said = capsys.readouterr()
    assert not {"\x1b", "\x9b"} & set(said.out + said.err)
    assert "Traceback" not in said.err


def test_results(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = Clips.make(4, 5)
    import numpy as np

    predicted, logits = predict(clips, np.full(len(clips.label), 0.7), np.random.default_rng(0))
    good = [result({"seed": seed}, accuracy=0.7) for seed in (1, 2)]
    jobs = [{key: each[key] for key in ("fingerprint", "overrides", "status")} for each in good]
    jobs = [job | {"index": number, "folder": str(number)} for number, job in enumerate(jobs, 1)]
    manifest = {"schema_version": 1, "name": "s", "command": "python -m sousa_bench.train", "jobs": jobs}
    root = here / "multirun"

    @example(EXAMPLES["analyze"])
    @given(st.data())
    def one(data: st.DataObject) -> None:
        emptied(root)
        for i, each in enumerate(good, 1):
            write(root / str(i) / "result.json", changed(each, data.draw))
        write_predictions(root / "1" / "predictions.parquet", clips, predicted, logits)
        write(root / "sweep.json", changed(manifest, data.draw))
        with GUARD.around(here):
            match data.draw(st.sampled_from(["analyze", "status", "promote"])):
                case "analyze":
                    assert ended(analyze, str(root), "--no-plots") in (0, 1)
                case "status":
                    assert show(root) in (0, 2)
                case "promote":
                    assert ended(promote, str(root), "--print", f"sweep={data.draw(texts)}", data.draw(texts)) in (
                        0,
                        1,
                        2,
                    )
        assert [path.name for path in here.parent.iterdir()] == ["here"]
        printed(capsys)

    one()


KEYS = ["model", "peft", "augmentation", "data", "seed", "sweep", "resume", "force", "on_error", "timeout", "n_jobs",
        "trainer.max_epochs", "peft.r", "peft.learning_rate", "init_from", "lineage", "hydra.run.dir", "+new", "~seed",
        "search", "hydra/launcher", "experiment", "task.steps"]  # fmt: skip


def test_overrides(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are stand-ins, from one fork server; those that say where they write are the user's own word."""
    from tests.standin.app import CONF, job

    target, modules = "tests.standin.training.run", ["tests.standin.training", "hydra.core.utils"]
    server = ForkServer(modules)
    close = server.close
    monkeypatch.setattr(server, "close", lambda: None)
    monkeypatch.setattr(session, "ForkServer", lambda _: server)
    words = st.builds("{}={}".format, st.sampled_from([key for key in KEYS if not key.startswith("hydra.")]), texts)

    @example(EXAMPLES["train"])
    @given(st.lists(words, min_size=1, max_size=2), st.booleans())
    def one(given: list[str], several: bool) -> None:
        emptied(here)
        GlobalHydra.instance().clear()
        server.new_loop()
        given = [word.replace("\0", "") for word in given]  # no command line can hold one
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # which the command sets for itself
        monkeypatch.setattr(sys, "argv", ["app.py", *(["-m"] if several else []), "task.seconds=0", *given])
        with GUARD.around(here):
            code = ended(lambda _: session.command(job, target=target, modules=modules, conf=CONF))
        assert code in (0, 1, 2)
        assert [path.name for path in here.parent.iterdir()] == ["here"]
        assert "Traceback" not in capsys.readouterr().err

    try:
        one()
    finally:
        close()


def copied(run: Trained, here: Path, draw: Callable[[st.SearchStrategy], Any]) -> Path:
    """A run's folder in which one of its files of JSON says something else."""
    folder = here / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    name = draw(st.sampled_from(["result.json", "adapter/sousa.json", "adapter/adapter_config.json"]))
    write(folder / name, changed(json.loads((folder / name).read_text()), draw))
    return folder


def test_runs_evaluated(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained()
    other = st.builds("data.{}={}".format, st.sampled_from(["name", "root", "cache_dir", "filters", "table"]), texts)
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(here / "cache"))
    shutil.copytree(run.home / "cache", here / "cache")

    @example(EXAMPLES["evaluate"])
    @given(st.data())
    def one(data: st.DataObject) -> None:
        folder = copied(run, here, data.draw)
        words = data.draw(st.lists(other, max_size=1))
        words = [word.replace("\0", "") for word in words]
        with GUARD.around(here):
            code = ended(
                evaluate, str(folder), *words, "--no-images", "--threads", "1", "--output-dir", str(here / "out")
            )
        assert code in (0, 1, 2)
        printed(capsys)

    one()


def test_runs_exported(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the graph, whose making takes seconds and reads nothing of a file."""
    run = trained()
    monkeypatch.setattr(package, "waveform_graph", lambda *_: SimpleNamespace())
    monkeypatch.setattr(onnx, "save", lambda _, place: Path(place).write_bytes(b""))
    monkeypatch.setattr(package, "check", lambda *_: {"runtime": "none", "seconds": [], "onnx_error": 0.0})

    @example(EXAMPLES["export"])
    @given(st.data())
    def one(data: st.DataObject) -> None:
        folder = copied(run, here, data.draw)
        shutil.rmtree(here / "package", ignore_errors=True)
        with GUARD.around(here):
            code = ended(export, str(folder), str(here / "package"))
        assert code in (0, 1, 2)
        printed(capsys)

    one()


def test_the_guard_sees(here: Path) -> None:
    """Each of the ways to write outside, and a hang."""
    watch = Guard()
    with pytest.raises(AssertionError), watch.around(here):
        (here.parent / "x").write_text("x")
    (here.parent / "x").unlink()
    assert watch.outside == [f"open {here.parent / 'x'}"]
    write_result(here, result({}))
    watch.outside.clear()
    with watch.around(here):
        (here / "result.json").rename(here / "y")
    with pytest.raises(AssertionError), watch.around(here):
        (here / "y").rename(here.parent / "y")
    (here.parent / "y").unlink()
