"""Real recordings, the spoken digits, in each layout that a folder may have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from known_layouts import WRITERS, put, with_splits

from sousa_bench.data import SPLITS, SousaData


@pytest.fixture(scope="session")
def digits() -> pd.DataFrame:
    """Two takes of each digit by each of six speakers; in the folder SPOKEN_DIGITS, else beside the project."""
    beside = Path(__file__).parents[3] / "shared" / "spoken_digits"
    root = Path(os.environ.get("SPOKEN_DIGITS", beside))
    if not (root / "takes.csv").is_file():
        pytest.skip(f"no spoken digits in {root} (SPOKEN_DIGITS)")
    table = pd.read_csv(root / "takes.csv")
    few = table[table["take"] < 2].reset_index(drop=True)
    return with_splits(few.assign(path=[root / name for name in few["file_name"]]))


def write_class_folders(root: Path, clips: pd.DataFrame) -> None:
    for clip in clips.itertuples():
        put(clip.path, root, f"{clip.split}/{clip.label}/{clip.speaker}_{clip.take}.wav")


def write_table(root: Path, clips: pd.DataFrame) -> None:
    names = [f"{number}.wav" for number in range(len(clips))]
    for clip, name in zip(clips["path"], names, strict=True):
        put(clip, root, name)
    clips.drop(columns="path").assign(file_name=names).to_csv(root / "metadata.csv", index=False)


LAYOUTS: dict[str, Callable[[Path, pd.DataFrame], object]] = {
    "class folders": write_class_folders,
    "table": write_table,
    **WRITERS,
}


def heard(made: SousaData) -> set[tuple[bytes, tuple[str, ...]]]:
    """Each clip's sound, and what it is called."""
    found = set()
    for split in SPLITS:
        sounds = made.waveforms(split, 8_000)
        for row, label in enumerate(made.rows(split)["label"]):
            numbers = label if made.task.several else (label,)
            names = (made.task.display(made.task.classes[number]) for number in numbers)
            found.add((sounds.read(row).tobytes(), tuple(names)))
    return found


def test_every_layout_holds_the_same_clips_and_classes(digits: pd.DataFrame, tmp_path: Path) -> None:
    first = None
    for layout, write in LAYOUTS.items():
        root = tmp_path / layout.replace(" ", "_")
        root.mkdir()
        write(root, digits)
        made = SousaData(name="folder", root=str(root))
        made.prepare([8_000])
        assert made.describe()["source"] == layout
        assert {made.task.display(name) for name in made.task.classes} == set(digits["label"]), layout
        assert made.task.several is (layout == "FSD50K")
        first = first or heard(made)
        assert len(first) == len(digits)
        assert heard(made) == first, layout
