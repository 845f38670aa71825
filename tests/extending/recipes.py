"""The recipes of docs/extending.md, as files in a folder outside the repository, and the real command line there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.trained import ROOT, SMALL


def write(section: str, folder: Path) -> None:
    """Write each code block of a section that begins with a comment that names its file."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    [body] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
    assert blocks, f"the section {section!r} shows no file"
    for name, content in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``python -m sousa_bench.train --config-dir my_conf WORDS`` in the folder, on a few clips."""
    given = {"trainer.precision", *(word.split("=")[0] for word in words)}
    if "data" in given:  # the number of synthetic clips says nothing then
        given |= {"data.synthetic.clips", "data.synthetic.split_players"}
    few = ["trainer.precision=32-true", *(word for word in SMALL if word.split("=")[0] not in given)]
    return subprocess.run(
        [sys.executable, "-m", "sousa_bench.train", "--config-dir", "my_conf", *words, *few],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "SOUSA_BENCH_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
