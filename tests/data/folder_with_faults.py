"""A small folder of sounds of two classes, sound or with each fault that an inspection finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

RATE = 16_000
CLASSES = ("flam_tap", "single_drag_tap")


def tone(number: int, seconds: float = 0.3, level: float = 0.4) -> np.ndarray:
    """(samples,) of a tone in noise that no other number makes."""
    noise = np.random.default_rng(number).normal(0, 0.05, round(RATE * seconds))
    return level * np.sin(np.arange(len(noise)) * (0.05 + 0.01 * number)) + noise


def write_sound_folder(root: Path) -> pd.DataFrame:
    """Three players, one a split, two clips a class each; `metadata.csv` tells."""
    rows = []
    for number in range(12):
        split, klass = ("train", "val", "test")[number // 4], CLASSES[number % 2]
        name = f"{split}_{klass}_{number}.wav"
        sf.write(_made(root / name), tone(number), RATE)
        rows.append((f"s{number:02d}", klass, split, name, f"player {split}"))
    table = pd.DataFrame(rows, columns=["sample_id", "rudiment_slug", "split", "audio_path", "player"])
    table.to_csv(root / "metadata.csv", index=False)
    return table


def write_faults(root: Path) -> None:
    """The same with a clip of each fault; the files' names say which."""
    table = write_sound_folder(root)
    sf.write(root / "silent.wav", np.zeros(RATE), RATE)
    sf.write(root / "clipped.wav", np.clip(tone(20, level=3), -1, 1), RATE)
    (root / "empty.wav").write_bytes(b"")
    (root / "unreadable.wav").write_text("no sound at all, though the name says so")
    sf.write(root / "short.wav", tone(21, seconds=0.05), RATE)
    sf.write(root / "copy.flac", sf.read(root / table["audio_path"][0])[0], RATE)
    faults = ["silent.wav", "clipped.wav", "empty.wav", "unreadable.wav", "short.wav"]
    rows = [(name, CLASSES[0], "train", name, "player train") for name in faults]
    rows += [("copy", CLASSES[1], "test", "copy.flac", "player test")]
    more = pd.DataFrame(rows, columns=table.columns)
    pd.concat([table, more]).to_csv(root / "metadata.csv", index=False)


def write_class_folders(root: Path, classes: tuple[str, ...], sites: int = 9) -> None:
    """`class/site_number.wav`: one clip of each class from each site."""
    for number in range(sites * len(classes)):
        klass, site = classes[number % len(classes)], number // len(classes)
        sf.write(_made(root / klass / f"site{site}_{number}.wav"), tone(number), RATE)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
