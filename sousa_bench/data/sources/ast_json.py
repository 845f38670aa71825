"""AudioSet, and whatever else is listed in the JSON files of AST's recipes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from sousa_bench.data.sources.labelled_folder import LabelledFolder
from sousa_bench.data.sources.official_tables import by_number, read_columns, read_json
from sousa_bench.data.sources.source import is_file, is_split, split_name
from sousa_bench.errors import DataError


class AstJson(LabelledFolder):
    """A JSON file a split, `{"data": [{"wav": "a.wav", "labels": "/m/09x0r,/m/04rlf"}]}`, and the table of classes.

    A file's name says which split it is: `train_data.json`, `eval_data.json`. Where each clip has one label, the task
    has one label a clip.

    Source: https://github.com/YuanGongND/ast, `egs/audioset/data`.
    """

    layout = "AudioSet JSON"
    labels = "class_labels_indices.csv"

    @staticmethod
    def find_lists(root: Path) -> dict[Path, str]:
        """The JSON files whose name says a split, and the split."""
        found = {}
        for path in sorted([*root.glob("*.json"), *root.glob("datafiles/*.json")]):
            splits = {split_name(word, path.name) for word in re.findall("[a-z]+", path.stem.lower()) if is_split(word)}
            if len(splits) == 1:
                found[path] = splits.pop()
        return found

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `root` is in this layout."""
        return is_file(root / cls.labels) and bool(cls.find_lists(root))

    @cached_property
    def _lists(self) -> dict[Path, str]:
        return self.find_lists(self.root)

    @cached_property
    def _vocabulary(self) -> pd.DataFrame:
        return read_columns(self.root / self.labels, ("index", "mid", "display_name"))

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`."""
        frame = pd.concat([self._clips(path, split) for path, split in self._lists.items()], ignore_index=True)
        if (twice := frame["file_name"].duplicated()).any():
            name = frame["file_name"].iloc[int(twice.to_numpy().argmax())]
            lists = " and ".join(frame["list"][frame["file_name"] == name].head(2))
            raise DataError(f"{self.root}: {name} stands in {lists}, and a clip is of one split: take one list away.")
        self.taken = {"file_name": "wav", "labels": "labels", "split": "the JSON files' names"}
        if (frame["labels"].map(len) == 1).all():
            self.taken["label"] = self.taken.pop("labels")
            frame["label"] = frame["labels"].str[0]
        return frame[list(self.taken)]

    def _clips(self, path: Path, split: str) -> pd.DataFrame:
        content = read_json(path)
        clips = content.get("data") if isinstance(content, dict) else None
        if not isinstance(clips, list):
            raise DataError(f'{path} holds no {{"data": [{{"wav": …, "labels": …}}]}}.')
        for row, clip in enumerate(clips, 1):
            if not isinstance(clip, dict) or not all(isinstance(clip.get(key), str) for key in ("wav", "labels")):
                raise DataError(f'{path}, clip {row}: it has no "wav" and "labels", each a text.')
        return pd.DataFrame(
            {
                "file_name": [clip["wav"].removeprefix(f"{self.root}/") for clip in clips],
                "labels": [[mid for mid in clip["labels"].split(",") if mid] for clip in clips],
                "split": split,
                "list": path.name,
            }
        )

    def classes(self) -> Sequence[str]:
        """The mids in the order of their indices."""
        return by_number(self._vocabulary["index"], self._vocabulary["mid"], self.root / self.labels)

    def display_names(self) -> Mapping[str, str]:
        """The display names."""
        return dict(zip(self._vocabulary["mid"], self._vocabulary["display_name"], strict=True))
