"""The arguments of the training command."""

import pytest

from sousa_bench.train import in_order


def test_the_flag_may_stand_anywhere():
    assert in_order(["model=ast", "-m", "sweep=x"]) == ["-m", "model=ast", "sweep=x"]
    assert in_order(["model=ast"]) == ["model=ast"]


def test_one_config_is_shown_at_a_time(capsys):
    with pytest.raises(SystemExit, match="2"):
        in_order(["-m", "model=ast,htsat", "--cfg", "job"])
    assert "leave out -m" in capsys.readouterr().err
