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


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("-model=ast", "-model=ast: write model=ast, without dashes"),
        ("--model=ast", "--model=ast: write model=ast, without dashes"),
        ("--trainer.max_epochs=1", "--trainer.max_epochs=1: write trainer.max_epochs=1, without dashes"),
        ("--model", "--model: there is no such flag; write key=value to change the config"),
    ],
)
def test_an_override_with_dashes_is_told_how_to_be_written(word, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        in_order(["-m", word])
    assert capsys.readouterr().err == f"Error: {message}\n"


def test_flags_of_hydra_are_no_overrides():
    words = ["--config-dir=mine", "-cd=mine", "--cfg=job", "--config-d", "mine", "-sc", "query=bash", "--version"]
    assert in_order(words) == words
    assert in_order(["peft.lora_alpha=-1", "~logger"]) == ["peft.lora_alpha=-1", "~logger"]
