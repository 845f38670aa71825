"""Names, labels, overrides and result files that nobody thought of: nothing gets through.

Nothing is written outside of the folder, every command ends within ten seconds, with an exit code and no traceback.
Each example is a process of its own, forked from this one.
"""

from __future__ import annotations

import copy
import gc
import itertools
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sousa_bench.analyze import main as analyze
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.export import package
from sousa_bench.export.__main__ import main as export
from sousa_bench.promote.__main__ import main as promote
from sousa_bench.results.result import write_result
from sousa_bench.status import main as status
from sousa_bench.sweep import messages, session
from sousa_bench.sweep.forkserver import serve
from sousa_bench.sweep.spawner import ForkServer
from tests.analysis.synthetic import Clips, predict, result, write_predictions
from tests.faults.forked_examples import Example, Examples
from tests.faults.guard import Guard
from tests.trained import Trained, trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EXAMPLES = {"analyze": 1300, "train": 350, "evaluate": 200, "export": 150}
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


def changed(content: dict[str, Any], draw: Callable[[st.SearchStrategy], Any], notes: list) -> dict[str, Any]:
    """A document in which a few parts are something else, or have gone; ``notes`` get what."""
    made = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(made))
        if not ways:
            break
        *above, last = draw(st.sampled_from(ways))
        inner = made
        for key in above:
            inner = inner[key]
        if draw(st.integers(0, 5)):
            inner[last] = draw(values)
            notes.append(((*above, last), inner[last]))
        else:
            del inner[last]
            notes.append(((*above, last), "gone"))
    return made


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


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
    return folder


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examples:
    """Each in a folder of its own, whose surroundings are watched."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Examples(tmp_path / "examples", GUARD)


def test_results(examples: Examples, tmp_path: Path) -> None:
    clips = Clips.make(4, 5)
    predicted, logits = predict(clips, np.full(len(clips.label), 0.7), np.random.default_rng(0))
    write_predictions(tmp_path / "predictions.parquet", clips, predicted, logits)
    good = [result({"seed": seed}, accuracy=0.7) for seed in (1, 2)]
    jobs = [{key: each[key] for key in ("fingerprint", "overrides", "status")} for each in good]
    jobs = [job | {"index": number, "folder": str(number)} for number, job in enumerate(jobs, 1)]
    manifest = {"schema_version": 1, "name": "s", "command": "python -m sousa_bench.train", "jobs": jobs}
    for number, each in enumerate(good, 1):
        write(tmp_path / "warm" / str(number) / "result.json", each)
    assert ended(analyze, str(tmp_path / "warm"), "--no-plots") == 0  # imports what the examples need
    gc.freeze()

    @example(EXAMPLES["analyze"])
    @given(st.data())
    def one(data: st.DataObject) -> None:
        notes: list = []
        contents = [changed(each, data.draw, notes) for each in good]
        planned = changed(manifest, data.draw, notes)

        def prepare(here: Path) -> None:
            for number, content in enumerate(contents, 1):
                write(here / "multirun" / str(number) / "result.json", content)
            shutil.copy(tmp_path / "predictions.parquet", here / "multirun" / "1")
            write(here / "multirun" / "sweep.json", planned)

        root = Path("multirun")
        match data.draw(st.sampled_from(["analyze", "status", "promote"])):
            case "analyze":
                examples.add(Example(notes, prepare, lambda: ended(analyze, str(root), "--no-plots"), (0, 1)))
            case "status":
                examples.add(Example(notes, prepare, lambda: ended(status, str(root))))
            case "promote":
                words = [f"sweep={data.draw(texts)}", data.draw(texts)]
                notes.append(words)
                examples.add(Example(notes, prepare, lambda: ended(promote, str(root), "--print", *words)))

    one()
    examples.finish()


KEYS = ["model", "peft", "augmentation", "data", "seed", "sweep", "resume", "force", "on_error", "timeout", "n_jobs",
        "trainer.max_epochs", "peft.r", "peft.learning_rate", "init_from", "lineage", "+new", "~seed",
        "search", "hydra/launcher", "experiment"]  # fmt: skip


class ForkedProcess:
    """What a fork server needs of the object that stands for its process."""

    args: tuple[str, ...] = ()

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class WarmServer(ForkServer):
    """The fork server, itself forked from a process that has imported what it would."""

    def _begin(self) -> None:
        self._ready = False
        self._channel, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                self._channel.close()
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                messages.send(theirs, {"event": "ready", "threads": [], "code": ""})
                serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._process = ForkedProcess(pid)
        self._channel.setblocking(False)


def test_overrides(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are stand-ins; words that say where runs write are the user's own, and are left out."""
    from tests.standin import training
    from tests.standin.app import CONF, job

    target, modules = f"{training.__name__}.run", [training.__name__, "hydra.core.utils"]
    monkeypatch.setattr(session, "ForkServer", WarmServer)
    words = st.builds("{}={}".format, st.sampled_from(KEYS), texts)

    @example(EXAMPLES["train"])
    @given(st.lists(words, min_size=1, max_size=2), st.booleans())
    def one(given: list[str], several: bool) -> None:
        given = [word.replace("\0", "") for word in given]  # no command line can hold one
        line = ["app.py", *(["-m"] if several else []), "task.seconds=0", *given]

        def command() -> int:
            sys.argv = line
            return ended(lambda _: session.command(job, target=target, modules=modules, conf=CONF))

        examples.add(Example(line, lambda _: None, command))

    one()
    examples.finish()


def copied(run: Trained, draw: Callable[[st.SearchStrategy], Any], notes: list) -> Callable[[Path], None]:
    """Makes a copy of a run's folder in which one of its files of JSON says something else, and of its cache."""
    name = draw(st.sampled_from(["result.json", "adapter/sousa.json", "adapter/adapter_config.json"]))
    content = changed(json.loads((run.folder / name).read_text()), draw, notes)
    notes.append(name)

    def prepare(here: Path) -> None:
        shutil.copytree(run.folder, here / "run", ignore=shutil.ignore_patterns("checkpoints"))
        shutil.copytree(run.home / "cache", here / "cache", copy_function=os.link)
        write(here / "run" / name, content)
        os.environ["SOUSA_BENCH_CACHE"] = str(here / "cache")

    return prepare


def test_runs_evaluated(examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained()
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(run.home / "cache"))
    # no data.cache_dir: where this machine's caches are is the user's own choice
    other = st.builds("data.{}={}".format, st.sampled_from(["name", "root", "hub_id", "filters", "table"]), texts)
    fast = ("--no-images", "--threads", "1", "--output-dir")
    assert ended(evaluate, str(run.folder), *fast, str(tmp_path / "warm")) == 0
    gc.freeze()

    @example(EXAMPLES["evaluate"])
    @given(st.data())
    def one(data: st.DataObject) -> None:
        notes: list = []
        prepare = copied(run, data.draw, notes)
        words = [word.replace("\0", "") for word in data.draw(st.lists(other, max_size=1))]
        notes.append(words)
        examples.add(Example(notes, prepare, lambda: ended(evaluate, "run", *words, *fast, "out")))

    one()
    examples.finish()


def test_runs_exported(examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the graph, whose making takes seconds and reads nothing of a file."""
    run = trained()
    monkeypatch.setattr(package, "waveform_graph", lambda *_: SimpleNamespace())
    monkeypatch.setattr(onnx, "save", lambda _, place: Path(place).write_bytes(b""))
    monkeypatch.setattr(package, "check", lambda *_: {"runtime": "none", "seconds": [], "onnx_error": 0.0})
    assert ended(export, str(run.folder), str(tmp_path / "warm")) == 0
    gc.freeze()

    @example(EXAMPLES["export"])
    @given(st.data())
    def one(data: st.DataObject) -> None:
        notes: list = []
        prepare = copied(run, data.draw, notes)
        examples.add(Example(notes, prepare, lambda: ended(export, "run", "package")))

    one()
    examples.finish()


FAULTS: dict[str, Callable[[], int]] = {
    "written outside": lambda: Path("../x").write_text("x"),
    "HangError: 1 s of computing": lambda: sum(len(str(number)) for number in itertools.count()),
    "HangError: 6 s of waiting": lambda: time.sleep(600) or 0,
    "ValueError: x": lambda: int("x"),
    "exit code 3": lambda: 3,
    "status 9 ": lambda: os.kill(os.getpid(), signal.SIGKILL) or 0,
    "Traceback (most": lambda: print("Traceback (most recent call last):") or 0,
    "x1b[2J": lambda: print("\x1b[2J") or 0,
}


@pytest.mark.parametrize("said", FAULTS)
def test_the_examples_can_fail(said: str, examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.guard.SECONDS", 1)
    examples.add(Example("good", lambda here: (here / "x").touch(), lambda: 0))
    examples.add(Example("bad", lambda _: None, FAULTS[said]))
    with pytest.raises(AssertionError, match=f"(?s)1 of 2 examples: 'bad'.*{re.escape(said)}"):
        examples.finish()


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
