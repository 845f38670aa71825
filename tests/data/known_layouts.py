"""Clips written as the makers of known data sets hand theirs out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

SPLITS = {"train": "train", "val": "validation", "test": "test"}


def made_up(folder: Path, classes: int = 3, speakers: int = 4, takes: int = 5) -> pd.DataFrame:
    """Clips of 0.12 s of noise, no two alike: `path`, `label`, `speaker`, `take`, `split` (by speaker)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(classes * speakers * takes):
        path = folder / f"{number}.wav"
        sf.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 960), 8_000)
        label, speaker, take = number % classes, number // classes % speakers, number // (classes * speakers)
        rows.append(
            {"path": path, "label": "cab"[label % 3] + "x" * (label // 3), "speaker": f"s{speaker}", "take": take}
        )
    return with_splits(pd.DataFrame(rows))


def with_splits(clips: pd.DataFrame) -> pd.DataFrame:
    """The last speaker tests, the one before validates."""
    speakers = sorted(set(clips["speaker"]))
    split = dict.fromkeys(speakers, "train") | {speakers[-2]: "val", speakers[-1]: "test"}
    return clips.assign(split=clips["speaker"].map(split))


def put(clip: Path, root: Path, where: str) -> None:
    (root / where).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, root / where)


def _numbers(values: pd.Series) -> pd.Series:
    """A number for each value, in another order than the alphabet's."""
    return values.map({value: number for number, value in enumerate(sorted(set(values), reverse=True))})


def _recordings(clips: pd.DataFrame) -> pd.Series:
    """A recording for each speaker and take."""
    return 100_000 + clips.groupby(["speaker", "take"]).ngroup()


def write_esc50(root: Path, clips: pd.DataFrame) -> pd.DataFrame:
    source = _recordings(clips)
    table = pd.DataFrame({"fold": (source % 5 + 1), "target": _numbers(clips["label"]), "category": clips["label"]})
    table.insert(
        0, "filename", [f"{f}-{s}-A-{t}.wav" for f, s, t in zip(table["fold"], source, table["target"], strict=True)]
    )
    table = table.assign(esc10="False", src_file=source, take="A")
    for clip, name in zip(clips["path"], table["filename"], strict=True):
        put(clip, root, f"audio/{name}")
    (root / "meta").mkdir()
    table.to_csv(root / "meta" / "esc50.csv", index=False)
    return table


def write_urbansound8k(root: Path, clips: pd.DataFrame) -> pd.DataFrame:
    source, number = _recordings(clips), _numbers(clips["label"])
    table = pd.DataFrame(
        {"slice_file_name": [f"{s}-{n}-0-0.wav" for s, n in zip(source, number, strict=True)], "fsID": source}
    )
    table = table.assign(
        start=58.5, end=62.5, salience=1, fold=source % 10 + 1, classID=number, **{"class": clips["label"]}
    )
    for clip, name, fold in zip(clips["path"], table["slice_file_name"], table["fold"], strict=True):
        put(clip, root, f"audio/fold{fold}/{name}")
    (root / "metadata").mkdir()
    table.to_csv(root / "metadata" / "UrbanSound8K.csv", index=False)
    return table


def write_speech_commands(root: Path, clips: pd.DataFrame) -> list[str]:
    names = [f"{c.label}/{c.speaker}_nohash_{c.take}.wav" for c in clips.itertuples()]
    for clip, name in zip(clips["path"], names, strict=True):
        put(clip, root, name)
    put(clips["path"].iloc[0], root, "_background_noise_/white_noise.wav")
    (root / "README.md").write_text("Words.\n")
    for split, file in (("val", "validation_list.txt"), ("test", "testing_list.txt")):
        listed = [name for name, its in zip(names, clips["split"], strict=True) if its == split]
        (root / file).write_text("".join(f"{name}\n" for name in listed))
    return names


def write_fsd50k(root: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """`label` may hold several labels with commas between them."""
    part = clips["split"].map({"train": "dev", "val": "dev", "test": "eval"})
    table = pd.DataFrame({"fname": range(64_760, 64_760 + len(clips)), "labels": clips["label"], "mids": "/m/0"})
    for clip, its, name in zip(clips["path"], part, table["fname"], strict=True):
        put(clip, root, f"FSD50K.{its}_audio/{name}.wav")
    truth = root / "FSD50K.ground_truth"
    truth.mkdir()
    table.assign(split=clips["split"])[part == "dev"].to_csv(truth / "dev.csv", index=False)
    table[part == "eval"].to_csv(truth / "eval.csv", index=False)
    known = sorted({label for labels in clips["label"] for label in labels.split(",")}, reverse=True)
    (truth / "vocabulary.csv").write_text("".join(f"{i},{label},/m/0{i}\n" for i, label in enumerate(known)))
    (root / "FSD50K.metadata").mkdir()
    for its in ("dev", "eval"):
        info = {
            str(name): {"title": "x", "uploader": speaker}
            for name, speaker, where in zip(table["fname"], clips["speaker"], part, strict=True)
            if where == its
        }
        (root / "FSD50K.metadata" / f"{its}_clips_info_FSD50K.json").write_text(json.dumps(info))
    return table


def write_ast_json(root: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """`label` may hold several labels with commas between them. The paths of `val` are absolute, as AST writes them."""
    known = sorted({label for labels in clips["label"] for label in labels.split(",")}, reverse=True)
    mids = {label: f"/m/0{i}" for i, label in enumerate(known)}
    (root / "datafiles").mkdir(parents=True)
    rows = "".join(f'{i},{mids[label]},"{label}"\n' for i, label in enumerate(known))
    (root / "class_labels_indices.csv").write_text(f"index,mid,display_name\n{rows}")
    labels = [",".join(mids[label] for label in labels.split(",")) for labels in clips["label"]]
    names = [f"audio/{c.speaker}_{c.take}_{c.label.replace(',', '+')}.wav" for c in clips.itertuples()]
    for clip, name in zip(clips["path"], names, strict=True):
        put(clip, root, name)
    for split, file in (("train", "train_data.json"), ("val", "valid_data.json"), ("test", "eval_data.json")):
        content = [
            {"video_id": "x", "wav": str(root / name) if split == "val" else name, "labels": its}
            for name, its, where in zip(names, labels, clips["split"], strict=True)
            if where == split
        ]
        (root / "datafiles" / file).write_text(json.dumps({"data": content}))
    return pd.DataFrame({"file_name": names, "labels": labels})


def write_labelled_hub(root: Path, clips: pd.DataFrame, shards: int = 2) -> list[str]:
    """`label` is a `ClassLabel`, or a list of these where there are labels with commas between them."""
    known = sorted({label for labels in clips["label"] for label in labels.split(",")}, reverse=True)
    several = any("," in label for label in clips["label"])
    feature: dict[str, object] = {"names": known, "_type": "ClassLabel"}
    column = "labels" if several else "label"
    features = {
        "audio": {"_type": "Audio"},
        column: {"feature": feature, "_type": "Sequence"} if several else feature,
        "speaker_id": {"dtype": "string", "_type": "Value"},
    }
    numbers = [[known.index(label) for label in labels.split(",")] for labels in clips["label"]]
    (root / "data").mkdir(parents=True)
    for split, name in SPLITS.items():
        piece = np.array_split(np.flatnonzero(clips["split"] == split), shards)
        for shard, positions in enumerate(piece):
            some = clips.iloc[positions]
            content = pa.table(
                {
                    "audio": [
                        {"bytes": path.read_bytes(), "path": f"{speaker}_{take}_{label}.wav"}
                        for path, speaker, take, label in zip(
                            some["path"], some["speaker"], some["take"], some["label"], strict=True
                        )
                    ],
                    column: [numbers[i] if several else numbers[i][0] for i in positions],
                    "speaker_id": some["speaker"].tolist(),
                }
            )
            content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            pq.write_table(content, root / "data" / f"{name}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=7)
    return known


WRITERS: dict[str, Callable[[Path, pd.DataFrame], object]] = {
    "ESC-50": write_esc50,
    "UrbanSound8K": write_urbansound8k,
    "Speech Commands": write_speech_commands,
    "FSD50K": write_fsd50k,
    "AudioSet JSON": write_ast_json,
    "hub Parquet": write_labelled_hub,
}
