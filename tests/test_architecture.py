"""The map in docs/architecture.md is the package: what stands there is, and what is stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "sousa_bench"
SHARED_NAMES = {"__init__.py", "__main__.py"}
TORCH_FREE = ("analysis", "results", "config", "search", "promote", "status", "analyze", "inspection")
IMPORT = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    room = importlib.import_module("sousa_bench." + name)
    for module in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(*sys.modules)
"""
HEAVY = {"torch", "pytorch_lightning", "transformers", "peft"}


def drawn() -> dict[Path, set[str]]:
    """Folder → names that the map gives it; folders end in a slash."""
    block = re.search(r"^## The rooms\n\n((?:(?:    .*)?\n)+)", PAGE.read_text(), re.MULTILINE)
    assert block, "no map under the heading `The rooms`"
    places: dict[Path, set[str]] = {ROOT: set()}
    path: list[tuple[int, Path]] = [(-1, ROOT)]
    for line in filter(None, block[1].splitlines()):
        indent = len(line) - len(line.lstrip())
        while path[-1][0] >= indent:
            path.pop()
        names = re.split(r" {2,}", line.strip())[0].split()
        places.setdefault(path[-1][1], set()).update(names)
        if names[-1].endswith("/"):
            path.append((indent, path[-1][1] / names[-1]))
    return places


def test_all_that_the_map_names_is_there() -> None:
    missing = [
        str((folder / name).relative_to(ROOT))
        for folder, names in drawn().items()
        for name in names
        if not ((folder / name).is_dir() if name.endswith("/") else (folder / name).is_file())
    ]
    assert not missing


def test_every_folder_of_the_package_stands_on_the_map() -> None:
    places = drawn()
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    unnamed = [str(f.relative_to(ROOT)) for f in folders if f"{f.name}/" not in places.get(f.parent, set())]
    assert not unnamed


def test_the_root_holds_the_modules_that_the_map_gives_it() -> None:
    named = {name for name in drawn()[PACKAGE] if name.endswith(".py")}
    assert {path.name for path in PACKAGE.glob("*.py")} == named | {"__init__.py"}


def test_no_two_files_share_a_name() -> None:
    counts = Counter(path.name for path in PACKAGE.rglob("*.py") if path.name not in SHARED_NAMES)
    assert not [name for name, count in counts.items() if count > 1]


def test_what_reads_results_loads_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT, *TORCH_FREE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_composing_a_sweep_loads_no_torch(tmp_path: Path) -> None:
    """The real command, up to the first run: ``resume=failed`` starts none where none has failed."""
    words = ["-m", "model=ast,beats", "peft=lora,ia3", "seed=1,2", "sweep=s", "resume=failed"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sousa_bench.train", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOUSA_BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert "Skipped 8/8" in done.stdout, done.stdout + done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported
    assert not HEAVY & imported
