"""Clips to try on the page: those that the command names, or for SOUSA's rudiments some that are synthesised."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from sousa_bench.data.rudiments import TASK
from sousa_bench.data.saved_task import is_sousa
from sousa_bench.data.synthetic import SAMPLE_RATE
from sousa_bench.data.synthetic.generator import Generator
from sousa_bench.errors import UserError
from sousa_bench.task import Task

PLAYED = ("single_stroke_roll", "single_paradiddle", "flam_tap", "double_drag_tap")
"""The rudiments of the synthesised clips."""
SEED = 1_000_003
"""Of their drummer: no seed that anyone trains with, so that none of the clips was met in a training."""
CLIPS = 400
PAUSE_SECONDS = 8.0
"""Long enough for a window of five seconds, one of which starts every two and a half, to lie within."""


def example_clips(task: Task, given: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Name → file of each example, all of them inside a folder of the page.

    Args:
        task: The model's; without given files there are examples of SOUSA's rudiments alone.
        given: Files that the command names.
        folder: Where the page's files lie; it is made.

    Raises:
        UserError: A given file is missing or can't be read.
    """
    folder.mkdir(parents=True)
    if not given:
        return _synthesised(folder) if is_sousa(task) else {}
    made: dict[str, Path] = {}
    for number, file in enumerate(given):
        if not file.is_file():
            raise UserError(f"--examples {file}: there is no such file")
        target = folder / str(number) / file.name
        target.parent.mkdir()
        try:
            shutil.copyfile(file, target)
        except OSError as error:
            raise UserError(f"--examples {file}: can't be read: {error.strerror}") from error
        made[file.name if file.name not in made else str(file)] = target
    return made


def _synthesised(folder: Path) -> dict[str, Path]:
    """A test clip of each of some rudiments, and a recording that is made of the first three with pauses between."""
    drummer = Generator(clips=CLIPS, seed=SEED)
    test = {slug: index for index in range(CLIPS) for split, slug, _ in [drummer.place(index)] if split == "test"}
    played = {TASK.display(slug): drummer.clip(test[slug]).audio for slug in PLAYED}
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.int16)
    first, second, third, _ = played.values()
    made: dict[str, Path] = {}
    for name, audio in {**played, "Three in a row": np.concatenate([first, pause, second, pause, third])}.items():
        made[name] = folder / f"{name.lower().replace(' ', '_')}.wav"
        soundfile.write(made[name], audio, SAMPLE_RATE, subtype="PCM_16")
    return made
