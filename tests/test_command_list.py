"""The list of commands is complete; each has a console script and the version; the shell completes training's words."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sousa_bench import __version__
from sousa_bench.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_each_command_has_a_line_and_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    package = ROOT / "sousa_bench"
    modules = {path.parent.relative_to(package).as_posix().replace("/", ".") for path in package.rglob("__main__.py")}
    assert set(COMMANDS) == (modules - {"."}) | {"train", "analyze", "status"}
    assert set(SCRIPTS) == {"sousa-bench"} | {f"sousa-bench-{name.replace('.', '-')}" for name in COMMANDS}
    for name, what in COMMANDS.items():
        assert f"python -m sousa_bench.{name} " in said
        assert what in said
        module, _, function = SCRIPTS[f"sousa-bench-{name.replace('.', '-')}"].partition(":")
        assert module.removesuffix(".__main__") == f"sousa_bench.{name}"
        assert function == "main"


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_command_says_our_version(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, function = SCRIPTS[script].partition(":")
    monkeypatch.setattr(sys, "argv", [script, "--version"])
    with pytest.raises(SystemExit) as end:
        sys.exit(getattr(importlib.import_module(module), function)())
    assert end.value.code == 0
    assert capsys.readouterr().out == f"sousa_bench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "-m", "model=ast"], "write python -m sousa_bench.train, with a dot"),
        (["train", "--help"], "write python -m sousa_bench.train, with a dot"),
        (["tune"], "there is no command tune: train, status, analyze, "),
    ],
)
def test_a_command_without_its_dot_is_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_bash_completes_a_models_name(tmp_path: Path) -> None:
    script = tmp_path / "sousa-bench-train"  # as pip writes it
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom sousa_bench.train import main\nsys.exit(main())\n")
    script.chmod(0o755)
    lines = """
        eval "$(sousa-bench-train -sc install=bash)"
        COMP_LINE="sousa-bench-train -m model=ef" COMP_POINT=29 COMP_CWORD=2
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", lines],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["model=efficientat"], done.stderr
