"""Data sets that many people have on their disk, each in the layout in which its makers hand it out."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from sousa_bench.data.sources.labelled_folder import LabelledFolder
from sousa_bench.data.sources.official_tables import by_number, check_folds, read_columns, read_json, read_text
from sousa_bench.data.sources.source import is_file
from sousa_bench.errors import DataError


class _FoldTable(LabelledFolder):
    """A table that names a file, a class by name and number, a fold and a recording.

    Attributes:
        folds: How many folds there are.
        columns: The table's names for file, fold, recording, class and the class's number.
    """

    folds: int
    columns: Mapping[str, str]

    @cached_property
    def _rows(self) -> pd.DataFrame:
        path = self.root / self.labels
        rows = read_columns(path, list(self.columns.values())).set_axis(list(self.columns), axis="columns")
        check_folds(rows["fold"], self.folds, path)
        return rows

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`."""
        self.taken = {key: self.columns[key] for key in ("file_name", "label", "fold", "group")}
        return self._rows[list(self.taken)].assign(file_name=self.files())

    def files(self) -> pd.Series:
        """(clips,) where each file lies below the folder."""
        return "audio/" + self._rows["file_name"]

    def classes(self) -> Sequence[str]:
        """In the order of their numbers."""
        return by_number(self._rows["number"], self._rows["label"], self.root / self.labels)


class Esc50(_FoldTable):
    """ESC-50: five folds, each of which holds all that was cut from a recording.

    Source: https://github.com/karolpiczak/ESC-50, `meta/esc50.csv`.
    """

    layout = "ESC-50"
    labels = "meta/esc50.csv"
    folds = 5
    columns = MappingProxyType(
        {"file_name": "filename", "fold": "fold", "group": "src_file", "label": "category", "number": "target"}
    )


class UrbanSound8K(_FoldTable):
    """UrbanSound8K: ten folds. `start` and `end` tell where in its recording a file was cut out; they cut nothing here.

    Source: https://urbansounddataset.weebly.com/urbansound8k.html.
    """

    layout = "UrbanSound8K"
    labels = "metadata/UrbanSound8K.csv"
    folds = 10
    columns = MappingProxyType(
        {"file_name": "slice_file_name", "fold": "fold", "group": "fsID", "label": "class", "number": "classID"}
    )

    def files(self) -> pd.Series:
        """See `_FoldTable.files`; a folder a fold."""
        return "audio/fold" + self._rows["fold"] + "/" + self._rows["file_name"]


class SpeechCommands(LabelledFolder):
    """Speech Commands: a folder a word, and two lists of the files that validate and test; all others train.

    A file's name begins with its speaker, before `_nohash_`. A folder with `_` in front, such as
    `_background_noise_`, holds no word.

    Source: https://arxiv.org/abs/1804.03209.
    """

    layout = "Speech Commands"
    labels = "testing_list.txt"
    _LISTS = MappingProxyType({"validation_list.txt": "val", "testing_list.txt": "test"})

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `root` is in this layout: whether both lists are there."""
        return all(is_file(root / name) for name in cls._LISTS)

    @cached_property
    def _splits(self) -> dict[str, str]:
        """The split of each file, the files in order."""
        words = [entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] not in "._"]
        files = [f"{word}/{entry.name}" for word in words for entry in os.scandir(self.root / word)]
        found = dict.fromkeys((file for file in files if file.endswith(".wav")), "train")
        for name, split in self._LISTS.items():
            for file in filter(None, map(str.strip, read_text(self.root / name).splitlines())):
                if found.get(file, "train") != "train":
                    raise DataError(f"{self.root}: {file} stands in both {' and '.join(self._LISTS)}; delete one.")
                found[file] = split
        return dict(sorted(found.items()))

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`."""
        self.taken = {
            "file_name": "the files",
            "label": "the folder",
            "split": " and ".join(self._LISTS),
            "group": "speaker",
        }
        files = pd.Series(self._splits.keys(), dtype=object)
        parts = files.str.extract(r"^([^_/][^/]*)/([^/]+?)_nohash_[^/]*\.wav$")
        if (odd := parts[0].isna()).any():
            raise DataError(
                f"{self.root}: {files[odd.argmax()]} is not called WORD/SPEAKER_nohash_NUMBER.wav, as a file of "
                "Speech Commands is. Take it out, or take away both lists: then these are class folders."
            )
        return pd.DataFrame(
            {"file_name": files, "label": parts[0], "split": list(self._splits.values()), "group": parts[1]}
        )


class Fsd50k(LabelledFolder):
    """FSD50K: any number of labels a clip; dev trains and validates, eval tests.

    The groups are the people who uploaded the clips, where `FSD50K.metadata/` is there and tells them.

    Source: https://zenodo.org/records/4060432, `FSD50K.doc/README.md`.
    """

    layout = "FSD50K"
    labels = "FSD50K.ground_truth"
    _VOCABULARY = f"{labels}/vocabulary.csv"  # lines of number, class, mid; no line of names

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `root` is in this layout: whether the vocabulary is there."""
        return is_file(root / cls._VOCABULARY)

    def read(self) -> pd.DataFrame:
        """See `LabelledFolder.read`."""
        self.taken = {"file_name": "fname", "labels": "labels", "split": "split, and eval.csv"}
        frame = pd.concat([self._part("dev"), self._part("eval")], ignore_index=True)
        if frame["group"].isna().any():
            return frame.drop(columns="group")
        self.taken["group"] = "uploader"
        return frame

    def _part(self, part: str) -> pd.DataFrame:
        columns = ("fname", "labels", *(("split",) if part == "dev" else ()))
        table = read_columns(self.root / self.labels / f"{part}.csv", columns)
        return pd.DataFrame(
            {
                "file_name": f"FSD50K.{part}_audio/" + table["fname"] + ".wav",
                "labels": table["labels"].str.split(","),
                "split": table["split"] if part == "dev" else "test",
                "group": self._uploaders(part, table["fname"]),
            }
        )

    def _uploaders(self, part: str, names: pd.Series) -> pd.Series | None:
        path = self.root / f"FSD50K.metadata/{part}_clips_info_FSD50K.json"
        if not is_file(path):
            return None
        try:
            uploader = {name: str(clip["uploader"]) for name, clip in read_json(path).items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{path} does not tell of each clip its uploader: download it again.") from error
        return names.map(uploader)

    def classes(self) -> Sequence[str]:
        """The vocabulary, in its order."""
        path = self.root / self._VOCABULARY
        lines = [line for line in csv.reader(read_text(path).splitlines()) if line]
        if any(len(line) < 2 for line in lines):
            raise DataError(f"{path}: a line that is not number, class, mid: unpack it anew.")
        return [line[1] for line in lines]
