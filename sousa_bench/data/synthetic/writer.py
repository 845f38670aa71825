"""Write a synthetic dataset as a folder in SOUSA's own layout: FLAC files, label tables, splits.

The worker processes of `write_dataset` run this module: `python -m sousa_bench.data.synthetic.writer ORDER`.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sousa_bench.data import SPLITS
from sousa_bench.data.synthetic import SAMPLE_RATE, SPLIT_PLAYERS
from sousa_bench.data.synthetic.drums import DRUMS
from sousa_bench.data.synthetic.generator import Clip, Generator
from sousa_bench.data.synthetic.rooms import ROOMS
from sousa_bench.errors import DataError
from sousa_bench.system.cores import usable_cores
from sousa_bench.system.files import replaced
from sousa_bench.system.python import python_environment

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 50
"""Clips per block: the unit that a worker takes, and that leaves one part of the label tables."""

FLAC_LEVEL = 0.5
"""libsndfile's compression level, 0 to 1: files a tenth smaller than at 0 in the same time."""

SAMPLE_TYPES = {
    "tempo_bpm": "int64",
    "duration_sec": "float64",
    "num_cycles": "int64",
    "num_strokes": "int64",
    "num_measures": "int64",
    "aug_room_wet_dry": "float64",
    "aug_mic_distance": "float64",
    "aug_compression_ratio": "float64",
    "aug_noise_level_db": "float64",
    "aug_bit_depth": "null",
    "aug_sample_rate": "null",
}
"""Types of the columns of SOUSA's `labels/samples.parquet` that hold no text."""

Progress = Callable[[int, int], None]


def write_dataset(
    folder: Path,
    clips: int,
    seed: int,
    *,
    domain: str = "target",
    split_players: tuple[int, int, int] = SPLIT_PLAYERS,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Write `clips` clips with their labels and splits to `folder`.

    `labels/samples.parquet` is written last and by rename: a folder that has one is complete, and an interrupted call
    is simply repeated. The content depends on neither `workers` nor the machine's load.

    Args:
        folder: Made if it doesn't exist.
        clips: Number of clips.
        seed: Seed of players and clips.
        domain: "target" or "source".
        split_players: Players of train, val and test.
        progress: Called with (clips done, clips in all) now and then, in this thread.
        workers: Processes; by default one a core, and none beside this one for few clips.

    Raises:
        DataError: An impossible request, or a worker that failed (with what it said).
    """
    generator = Generator(clips, seed, domain, split_players)
    if workers is not None and workers < 1:
        raise DataError(f"workers={workers}: at least 1 process writes the clips.")
    folder = Path(folder)
    labels = folder / "labels"
    parts = labels / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    (labels / "samples.parquet").unlink(missing_ok=True)
    blocks = -(-clips // BLOCK)
    count = min(workers or usable_cores(), blocks)
    report = progress or (lambda done, total: None)
    done = 0
    report(done, clips)
    here = count == 1
    for made in _write_blocks(generator, folder, range(blocks)) if here else _run_workers(generator, folder, count):
        done += made
        report(done, clips)
    _join(parts, "strokes", blocks, labels / "strokes.parquet")
    (folder / "splits.json").write_text(json.dumps(_splits(generator), indent=1) + "\n", encoding="utf-8")
    with replaced(labels / "samples.parquet") as draft:
        _join(parts, "samples", blocks, draft)
    shutil.rmtree(parts)


def _write_blocks(generator: Generator, folder: Path, blocks: Iterable[int]) -> Iterable[int]:
    """Write blocks of clips and their label parts; yields the number of clips in each when it is on disk."""
    import pyarrow.parquet as pq
    import soundfile

    parts = folder / "labels" / "parts"
    for block in blocks:
        numbers = range(block * BLOCK, min((block + 1) * BLOCK, generator.clips))
        clips = [generator.clip(number) for number in numbers]
        for clip in clips:
            path = folder / _audio_path(clip)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(
                path, clip.audio, SAMPLE_RATE, subtype="PCM_16", format="FLAC", compression_level=FLAC_LEVEL
            )
        pq.write_table(_samples_table(clips, generator.domain), parts / f"samples_{block:06d}.parquet")
        pq.write_table(_strokes_table(clips), parts / f"strokes_{block:06d}.parquet")
        yield len(clips)


def _run_workers(generator: Generator, folder: Path, count: int) -> Iterable[int]:
    """Share the blocks out among fresh interpreters, which import neither torch nor whatever this process holds.

    Yields:
        The number of clips in each block that a worker has written.
    """
    dataset = [generator.clips, generator.seed, generator.domain, generator.split_players]
    workers: list[subprocess.Popen[str]] = []
    reading, writing = os.pipe()
    try:
        with open(reading) as lines:  # noqa: PTH123 - a file descriptor
            try:
                for first in range(count):
                    command = [
                        sys.executable,
                        "-m",
                        __name__,
                        json.dumps([dataset, str(folder.resolve()), first, count]),
                    ]
                    workers.append(
                        subprocess.Popen(
                            command,
                            stdin=subprocess.PIPE,
                            stdout=writing,
                            stderr=subprocess.PIPE,
                            text=True,
                            env=python_environment(OMP_NUM_THREADS="1"),
                        )
                    )
            finally:
                os.close(writing)
            yield from map(int, lines)  # until the last worker has closed its end
        for worker in workers:
            said = worker.communicate()[1].strip()
            if worker.returncode != 0:
                last = said.splitlines()[-1] if said else f"exit code {worker.returncode}"
                raise DataError(f"Writing synthetic clips to {folder} failed in a worker process: {last}")
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


def _work(order: str) -> None:
    """Write every `step`-th block from block `first` on, and print the number of clips of each.

    Args:
        order: JSON: the arguments of `Generator`, the folder, `first`, `step`.
    """
    (clips, seed, domain, split_players), folder, first, step = json.loads(order)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    generator = Generator(clips, seed, domain, tuple(split_players))
    for made in _write_blocks(generator, Path(folder), range(first, -(-clips // BLOCK), step)):
        sys.stdout.write(f"{made}\n")  # in one piece even where output is unbuffered: all workers share the pipe
        sys.stdout.flush()


def _end_with_parent() -> None:
    """The parent holds our standard input open: its end is the parent's end."""
    sys.stdin.read()
    os._exit(1)


def _audio_path(clip: Clip) -> str:
    return f"audio/{clip.rudiment}/{clip.sample_id}.flac"


def _samples_table(clips: Sequence[Clip], domain: str) -> "pa.Table":
    """Rows of `labels/samples.parquet`, with SOUSA's columns and types."""
    import pyarrow as pa

    rows = [_sample_row(clip, domain) for clip in clips]
    schema = pa.schema([(name, SAMPLE_TYPES.get(name, "large_string")) for name in rows[0]])
    return pa.Table.from_pylist(rows, schema=schema)


def _sample_row(clip: Clip, domain: str) -> dict[str, Any]:
    player, drum, room = clip.player, DRUMS[domain][clip.drum], ROOMS[domain][clip.room]
    return {
        "sample_id": clip.sample_id,
        "profile_id": player.player_id,
        "rudiment_slug": clip.rudiment,
        "tempo_bpm": clip.tempo_bpm,
        "duration_sec": clip.performance.duration_ms / 1000.0,
        "num_cycles": clip.performance.cycles,
        "skill_tier": player.tier,
        "skill_tier_binary": "novice" if player.tier in ("beginner", "intermediate") else "skilled",
        "dominant_hand": player.dominant_hand,
        "midi_path": None,
        "audio_path": _audio_path(clip),
        "num_strokes": len(clip.performance.strokes),
        "num_measures": clip.performance.cycles,
        "soundfont": drum.name,
        "augmentation_preset": room.preset,
        "augmentation_group_id": f"{player.player_id[:8]}_{clip.rudiment}_{clip.tempo_bpm}",
        "aug_soundfont": drum.name,
        "aug_room_type": room.room_type,
        "aug_room_wet_dry": room.wet,
        "aug_mic_distance": room.mic_distance_m,
        "aug_mic_type": room.mic_type,
        "aug_compression_ratio": room.compression,
        "aug_noise_level_db": room.noise_db,
        "aug_bit_depth": None,
        "aug_sample_rate": None,
    }


def _strokes_table(clips: Sequence[Clip]) -> "pa.Table":
    """Rows of `labels/strokes.parquet`, with SOUSA's columns and types; NaN becomes null, as in SOUSA's file."""
    import pyarrow as pa

    strokes = np.concatenate([clip.performance.strokes for clip in clips])
    columns: dict[str, Any] = {}
    for name in strokes.dtype.names or ():
        columns[name] = strokes[name]
        if name == "actual_time_ms":
            columns["timing_error_ms"] = strokes[name] - strokes["intended_time_ms"]
        elif name == "actual_velocity":
            columns["velocity_error"] = strokes[name] - strokes["intended_velocity"]
    counts = [len(clip.performance.strokes) for clip in clips]
    columns["sample_id"] = np.repeat([clip.sample_id for clip in clips], counts)
    types = {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "U": pa.large_string()}
    return pa.table({name: pa.array(v, type=types[v.dtype.kind], from_pandas=True) for name, v in columns.items()})


def _join(parts: Path, kind: str, blocks: int, path: Path) -> None:
    """Join the parts of a label table in the order of the clips."""
    import pyarrow.parquet as pq

    files = [parts / f"{kind}_{block:06d}.parquet" for block in range(blocks)]
    with pq.ParquetWriter(path, pq.read_schema(files[0])) as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


def _splits(generator: Generator) -> dict[str, object]:
    """Content of `splits.json`: the players that have clips, by split."""
    members: dict[str, set[str]] = {split: set() for split in SPLITS}
    for index in range(generator.clips):
        split, _, number = generator.place(index)
        members[split].add(generator.player(number).player_id)
    stats = {f"{split}_profiles": len(members[split]) for split in SPLITS}
    return {
        **{f"{split}_profile_ids": sorted(members[split]) for split in SPLITS},
        "stats": {"total_profiles": sum(stats.values()), **stats},
    }


if __name__ == "__main__":
    _work(sys.argv[1])
