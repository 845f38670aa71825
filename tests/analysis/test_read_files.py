"""Reading many results quickly gives what Python's own parser and plain lists of values give."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.analysis import collect
from sousa_bench.analysis.read import read_files
from sousa_bench.results.result import RESULT_FILE
from sousa_bench.results.scan import scan
from sousa_bench.system.foreign import read_json
from tests.analysis.synthetic import result

ODD = {
    "NaN and infinity": b'{"a": [NaN, Infinity, -Infinity, 1e400]}',
    "64 bits and more": b'{"a": [18446744073709551615,18446744073709551616, -9223372036854775809]}',
    "behind a tab": b'{"b":\t10000000000000000000000}',
    "at a line's start": b"[\r12345678901234567890123]",
    "too many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "long fractions": b'{"a": [0.00012345678901234567, 1234567890123456789012.5]}',
    "zeros and powers": b'{"a": [0.1, 1e22, 5e-324, -0.0, -0]}',
    "a long number alone": b"12345678901234567890123",
    "a list of one": b"[12345678901234567890123]",
    "half a character": b'{"a": "\\ud800"}',
    "a key twice": b'{"a": 1, "b": 2, "a": 3}',
    "a mark of bytes": b"\xef\xbb\xbf{}",
    "no UTF-8": b'{"a": "\xff"}',
    "ends of line": b'{"a": 1,\r\n"b": x}',
    "torn": b'{"a": [1, 2',
    "a comma too many": b'{"a": 1,}',
    "something behind": b"{} {}",
    "nothing": b"",
    "deep": b"[" * 800 + b"]" * 800,
    "too deep": b'{"a": ' + b"[" * 1010 + b"]" * 1010 + b"}",
    "endless": b"[" * 100_000,
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_file_is_read_as_by_pythons_own_parser(tmp_path: Path, content: bytes):
    file = tmp_path / "file.json"
    file.write_bytes(content)
    try:
        expected = repr(json.loads(file.read_text(encoding="utf-8")))
    except RecursionError:
        expected = "nested too deeply"
    except ValueError as error:
        expected = str(error)
    try:
        found = repr(read_json(file))
    except ValueError as error:
        found = str(error)
    assert found == expected


def test_columns_whose_kind_changes_hold_what_the_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = {
        "whole": [1, 2, 3, 4, 5, 6],
        "later": [None, None, None, 0.5, None, 1.5],
        "gone": [0.5, 1.5, 2.5, None, None, None],
        "both": [10**17, 2, 3, 0.5, None, 10**17],
        "text": [10**17, 2, 0.25, 10**17, "x", None],
        "torn": [0.1, float("nan"), 0.2, 0.3, float("inf"), 0.4],
    }
    for number in range(6):
        made = result({"seed": number}, extra={key: values[number] for key, values in said.items()})
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / RESULT_FILE).write_text(json.dumps(made))
    monkeypatch.setattr("sousa_bench.analysis.read.ROWS_AT_ONCE", 2)
    columns = read_files(scan([tmp_path]).files).filled()
    for key, values in said.items():
        finite = [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
        found = [None if value != value else value for value in columns[key]]
        assert [(type(value), value) for value in found] == [(type(value), value) for value in finite], key
    chunks = collect([tmp_path]).table
    monkeypatch.setattr("sousa_bench.analysis.read.ROWS_AT_ONCE", 200)
    pd.testing.assert_frame_equal(chunks, collect([tmp_path]).table)
    assert chunks["text"].tolist()[:5] == ["100000000000000000", "2", "0.25", "100000000000000000", "x"]
    assert chunks["both"].dtype == chunks["later"].dtype == "float64"
    assert chunks["whole"].dtype == "int64"
