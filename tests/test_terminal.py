"""Names that are odd: no terminal escapes are printed of them, and none ends a command with a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sousa_bench.analyze import main as analyze
from sousa_bench.predict.__main__ import main as predict
from sousa_bench.promote.__main__ import main as promote
from sousa_bench.status import main as status
from sousa_bench.status import show
from tests.analysis.synthetic import result, write_result

EVIL = "a\x1b[2J\x9bb"


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / EVIL, result({}, status="failed") | {"error": f"it broke {EVIL}"})
    assert show(tmp_path) == 0
    said = capsys.readouterr().out
    assert "it broke a [2J b" in said
    assert not {"\x1b", "\x9b"} & set(said)


def test_predict(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(["nowhere", EVIL]) == 1
    said = capsys.readouterr().err
    assert "error: a [2J b is " in said
    assert not {"\x1b", "\x9b"} & set(said)


@pytest.mark.parametrize("main", [analyze, status, lambda words: promote([*words, "--print"])])
def test_a_path_that_is_too_long_is_one_message(
    main: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["x" * 300]) in (1, 2)
    said = capsys.readouterr()
    assert (said.out + said.err).count("\n") == 1
