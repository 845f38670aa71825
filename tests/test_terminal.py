"""Names of others hold no terminal escapes once they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousa_bench.predict.__main__ import main as predict
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
