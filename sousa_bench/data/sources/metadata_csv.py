"""The older layout: one `metadata.csv` beside the audio files."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from sousa_bench.data.sources.source import FolderSource, column, need_columns
from sousa_bench.errors import DataError

_PLAYER_COLUMNS = ("player", "player_id", "profile_id")
_TEXTS = (
    "sample_id",
    *_PLAYER_COLUMNS,
    "rudiment_slug",
    "split",
    "audio_path",
    "skill_tier",
    "soundfont",
    "aug_soundfont",
    "augmentation_preset",
)
_PLAYER_IN_ID = re.compile(r"^([a-z]{3}\d{2,})_")


class MetadataCsv(FolderSource):
    """SOUSA as older copies hold it.

    The player is read from `player`, `player_id` or `profile_id`; where none is there, from the beginning of the
    generator's sample ids (`beg003_flam_…`); where that doesn't hold either, each clip counts as a player of its own.

    Args:
        root: The folder that holds `metadata.csv`.
    """

    layout = "metadata.csv"
    labels = "metadata.csv"

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a `metadata.csv` is there that speaks of rudiments; any other is a table of another task."""
        if not super().fits(root):
            return False
        with (root / cls.labels).open("rb") as file:
            return b"rudiment_slug" in file.readline(1 << 16)

    def read(self) -> pd.DataFrame:
        """See `Source.read`.

        Raises:
            DataError: The file is unreadable, or a needed column missing.
        """
        path = self.root / self.labels
        try:
            if b"\0" in path.read_bytes():
                raise ValueError("it holds NUL bytes; save it as UTF-8")
            # A player may be called NA, null or None: only an empty cell is missing.
            frame = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False, na_values=[""])
        except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
            raise DataError(f"{path} can't be read as CSV ({error}).") from error
        need_columns(frame.columns, ("audio_path",), path)
        frame["audio_path"] = frame["audio_path"].str.replace("\\", "/", regex=False)
        others = frame.drop(columns=["shard", "row"], errors="ignore")  # the file's own, and of another meaning
        return others.assign(player=self._players(frame))

    def _players(self, frame: pd.DataFrame) -> list[str]:
        found = column(frame, *_PLAYER_COLUMNS)
        if found is not None and not found.isna().any():
            return [str(value) for value in found.tolist()]
        ids = [str(value) for value in frame.get("sample_id", pd.Series(dtype=str)).tolist()]
        matches = [_PLAYER_IN_ID.match(name) for name in ids]
        if all(matches):
            self.warnings.append(
                f"{self.labels} names no players: they are read from the beginning of sample_id ({ids[0]})"
            )
            return [match[1] for match in matches if match]
        self.warnings.append(
            f"{self.labels} names no players: each clip counts as a player of its own, so whether a player is in both "
            "train and test is not known, and figures by player are figures by clip"
        )
        return ids
