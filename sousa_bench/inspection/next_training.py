"""The command of the training that comes after an inspection."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

TRAIN = ("python", "-m", "sousa_bench.train")
SWEEP = ("-m", "experiment=comparison", "seed=1,2,3")
ON_OTHER_SOUNDS = ("-m", "model=efficientat", "weights=official", "model.variant=mn04", "peft=lora,full", "seed=1,2,3")
"""Of other sounds than SOUSA's the package's own weights know little (docs/your_data.md#where-to-start)."""


def next_training(
    overrides: Sequence[str], config_folder: Path | None, fold: str | None, folds: int, sousa: bool
) -> str:
    """The training that comes next, to be copied; three seeds, since one tells of trained models alone.

    Args:
        overrides: Of the data.
        config_folder: Another folder with a ``data`` group.
        fold: The fold that was asked for; all of them stand in its place, since only they test every group.
        folds: The number of folds that are all to be run, where none was asked for: as many as the data come in, or
            what it takes to test groups enough; 0: none.
        sousa: Whether the classes are SOUSA's rudiments.
    """
    where = [] if config_folder is None else ["--config-dir", str(config_folder)]
    if fold is not None:
        every = every_fold(int(fold.rpartition("/")[2]))
        overrides = [every if word.startswith("data.fold=") else word for word in overrides]
    elif folds:
        overrides = [*(word for word in overrides if word != "data.resplit=true"), every_fold(folds)]
    return " ".join(map(_for_shell, [*TRAIN, *where, *(SWEEP if sousa else ON_OTHER_SOUNDS), *overrides]))


def every_fold(folds: int) -> str:
    """The override that runs each of some folds."""
    return f"data.fold={','.join(f'{number}/{folds}' for number in range(1, folds + 1))}"


def _for_shell(word: str) -> str:
    """A word as a shell reads it; one with Hydra's quotes in double ones, where nothing in it has a meaning there."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
