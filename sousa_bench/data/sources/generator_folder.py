"""The generator's own folder: `labels/samples.parquet`, `splits.json` and a FLAC file a clip."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from sousa_bench.data import SPLITS
from sousa_bench.data.sources.source import LABEL_COLUMNS, FolderSource, is_file, need_columns, texts
from sousa_bench.errors import DataError


class GeneratorFolder(FolderSource):
    """SOUSA as its generator writes it. Its identity is that of the labels: splits choose among clips only.

    Args:
        root: The folder that holds `labels/` and `splits.json`.
    """

    layout = "generator folder"
    labels = "labels/samples.parquet"

    def read(self) -> pd.DataFrame:
        """See `Source.read`.

        Raises:
            DataError: A file is unreadable, or a needed column missing.
        """
        path = self.root / self.labels
        wanted = (*LABEL_COLUMNS, "aug_soundfont", "audio_path")
        try:
            present = pq.read_schema(path).names
            frame = pq.read_table(path, columns=[name for name in wanted if name in present]).to_pandas()
        except (OSError, ValueError) as error:  # pyarrow's errors are among these
            raise DataError(f"{path} can't be read as Parquet ({error}): copy it again.") from error
        need_columns(present, ("profile_id", "audio_path"), path)
        frame["player"] = texts(frame, "profile_id")
        split_of = self._splits()
        return frame.assign(split=[split_of.get(player, "") for player in frame["player"]])

    def _splits(self) -> dict[str, str]:
        """The split of each player, as far as `splits.json` tells it."""
        path = self.root / "splits.json"
        if not is_file(path):
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
            members = {split: [str(p) for p in content.get(f"{split}_profile_ids", [])] for split in SPLITS}
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise DataError(f"{path} can't be read ({error}): copy it again, or use data.resplit=true.") from error
        split_of: dict[str, str] = {}
        for split, names in members.items():
            for name in names:
                if split_of.setdefault(name, split) != split:
                    raise DataError(
                        f"{path} puts player {name} into both {split_of[name]} and {split}. "
                        "data.resplit=true makes new splits by player."
                    )
        return split_of
