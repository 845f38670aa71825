"""Write a synthetic dataset as a folder in SOUSA's own layout."""

import contextlib
import json
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from sousa_bench.data.synthetic.generator import SPLITS, Clip, Generator
from sousa_bench.data.synthetic.labels import audio_path, sample_row, samples_schema, strokes_schema, strokes_table
from sousa_bench.data.synthetic.version import SAMPLE_RATE, SPLIT_PLAYERS
from sousa_bench.errors import DataError
from sousa_bench.system.cores import usable_cores
from sousa_bench.system.python import python_environment

BLOCK = 50
"""Clips per block: the unit that a worker takes, and that leaves one part of the label tables."""

FLAC_LEVEL = 0.5
"""libsndfile's compression level, 0 to 1: files a tenth smaller than at 0 in the same time."""

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

    `labels/samples.parquet` is written last and by rename: a folder that has one is whole, and an interrupted call is
    simply repeated. The content depends on neither `workers` nor the machine's load.

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
    folder = Path(folder)
    parts = folder / "labels" / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    done_marker = folder / "labels" / "samples.parquet"
    done_marker.unlink(missing_ok=True)
    blocks = -(-clips // BLOCK)
    count = min(workers if workers is not None else usable_cores(), blocks)
    if workers is not None and workers < 1:
        raise DataError(f"workers={workers}: at least 1 process writes the clips.")
    report = progress or (lambda done, total: None)
    report(0, clips)
    if count == 1:
        _run_here(generator, folder, range(blocks), report)
    else:
        _run_workers(generator, folder, count, report)
    _join_labels(folder, parts, blocks)
    _write_json(folder / "splits.json", _splits(generator))
    (folder / "labels" / "samples.parquet.part").replace(done_marker)
    shutil.rmtree(parts)


def write_blocks(generator: Generator, folder: Path, blocks: Iterable[int]) -> Iterable[int]:
    """Write whole blocks of clips and their label parts; yields the number of clips in each when it is on disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for block in blocks:
        numbers = range(block * BLOCK, min((block + 1) * BLOCK, generator.clips))
        made = [generator.clip(number) for number in numbers]
        for clip in made:
            _write_flac(folder, clip)
        rows = [sample_row(clip, generator.domain) for clip in made]
        parts = folder / "labels" / "parts"
        pq.write_table(pa.Table.from_pylist(rows, schema=samples_schema()), parts / f"samples_{block:06d}.parquet")
        pq.write_table(strokes_table(made), parts / f"strokes_{block:06d}.parquet")
        yield len(made)


def _write_flac(folder: Path, clip: Clip) -> None:
    import soundfile

    path = folder / audio_path(clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, clip.audio, SAMPLE_RATE, subtype="PCM_16", format="FLAC", compression_level=FLAC_LEVEL)


def _run_here(generator: Generator, folder: Path, blocks: Iterable[int], report: Progress) -> None:
    done = 0
    for made in write_blocks(generator, folder, blocks):
        done += made
        report(done, generator.clips)


def _run_workers(generator: Generator, folder: Path, count: int, report: Progress) -> None:
    """Share the blocks out among fresh interpreters, which import neither torch nor whatever this process holds."""
    order = {
        "clips": generator.clips,
        "seed": generator.seed,
        "domain": generator.domain,
        "split_players": list(generator.split_players),
        "folder": str(folder.resolve()),
    }
    environment = python_environment(OMP_NUM_THREADS="1")
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    workers: list[subprocess.Popen[str]] = []
    try:
        for number in range(count):
            command = [sys.executable, "-m", "sousa_bench.data.synthetic.worker"]
            command.append(json.dumps(order | {"first": number, "step": count}))
            workers.append(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    stdin=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            threading.Thread(target=_pump, args=(workers[-1], lines), daemon=True).start()
        _follow(generator.clips, count, lines, report)
        for worker in workers:
            _, said = worker.communicate()
            if worker.returncode != 0:
                last = said.strip().splitlines()[-1] if said.strip() else f"exit code {worker.returncode}"
                raise DataError(f"Writing synthetic clips to {folder} failed in a worker process: {last}")
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


def _pump(worker: subprocess.Popen[str], lines: "queue.SimpleQueue[str | None]") -> None:
    assert worker.stdout is not None
    with contextlib.suppress(ValueError):
        for line in worker.stdout:
            lines.put(line)
    lines.put(None)


def _follow(clips: int, count: int, lines: "queue.SimpleQueue[str | None]", report: Progress) -> None:
    done = ended = 0
    while ended < count:
        line = lines.get()
        if line is None:
            ended += 1
        else:
            done += int(line)
            report(done, clips)


def _join_labels(folder: Path, parts: Path, blocks: int) -> None:
    """Join the parts in the order of the clips; `samples.parquet.part` waits for its final name."""
    import pyarrow.parquet as pq

    for kind, name, schema in (
        ("strokes", "strokes.parquet", strokes_schema()),
        ("samples", "samples.parquet.part", samples_schema()),
    ):
        with pq.ParquetWriter(folder / "labels" / name, schema) as writer:
            for block in range(blocks):
                writer.write_table(pq.read_table(parts / f"{kind}_{block:06d}.parquet", schema=schema))


def _splits(generator: Generator) -> dict[str, object]:
    """Content of `splits.json`: the players that have clips, by split."""
    members: dict[str, list[str]] = {split: [] for split in SPLITS}
    for index in range(generator.clips):
        split, _, number = generator.place(index)
        player = generator.player(number).player_id
        if player not in members[split]:
            members[split].append(player)
    result: dict[str, object] = {f"{split}_profile_ids": sorted(members[split]) for split in SPLITS}
    stats = {f"{split}_profiles": len(members[split]) for split in SPLITS}
    result["stats"] = {"total_profiles": sum(stats.values()), **stats}
    return result


def _write_json(path: Path, content: object) -> None:
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
