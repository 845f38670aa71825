"""The generator's own folder: `labels/samples.parquet`, `splits.json` and a FLAC file a clip."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from sousa_bench.data.sources.source import SPLITS, FolderSource, file_digest, standard_table
from sousa_bench.errors import DataError

LABELS = Path("labels") / "samples.parquet"
_WANTED = (
    "sample_id",
    "profile_id",
    "rudiment_slug",
    "tempo_bpm",
    "skill_tier",
    "soundfont",
    "aug_soundfont",
    "augmentation_preset",
    "audio_path",
    "duration_sec",
)


class GeneratorFolder(FolderSource):
    """SOUSA as its generator writes it.

    Args:
        root: The folder that holds `labels/` and `splits.json`.
    """

    layout = "generator folder"

    @staticmethod
    def fits(root: Path) -> bool:
        """Whether `root` is in this layout."""
        return (root / LABELS).is_file()

    @cached_property
    def identity(self) -> str:
        """Hash of the labels; the splits choose among clips and don't change them."""
        return file_digest(self.root / LABELS)

    def table(self) -> pd.DataFrame:
        """See `Source.table`.

        Raises:
            DataError: A file is unreadable, or a needed column missing.
        """
        labels = self.root / LABELS
        try:
            present = pq.read_schema(labels).names
            frame = pq.read_table(labels, columns=[name for name in _WANTED if name in present]).to_pandas()
        except (OSError, ValueError) as error:  # pyarrow's errors are among these
            raise DataError(f"{labels} can't be read as Parquet ({error}): copy it again.") from error
        for needed in ("profile_id", "audio_path"):
            if needed not in present:
                raise DataError(f"{labels} has no column {needed!r}; it has: {', '.join(present)}.")
        players = [str(value) for value in frame["profile_id"].tolist()]
        return standard_table(
            frame, str(LABELS), player=players, split=self._splits(players), where=frame["audio_path"].tolist()
        )

    def _splits(self, players: list[str]) -> list[str]:
        path = self.root / "splits.json"
        if not path.is_file():
            return [""] * len(players)
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            members = {split: [str(p) for p in content.get(f"{split}_profile_ids", [])] for split in SPLITS}
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{path} can't be read ({error}): copy it again, or use data.resplit=true.") from error
        of_player: dict[str, str] = {}
        for split, names in members.items():
            for name in names:
                if of_player.setdefault(name, split) != split:
                    raise DataError(
                        f"{path} puts player {name} into both {of_player[name]} and {split}. "
                        "data.resplit=true makes new splits by player."
                    )
        return [of_player.get(player, "") for player in players]
