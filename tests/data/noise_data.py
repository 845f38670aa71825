"""Small datasets of noise in each of SOUSA's layouts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

from sousa_bench.data import SousaData
from sousa_bench.data.rudiments import RUDIMENTS

TIERS = ("beginner", "intermediate", "advanced", "professional")
FONTS = ("FluidR3_GM", "Arachno")
PRESETS = ("gym", "garage", "clean_studio")


def noise(seconds: float = 0.12, rate: int = 44_100, channels: int = 2, seed: int = 0) -> np.ndarray:
    """(samples, channels) of noise that no other seed makes."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), channels))


def rows(players: int = 6, rudiments: int = 40, clips: int = 1) -> pd.DataFrame:
    """Labels in the generator's columns."""
    made = [
        {
            "sample_id": f"{TIERS[p % 4][:3]}{p:03d}_{slug}_{60 + 10 * (p % 13)}bpm_{c}",
            "profile_id": f"player-{p:03d}",
            "rudiment_slug": slug,
            "tempo_bpm": 60 + 10 * (p % 13),
            "skill_tier": TIERS[p % 4],
            "soundfont": FONTS[p % 2],
            "augmentation_preset": PRESETS[(p + i) % 3],
            "audio_path": f"audio/{slug}/{TIERS[p % 4][:3]}{p:03d}_{slug}_{c}.flac",
        }
        for p in range(players)
        for i, slug in enumerate(RUDIMENTS[:rudiments])
        for c in range(clips)
    ]
    return pd.DataFrame(made)


def write_audio(root: Path, table: pd.DataFrame) -> None:
    for i, where in enumerate(table["audio_path"]):
        path = root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, noise(seed=i), 44_100, subtype="PCM_24")


def write_labels(root: Path, table: pd.DataFrame, splits: dict[str, list[str]] | None = None) -> None:
    """`labels/` and `splits.json`: the last player tests, the one before validates."""
    players = sorted(set(table["profile_id"]))
    members = splits or {"train": players[:-2], "val": players[-2:-1], "test": players[-1:]}
    (root / "labels").mkdir(parents=True, exist_ok=True)
    table.to_parquet(root / "labels" / "samples.parquet")
    (root / "splits.json").write_text(json.dumps({f"{split}_profile_ids": names for split, names in members.items()}))


def write_hub(root: Path, table: pd.DataFrame, shards: int = 2, row_group: int = 7) -> None:
    """Shards of the hub's layout, audio bytes inside; players go to splits as in `write_labels`."""
    players = sorted(set(table["profile_id"]))
    split_of = dict.fromkeys(players, "train") | {players[-2]: "validation", players[-1]: "test"}
    (root / "audio").mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        part = table[[split_of[p] == split for p in table["profile_id"]]]
        pieces = np.array_split(np.arange(len(part)), shards)
        for number, piece in enumerate(pieces):
            some = part.iloc[piece]
            audio = []
            for where in some["audio_path"]:
                file = io.BytesIO()
                sf.write(file, noise(seed=list(table["audio_path"]).index(where)), 44_100, format="FLAC")
                audio.append({"bytes": file.getvalue(), "path": Path(where).name})
            frame = some.drop(columns="audio_path").reset_index(drop=True)
            content = pa.Table.from_pandas(frame, preserve_index=False).append_column("audio", pa.array(audio))
            name = f"{split}-{number:05d}-of-{shards:05d}.parquet"
            pq.write_table(content, root / "audio" / name, row_group_size=row_group)


def data(root: Path | None, **more: Any) -> SousaData:
    more = {"name": "tiny", "clips": {"train": 800, "val": 100, "test": 100}} | more
    return SousaData(root=None if root is None else str(root), **more)
